"""Simulation protocols as data: from a random start through stages of molecular dynamics to one structure.

What is run is written here; how, in `engine`; how often and where to, in `campaign`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose
from typing import Final

import numpy as np
from jaxtyping import UInt8

from amden.elements import MASSES, atomic_number
from amden.simulate.engine import Segment
from amden.simulate.potentials import Potential, StillingerWeber
from amden.units import AMU_PER_A3_IN_G_PER_CM3

POTENTIALS: Final[Mapping[str, Potential]] = {"stillinger-weber-si": StillingerWeber()}
"""Potentials a protocol may name."""


@dataclass(frozen=True)
class Stage:
    """A stretch of a run with the temperature constant or on a linear ramp.

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
        steps = self.duration / self.timestep if self.timestep > 0 else 0.0
        if round(steps) < 1 or not isclose(steps, round(steps), rel_tol=1e-9):
            raise ValueError(
                f"`duration` must be a whole number of time steps of {self.timestep} ps, got {self.duration} ps"
            )
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
class Protocol:
    """A recipe for one structure: atoms put at random into a cube, stages one after the other, the last frame kept."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    doc: str
    """One sentence for people."""
    n_atoms: int
    density: float
    """g/cm³ of the random start."""
    min_distance: float
    """Å between atoms of the random start."""
    potential: str
    """A name in `POTENTIALS`."""
    stages: tuple[Stage, ...]
    composition: Mapping[str, float] = field(default_factory=dict)
    """Atoms of each element in any units, such as {"Si": 1, "O": 2}."""

    def __post_init__(self) -> None:
        if self.potential not in POTENTIALS:
            raise ValueError(f"unknown potential {self.potential!r}: expected one of {', '.join(POTENTIALS)}")
        for name in ("n_atoms", "density"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if not self.stages:
            raise ValueError("`stages` is empty: nothing to run")
        strangers = [symbol for symbol in self.composition if symbol not in self.interaction.symbols]
        if strangers:
            known = ", ".join(self.interaction.symbols)
            raise ValueError(
                f"element {strangers[0]!r} is unknown to the potential {self.potential!r}, which has {known}"
            )
        if not self.composition or min(self.composition.values()) <= 0:
            raise ValueError(f"`composition` must hold positive amounts, got {dict(self.composition)}")
        counts = self._exact_counts()
        if not all(isclose(count, round(count), abs_tol=1e-6) for count in counts.values()):
            raise ValueError(f"`n_atoms` {self.n_atoms} cannot have the composition {dict(self.composition)}")

    def _exact_counts(self) -> dict[str, float]:
        total = sum(self.composition.values())
        return {symbol: self.n_atoms * amount / total for symbol, amount in self.composition.items()}

    @property
    def interaction(self) -> Potential:
        """The potential itself."""
        return POTENTIALS[self.potential]

    @property
    def species(self) -> UInt8[np.ndarray, " atoms"]:
        """Species numbers of the potential, atoms of one element together."""
        numbers = {symbol: k for k, symbol in enumerate(self.interaction.symbols)}
        kinds = [numbers[symbol] for symbol in self.composition]
        return np.repeat(np.array(kinds, np.uint8), [round(count) for count in self._exact_counts().values()])

    @property
    def atomic_numbers(self) -> UInt8[np.ndarray, " atoms"]:
        """Atomic number of each atom."""
        return np.array([atomic_number(symbol) for symbol in self.interaction.symbols], np.uint8)[self.species]

    @property
    def volume(self) -> float:
        """Å³ of the random start."""
        return float(MASSES[self.atomic_numbers].sum()) * AMU_PER_A3_IN_G_PER_CM3 / self.density

    @property
    def n_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.segment().n_steps for stage in self.stages)

    @property
    def duration(self) -> float:
        """ps of all stages."""
        return sum(stage.duration for stage in self.stages)


_MELT: Final = Stage(20.0, (2500.0, 2500.0))
_SILICON: Final = {
    "n_atoms": 256,
    "composition": {"Si": 1.0},
    "density": 2.4,
    "min_distance": 2.0,
    "potential": "stillinger-weber-si",
}

PROTOCOLS: Final[Mapping[str, Protocol]] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="si-melt",
            doc="Liquid silicon: 20 ps at 2500 K and 0 bar from a random start (5 to 10 ps decorrelate a melt).",
            stages=(_MELT,),
            **_SILICON,
        ),
        Protocol(
            name="si-quench",
            doc="Quenched silicon: the melt, then the thermostat set to 300 K at once and held for 10 ps at 0 bar.",
            stages=(_MELT, Stage(10.0, (300.0, 300.0))),
            **_SILICON,
        ),
    )
}
"""The protocols of the package. The hold of `si-quench` counts: 10 ps at 300 K lower the energy by 0.02 eV an atom."""


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    >>> find_protocol("si-quench").duration
    30.0
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
