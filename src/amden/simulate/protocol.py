"""Simulation protocols as data: from a random start through stages to one structure.

What is run is written here; how, in `engine` and `relaxation`; how often and where to, in `campaign`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from amden.elements import MASSES, atomic_number
from amden.random import Streams
from amden.simulate.engine import Segment
from amden.simulate.potentials import Potential, StillingerWeber, bmp_shrm, munetoh_silica
from amden.units import AMU_PER_A3_IN_G_PER_CM3

POTENTIALS: Final[Mapping[str, Potential]] = {
    "stillinger-weber-si": StillingerWeber(),
    "tersoff-sio": munetoh_silica(),
    "bmp-shrm": bmp_shrm(),
}
"""Potentials a protocol may name."""

_SIZE_DRAW = 1 << 61
"""The draw of `Streams` that the size of a cell is made of."""


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


@dataclass(frozen=True)
class Protocol:
    """A recipe for one structure: atoms put at random into a cube, stages one after the other, the last frame kept."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    doc: str
    """One sentence for people."""
    n_atoms: int | tuple[int, int]
    """Atoms of a cell; or the fewest and the most, then the seed of a cell chooses evenly among the numbers between
    them that have the composition."""
    density: float
    """g/cm³ of the random start."""
    min_distance: float
    """Å between atoms of the random start."""
    potential: str
    """A name in `POTENTIALS`."""
    stages: tuple[Stage | Quench, ...]
    """Molecular dynamics first."""
    composition: Mapping[str, float] = field(default_factory=dict)
    """Atoms of each element in any units, such as {"Si": 1, "O": 2}."""

    def __post_init__(self) -> None:
        if self.potential not in POTENTIALS:
            raise ValueError(f"unknown potential {self.potential!r}: expected one of {', '.join(POTENTIALS)}")
        for name in ("n_atoms", "density"):
            value = getattr(self, name)
            if not (min(value) if isinstance(value, tuple) else value) > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        if not self.stages:
            raise ValueError("`stages` is empty: nothing to run")
        if not isinstance(self.stages[0], Stage):
            raise ValueError("`stages` must begin with molecular dynamics: a random start has no minimum of its own")
        strangers = [symbol for symbol in self.composition if symbol not in self.interaction.symbols]
        if strangers:
            known = ", ".join(self.interaction.symbols)
            raise ValueError(
                f"element {strangers[0]!r} is unknown to the potential {self.potential!r}, which has {known}"
            )
        if not self.composition or min(self.composition.values()) <= 0:
            raise ValueError(f"`composition` must hold positive amounts, got {dict(self.composition)}")
        if not self.possible_sizes:
            raise ValueError(f"`n_atoms` {self.n_atoms} cannot have the composition {dict(self.composition)}")

    def _exact_counts(self, n_atoms: int) -> dict[str, float]:
        total = sum(self.composition.values())
        return {symbol: n_atoms * amount / total for symbol, amount in self.composition.items()}

    @property
    def interaction(self) -> Potential:
        """The potential itself."""
        return POTENTIALS[self.potential]

    @property
    def possible_sizes(self) -> tuple[int, ...]:
        """Numbers of atoms that a cell may have, ascending."""
        few, most = self.n_atoms if isinstance(self.n_atoms, tuple) else (self.n_atoms, self.n_atoms)
        counts = {n: self._exact_counts(n).values() for n in range(few, most + 1)}
        return tuple(n for n, c in counts.items() if all(isclose(x, round(x), abs_tol=1e-6) for x in c))

    @property
    def size(self) -> str:
        """Atoms of a cell, for people.

        >>> find_protocol("sio2").size
        '81 to 249'
        """
        few, most = self.possible_sizes[0], self.possible_sizes[-1]
        return f"{few}" if few == most else f"{few} to {most}"

    def sizes(self, seeds: Sequence[int]) -> Int64[np.ndarray, " cells"]:
        """Atoms of the cell of each seed.

        >>> silica = find_protocol("sio2")
        >>> silica.sizes([1, 2, 3]).tolist(), silica.sizes([3]).tolist()
        ([114, 114, 144], [144])
        """
        possible = np.array(self.possible_sizes, np.int64)
        streams = Streams.of(torch.tensor(seeds, dtype=torch.int64), torch.ones(len(seeds), dtype=torch.int64))
        share = streams.uniform((), draw=_SIZE_DRAW).numpy().astype(np.float64)
        return possible[(share * len(possible)).astype(np.int64)]

    def species_of(self, n_atoms: int) -> UInt8[np.ndarray, " atoms"]:
        """Species numbers of the potential in a cell of `n_atoms`, atoms of one element together."""
        numbers = {symbol: k for k, symbol in enumerate(self.interaction.symbols)}
        kinds = [numbers[symbol] for symbol in self.composition]
        return np.repeat(np.array(kinds, np.uint8), [round(count) for count in self._exact_counts(n_atoms).values()])

    @property
    def elements(self) -> UInt8[np.ndarray, " species"]:
        """Atomic number of each species."""
        return np.array([atomic_number(symbol) for symbol in self.interaction.symbols], np.uint8)

    def volume_of(self, n_atoms: int) -> float:
        """Å³ of the random start of `n_atoms`."""
        mass = float(MASSES[self.elements[self.species_of(n_atoms)]].sum())
        return mass * AMU_PER_A3_IN_G_PER_CM3 / self.density

    def temperature_after(self, number: int) -> float:
        """K with which the molecular dynamics that follows stage `number` begins; 0 where none follows."""
        return next((stage.temperature[0] for stage in self.stages[number + 1 :] if isinstance(stage, Stage)), 0.0)

    @property
    def n_steps(self) -> int:
        """Steps of molecular dynamics in all stages."""
        return sum(stage.segment().n_steps for stage in self.stages if isinstance(stage, Stage))

    @property
    def duration(self) -> float:
        """ps of all stages."""
        return sum(stage.duration for stage in self.stages if isinstance(stage, Stage))


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
        Protocol(
            name="si-anneal",
            doc="Annealed silicon: the melt, then 2500 to 300 K at 1 K/ps and 10 ps at 300 K, all at 0 bar.",
            stages=(_MELT, Stage(2200.0, (2500.0, 300.0)), Stage(10.0, (300.0, 300.0))),
            **_SILICON,
        ),
        Protocol(
            name="sio2",
            doc="Silica glass of 81 to 249 atoms: 200 ps at 3500 K, the nearest minimum, 10 ps at 300 K, at 0 bar.",
            n_atoms=(80, 250),
            composition={"Si": 1.0, "O": 2.0},
            density=2.2,
            min_distance=2.0,
            potential="tersoff-sio",
            stages=(
                Stage(200.0, (3500.0, 3500.0), timestep=0.0005),
                Quench("variable", force_tolerance=0.05),
                Stage(10.0, (300.0, 300.0), timestep=0.001),
            ),
        ),
    )
}
"""The protocols of the package.

The hold of `si-quench` counts: 10 ps at 300 K lower the energy by 0.02 eV an atom. So does the melt of `sio2`: a random
start needs 100 ps at 3500 K to come to its plateau. Its time step: without thermostat the melt heats by 0.2 ± 0.3 meV
an atom and ps at 0.5 fs, by 24 at 1 fs (the cutoff functions of Tersoff's potential are short and steep; LAMMPS finds
the same), the glass at 300 K by 0.1 at 1 fs.
"""


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    >>> find_protocol("si-quench").duration
    30.0
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
