"""The stages that protocols are made of, as data.

| stage | what it does |
|---|---|
| `Stage` | molecular dynamics, the same for all cells |
| `SoftStart` | the first steps from a random start, in which no atom moves far |
| `Evaporation` | finds at which temperature a cell evaporates, and leaves it as it was |
| `Adapted` | molecular dynamics at temperatures of the cell's own |
| `Quench` | to the nearest minimum of the energy |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isclose
from typing import Final, Literal

from amden.simulate.engine import Segment

TYPICAL: Final = 4500.0
"""K: evaporation temperature for which the steps of a protocol are told before it is known."""


@dataclass(frozen=True)
class Stage:
    """A stretch of molecular dynamics with the temperature constant or on a linear ramp.

    >>> Stage(20.0, (2500.0, 2500.0)).segment().n_steps
    10000
    """

    __pydantic_config__ = {"extra": "forbid"}

    duration: float
    """ps; a whole number of time steps."""
    temperature: tuple[float, float]
    """K at the start and at the end."""
    pressure: float | None = 0.0
    """GPa; None: constant volume."""
    timestep: float = 0.002
    """ps."""
    tau_T: float = 0.1  # noqa: N815
    """Relaxation time of the thermostat, ps."""
    tau_P: float = 1.0  # noqa: N815
    """Relaxation time of the barostat, ps."""

    def __post_init__(self) -> None:
        _whole_steps(self.duration, self.timestep)
        self.segment()

    def segment(self) -> Segment:
        """The stage as the engine takes it."""
        return Segment(
            n_steps=round(self.duration / self.timestep),
            timestep=self.timestep,
            temperature=self.temperature,
            pressure=self.pressure,
            tau_T=self.tau_T,
            tau_P=self.tau_P,
        )


@dataclass(frozen=True)
class SoftStart:
    """A stretch at constant volume in which no atom moves further than `max_displacement` in a step: atoms that a
    random start has put too close part, and nothing explodes."""

    __pydantic_config__ = {"extra": "forbid"}

    duration: float
    """ps; a whole number of time steps."""
    temperature: tuple[float, float]
    """K at the start and at the end."""
    max_displacement: float
    """Å."""
    timestep: float = 0.001
    """ps."""
    tau_T: float = 0.02  # noqa: N815
    """Relaxation time of the thermostat, ps."""

    def __post_init__(self) -> None:
        _whole_steps(self.duration, self.timestep)
        self.segment()

    def segment(self) -> Segment:
        """The stage as the engine takes it."""
        return Segment(
            n_steps=round(self.duration / self.timestep),
            timestep=self.timestep,
            temperature=self.temperature,
            tau_T=self.tau_T,
            max_displacement=self.max_displacement,
        )


@dataclass(frozen=True)
class Evaporation:
    """A stretch in a cell made longer along its first lattice vector, at constant volume, heated until atoms
    evaporate: the pressure tells at which temperature (`evaporation`). Then the cell is again what it was before.

    A cell whose pressure does not tell is set aside.
    """

    __pydantic_config__ = {"extra": "forbid"}

    duration: float
    """ps; a whole number of time steps."""
    temperature: tuple[float, float]
    """K at the start and at the end."""
    stretch: float
    """Length of the cell in its former one."""
    timestep: float = 0.002
    """ps."""
    tau_T: float = 0.1  # noqa: N815
    """Relaxation time of the thermostat, ps."""

    def __post_init__(self) -> None:
        if not self.stretch > 1.0:
            raise ValueError(f"`stretch` must be above 1, got {self.stretch}")
        if not self.temperature[0] < self.temperature[1]:
            raise ValueError(f"`temperature` must rise, got {self.temperature}")
        _whole_steps(self.duration, self.timestep)
        self.segment()

    def segment(self) -> Segment:
        """The stage as the engine takes it."""
        return Segment(
            n_steps=round(self.duration / self.timestep),
            timestep=self.timestep,
            temperature=self.temperature,
            tau_T=self.tau_T,
        )


@dataclass(frozen=True)
class Relative:
    """A temperature of a cell's own: a fraction of its evaporation temperature, and K beside.

    >>> Relative(0.75, -500.0).of(4000.0)
    2500.0
    """

    __pydantic_config__ = {"extra": "forbid"}

    fraction: float = 0.0
    """Of the evaporation temperature."""
    offset: float = 0.0
    """K."""

    def of(self, evaporation_temperature: float) -> float:
        """K."""
        return self.fraction * evaporation_temperature + self.offset


@dataclass(frozen=True)
class Adapted:
    """A stretch of molecular dynamics at temperatures of a cell's own, constant or on a linear ramp.

    A cell whose volume becomes `evaporation.EXPANDED` times that before its evaporation was tried has evaporated after
    all and is set aside; so is one whose atoms have not moved as far as asked for.

    >>> Adapted((Relative(0.75), Relative(offset=300.0)), rate=5.0).segment(4000.0).n_steps
    270000
    """

    __pydantic_config__ = {"extra": "forbid"}

    temperature: tuple[Relative, Relative]
    """At the start and at the end."""
    duration: float | None = None
    """ps; a whole number of time steps. None: as long as the `rate` says."""
    rate: float | None = None
    """K/ps, up or down."""
    least_displacement: float = 0.0
    """Å: how far the atoms of each element must have moved at the end, as a root mean square, since the first of these
    stages."""
    until_displaced: bool = False
    """Whether the stage ends as soon as they have."""
    typical_duration: float | None = None
    """ps after which most cells end early: what is told of the stage beforehand, which changes no cell."""
    pressure: float | None = 0.0
    """GPa; None: constant volume."""
    timestep: float = 0.002
    """ps."""
    tau_T: float = 0.1  # noqa: N815
    """Relaxation time of the thermostat, ps."""
    tau_P: float = 1.0  # noqa: N815
    """Relaxation time of the barostat, ps."""

    def __post_init__(self) -> None:
        if (self.duration is None) == (self.rate is None):
            raise ValueError("a stage takes either a `duration` or a `rate`")
        if self.duration is not None:
            _whole_steps(self.duration, self.timestep)
        if self.rate is not None and not self.rate > 0.0:
            raise ValueError(f"`rate` must be positive, got {self.rate}")
        if self.least_displacement < 0.0:
            raise ValueError(f"`least_displacement` must not be negative, got {self.least_displacement}")
        if self.until_displaced and self.least_displacement == 0.0:
            raise ValueError("`until_displaced` needs a `least_displacement`")
        if self.typical_duration is not None:
            self._check_typical(self.typical_duration)
        self.segment(TYPICAL)

    def _check_typical(self, typical: float) -> None:
        if not self.until_displaced or self.duration is None:
            raise ValueError("`typical_duration` needs `until_displaced` and a `duration`")
        if not 0.0 < typical <= self.duration:
            raise ValueError(f"`typical_duration` must be positive and at most {self.duration} ps, got {typical}")

    def segment(self, evaporation_temperature: float) -> Segment:
        """The stage as the engine takes it for a cell.

        Errors: `ValueError` where a temperature is not positive.
        """
        start, end = (kelvin.of(evaporation_temperature) for kelvin in self.temperature)
        duration = abs(end - start) / self.rate if self.rate else self.duration or 0.0
        return Segment(
            n_steps=max(1, ceil(duration / self.timestep - 1e-6)),
            timestep=self.timestep,
            temperature=(start, end),
            pressure=self.pressure,
            tau_T=self.tau_T,
            tau_P=self.tau_P,
        )


@dataclass(frozen=True)
class Quench:
    """A stage without time: the atoms go to the nearest minimum of the energy, where the next stage gives them new
    velocities. A cell whose relaxation does not converge is set aside."""

    __pydantic_config__ = {"extra": "forbid"}

    cell: Literal["variable", "fixed"]
    """Whether the cell relaxes too, to no pressure."""
    force_tolerance: float
    """eV/Å: the largest force on an atom that is left."""
    max_steps: int = 5000
    """Steps before a relaxation is given up."""

    def __post_init__(self) -> None:
        if not 0.0 < self.force_tolerance < float("inf"):
            raise ValueError(f"`force_tolerance` must be positive, got {self.force_tolerance}")
        if self.max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, got {self.max_steps}")


Dynamics = Stage | SoftStart | Evaporation | Adapted
"""Stages of molecular dynamics."""


def typical_segment(stage: Dynamics) -> Segment:
    """Of a cell that evaporates at `TYPICAL` and ends early where most do."""
    if not isinstance(stage, Adapted):
        return stage.segment()
    if stage.typical_duration is None:
        return stage.segment(TYPICAL)
    return replace(stage, duration=stage.typical_duration, typical_duration=None).segment(TYPICAL)


def check_order(stages: Sequence[Dynamics | Quench]) -> None:
    """Errors: `ValueError` for stages that cannot follow one another."""
    if not stages:
        raise ValueError("`stages` is empty: nothing to run")
    if isinstance(stages[0], Quench):
        raise ValueError("`stages` must begin with molecular dynamics: a random start has no minimum of its own")
    if not isinstance(stages[-1], Stage | Quench):
        raise ValueError("`stages` must end with what is the same for all cells")
    tried = False
    for before, stage in zip((None, *stages), stages, strict=False):
        if isinstance(stage, Adapted | Evaporation) and not isinstance(before, Stage | Evaporation | Adapted):
            raise ValueError("`stages` must have a melt before an evaporation, and nothing but dynamics after it")
        if isinstance(stage, Adapted) and not tried:
            raise ValueError("`stages` must have an evaporation before temperatures that refer to it")
        tried = tried or isinstance(stage, Evaporation)


def _whole_steps(duration: float, timestep: float) -> None:
    steps = duration / timestep if timestep > 0 else 0.0
    if round(steps) < 1 or not isclose(steps, round(steps), rel_tol=1e-9):
        raise ValueError(f"`duration` must be a whole number of time steps of {timestep} ps, got {duration} ps")
