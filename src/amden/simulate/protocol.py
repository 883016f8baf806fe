"""Simulation protocols as data: from a random start through stages to one structure.

What may be run is written here, what the package runs in `catalogue`; how, in `engine` and `relaxation`; how often and
where to, in `campaign`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil, isclose
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from amden.elements import MASSES, atomic_number
from amden.random import Streams
from amden.simulate.oxides import FORMERS, MODIFIERS, neutral_counts, shuffled_grid, with_oxygen
from amden.simulate.potentials import POTENTIALS, Potential
from amden.simulate.potentials.pair_sums import image_cutoff
from amden.simulate.stages import (
    Adapted,
    Dynamics,
    Evaporation,
    Quench,
    SoftStart,
    Stage,
    check_order,
    typical_segment,
)
from amden.units import AMU_PER_A3_IN_G_PER_CM3

GRID: Final = "multi-element"
"""What `Protocol.compositions` calls those of `oxides.shuffled_grid`."""
IONS_IN_SPACE: Final = 0.065
"""Atoms an Å³ where ions are put down at random: the fewest of the oxide glasses."""
FEWER: Final = 2
"""Atoms that a neutral cell of some composition of the grid is short of those asked for, whatever their number."""

_SIZE_DRAW = 1 << 61
"""The draw of `Streams` that the size of a cell is made of."""


@dataclass(frozen=True)
class Protocol:
    """A recipe for one structure: atoms put at random into a cube, stages one after the other, the last frame kept.

    With `compositions` it is a recipe for many: then cells have ions, as many of each element as balance their charges.
    """

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    doc: str
    """One sentence for people."""
    n_atoms: int | tuple[int, int] | None
    """Atoms of a cell; or the fewest and the most, then the seed of a cell chooses evenly among the numbers between
    them that have the composition. About so many where there are `compositions`; None where those are the numbers of
    atoms themselves."""
    density: float | None
    """g/cm³ of the random start; None, for ions: 0.065 atoms an Å³."""
    min_distance: float | None
    """Å between atoms of the random start; None, for ions: by their charges (`packing.ion_distances`)."""
    potential: str
    """A name in `POTENTIALS`."""
    stages: tuple[Dynamics | Quench, ...]
    """Molecular dynamics first; last what is the same for all cells."""
    composition: Mapping[str, float] = field(default_factory=dict)
    """Atoms of each element in any units, such as {"Si": 1, "O": 2}."""
    compositions: Literal["multi-element"] | tuple[Mapping[str, float], ...] | None = None
    """In the place of `composition`, one for each cell of a campaign, over and over; `GRID` are the 9,240 of
    `oxides.shuffled_grid`."""

    def __post_init__(self) -> None:
        if self.potential not in POTENTIALS:
            raise ValueError(f"unknown potential {self.potential!r}: expected one of {', '.join(POTENTIALS)}")
        for name in ("n_atoms", "density"):
            value = getattr(self, name)
            if value is not None and not (min(value) if isinstance(value, tuple) else value) > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        check_order(self.stages)
        if self.compositions is not None:
            self._check_ions()
            return
        if self.n_atoms is None:
            raise ValueError("`n_atoms` may be None only where `compositions` are numbers of atoms")
        if self.density is None or self.min_distance is None:
            raise ValueError("`density` and `min_distance` may be None only where there are `compositions`")
        self._check_elements(self.composition)
        if not self.composition or min(self.composition.values()) <= 0:
            raise ValueError(f"`composition` must hold positive amounts, got {dict(self.composition)}")
        if not self.possible_sizes:
            raise ValueError(f"`n_atoms` {self.n_atoms} cannot have the composition {dict(self.composition)}")
        self._check_room()

    def _check_ions(self) -> None:
        if self.composition:
            raise ValueError("`composition` and `compositions` exclude each other")
        if isinstance(self.n_atoms, tuple):
            raise ValueError(f"`n_atoms` must be one number where there are `compositions`, got {self.n_atoms}")
        if self.n_atoms is None:
            self._check_counts()
        elif self.density is not None or self.min_distance is not None:
            raise ValueError("`density` and `min_distance` must be None where there are `compositions`")
        elif self.compositions == GRID:
            self._check_elements([*FORMERS, *MODIFIERS, "O"])
        else:
            if not self.compositions:
                raise ValueError("`compositions` is empty")
            for number, composition in enumerate(self.compositions):
                self._check_elements(composition)
                self.counts(number)
        self._check_room()

    def _check_room(self) -> None:
        """A random start must be as wide as the engine's neighbour lists need it."""
        if self.n_atoms is None:
            return
        width = 2.0 * image_cutoff(self.interaction)
        asked = self.possible_sizes[0] if self.compositions is None else self.n_atoms
        assert isinstance(asked, int)
        fewest = self._fewest(asked)
        least = ceil(width**3 * self._dense(fewest))
        if fewest < least:
            enough = next(n for n in count(least) if self._whole(n) and self._fewest(n) >= least)
            raise ValueError(
                f"`n_atoms` (--atoms) must be at least {enough} for {self.potential}, got {self.n_atoms}: "
                f"a random start of {fewest} atoms is narrower than {width:.4g} Å"
            )

    def _dense(self, n_atoms: int) -> float:
        """Atoms an Å³ of a random start."""
        return IONS_IN_SPACE if self.density is None else n_atoms / self.volume_of(self.species_of(n_atoms))

    def _fewest(self, n_atoms: int) -> int:
        """Atoms of the smallest cell, where so many are asked for."""
        if self.compositions is None:
            return n_atoms
        if self.compositions == GRID:
            return n_atoms - FEWER
        assert self.compositions is not None
        return min(sum(neutral_counts(each, n_atoms=n_atoms).values()) for each in self.compositions)

    def _check_counts(self) -> None:
        if not isinstance(self.compositions, tuple) or not self.compositions:
            raise ValueError("`n_atoms` may be None only where `compositions` are numbers of atoms")
        if (self.density is None) != (self.min_distance is None):
            raise ValueError("`density` and `min_distance` must both be given, or neither")
        for counts in self.compositions:
            self._check_elements(counts)
            if not counts or any(n < 1 or n != round(n) for n in counts.values()):
                raise ValueError(f"`compositions` must be whole numbers of atoms, got {dict(counts)}")

    def _check_elements(self, symbols: Iterable[str]) -> None:
        strangers = [symbol for symbol in symbols if symbol not in self.interaction.symbols]
        if strangers:
            known = ", ".join(self.interaction.symbols)
            raise ValueError(
                f"element {strangers[0]!r} is unknown to the potential {self.potential!r}, which has {known}"
            )

    def _exact_counts(self, n_atoms: int) -> dict[str, float]:
        total = sum(self.composition.values())
        return {symbol: n_atoms * amount / total for symbol, amount in self.composition.items()}

    def _whole(self, n_atoms: int) -> bool:
        """Whether so many atoms can have the composition, where there is one."""
        return all(isclose(n, round(n), abs_tol=1e-6) for n in self._exact_counts(n_atoms).values())

    @property
    def interaction(self) -> Potential:
        """The potential itself."""
        return POTENTIALS[self.potential]

    @property
    def possible_sizes(self) -> tuple[int, ...]:
        """Numbers of atoms that a cell may have, ascending."""
        assert self.n_atoms is not None
        few, most = self.n_atoms if isinstance(self.n_atoms, tuple) else (self.n_atoms, self.n_atoms)
        return tuple(n for n in range(few, most + 1) if self._whole(n))

    @property
    def size(self) -> str:
        """Atoms of a cell, for people.

        >>> from amden.simulate.catalogue import find_protocol
        >>> find_protocol("sio2").size, find_protocol("meg").size
        ('81 to 249', 'about 400')
        """
        if self.n_atoms is not None and self.compositions is not None:
            return f"about {self.n_atoms}"
        totals = [sum(self.counts(i).values()) for i in range(len(self.compositions or ()))]
        few, most = (min(totals), max(totals)) if totals else (self.possible_sizes[0], self.possible_sizes[-1])
        return f"{few}" if few == most else f"{few} to {most}"

    def sizes(self, seeds: Sequence[int]) -> Int64[np.ndarray, " cells"]:
        """Atoms of the cell of each seed, where there is one composition.

        >>> from amden.simulate.catalogue import find_protocol
        >>> silica = find_protocol("sio2")
        >>> silica.sizes([1, 2, 3]).tolist(), silica.sizes([3]).tolist()
        ([114, 114, 144], [144])
        """
        possible = np.array(self.possible_sizes, np.int64)
        streams = Streams.of(torch.tensor(seeds, dtype=torch.int64), torch.ones(len(seeds), dtype=torch.int64))
        share = streams.uniform((), draw=_SIZE_DRAW).numpy().astype(np.float64)
        return possible[(share * len(possible)).astype(np.int64)]

    def counts(self, number: int) -> dict[str, int]:
        """Atoms of each element in cell `number` of a campaign, where there are `compositions`.

        >>> from amden.simulate.catalogue import find_protocol
        >>> find_protocol("meg").counts(0)
        {'Si': 70, 'Al': 34, 'K': 70, 'O': 226}
        """
        assert self.compositions is not None
        assert not isinstance(self.n_atoms, tuple)
        if self.compositions == GRID:
            grid = shuffled_grid()
            fractions = with_oxygen(grid[number % len(grid)].cations)
        else:
            fractions = self.compositions[number % len(self.compositions)]
        if self.n_atoms is None:
            return {name: round(n) for name, n in fractions.items()}
        return neutral_counts(fractions, n_atoms=self.n_atoms)

    def species(self, seed: int, number: int) -> UInt8[np.ndarray, " atoms"]:
        """Species numbers of the potential in the cell with this seed, `number` of a campaign, atoms of one element
        together."""
        if self.compositions is None:
            return self.species_of(int(self.sizes([seed])[0]))
        return self._kinds(self.counts(number))

    def species_of(self, n_atoms: int) -> UInt8[np.ndarray, " atoms"]:
        """The same for a cell of `n_atoms`, where there is one composition."""
        return self._kinds({name: round(count) for name, count in self._exact_counts(n_atoms).items()})

    def _kinds(self, counts: Mapping[str, int]) -> UInt8[np.ndarray, " atoms"]:
        numbers = {symbol: k for k, symbol in enumerate(self.interaction.symbols)}
        return np.repeat(np.array([numbers[symbol] for symbol in counts], np.uint8), list(counts.values()))

    @property
    def elements(self) -> UInt8[np.ndarray, " species"]:
        """Atomic number of each species."""
        return np.array([atomic_number(symbol) for symbol in self.interaction.symbols], np.uint8)

    def volume_of(self, species: UInt8[np.ndarray, " atoms"]) -> float:
        """Å³ of the random start of these atoms."""
        if self.density is None:
            return len(species) / IONS_IN_SPACE
        mass = float(MASSES[self.elements[species]].sum())
        return mass * AMU_PER_A3_IN_G_PER_CM3 / self.density

    def temperature_after(self, number: int) -> float:
        """K with which the molecular dynamics that follows stage `number` begins; 0 where none follows."""
        return next(
            (stage.temperature[0] for stage in self.stages[number + 1 :] if isinstance(stage, Stage | SoftStart)), 0.0
        )

    def highest_temperature(self, evaporation_temperature: float) -> float:
        """K that the melt of a cell with this evaporation temperature reaches in the stages that adapt to it."""
        kelvin = [own for stage in self.stages if isinstance(stage, Adapted) for own in stage.temperature]
        return max((own.of(evaporation_temperature) for own in kelvin), default=0.0)

    @property
    def adapts(self) -> bool:
        """Whether stages are not the same for all cells."""
        return any(isinstance(stage, Evaporation | Adapted) for stage in self.stages)

    def plain_stages(self, engine: str) -> tuple[Stage | Quench, ...]:
        """The stages, for an `engine` that knows only those of the simplest kind; `ValueError` if there are others."""
        plain = tuple(stage for stage in self.stages if isinstance(stage, Stage | Quench))
        if len(plain) < len(self.stages):
            raise ValueError(
                f"protocol {self.name!r} adapts to its cells, which {engine} cannot do: only amden's own engine"
            )
        return plain

    @property
    def n_steps(self) -> int:
        """Steps of molecular dynamics in all stages; of a typical cell where it adapts (`stages.typical_segment`)."""
        return sum(typical_segment(stage).n_steps for stage in self.stages if not isinstance(stage, Quench))

    @property
    def duration(self) -> float:
        """ps of all stages, likewise."""
        segments = [typical_segment(stage) for stage in self.stages if not isinstance(stage, Quench)]
        return sum(segment.n_steps * segment.timestep for segment in segments)
