"""A figure of several glasses side by side, as data: which sets are compared, where they lie and what makes them.

A row is a reference and the sets that were generated like it; a panel is a quantity. By default all sets are relaxed
with their cells first, so that inherent structures are compared, free of thermal motion (fig. 3a-d of the paper).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Float

from amden.analysis.compare import Difference, compare
from amden.analysis.observables import Observables, Settings, bond_lengths, observe
from amden.analysis.relaxation import potential_energies
from amden.dataset import load_dataset
from amden.elements import symbol
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.potentials import POTENTIALS, Potential
from amden.simulate.relaxation import relax_structures
from amden.structure import Structures

ENERGY: Final = "energy"
"""The panel of potential energies, of relaxed structures where the sets are relaxed."""

_FEWEST: Final = 4
"""Structures that a set must have."""

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class SetFile:
    """A set of structures: a file or dataset folder."""

    __pydantic_config__ = {"extra": "forbid"}

    path: str
    make: str = ""
    """The `amden` command that makes it, such as "generate si-melt --n 200 --out melt.extxyz"; run where `path` is
    not there."""


@dataclass(frozen=True)
class Row:
    """A reference, and the sets beside it by label."""

    __pydantic_config__ = {"extra": "forbid"}

    reference: SetFile
    generated: Mapping[str, SetFile]


@dataclass(frozen=True)
class Panels:
    """A figure: rows by name."""

    __pydantic_config__ = {"extra": "forbid"}

    rows: Mapping[str, Row]
    quantities: tuple[str, ...] = ("g(r)", "bond angles", "S(q)", ENERGY)
    """Curves and numbers of `analyze`, a column each."""
    relaxed: bool = True
    """Relax atoms and cell of every structure first, to 0.005 eV/Å; those that do not converge are left out."""
    at_most: int = 500
    """Structures of a set that are looked at, the first ones."""
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("`rows` is empty: nothing to draw")
        if self.at_most < _FEWEST:
            raise ValueError(f"`at_most` must be at least {_FEWEST}, got {self.at_most}")

    @property
    def files(self) -> list[SetFile]:
        """All sets in the order in which they are made, references first."""
        rows = self.rows.values()
        return [*(row.reference for row in rows), *(file for row in rows for file in row.generated.values())]


@dataclass(frozen=True)
class Measured:
    """A row with its numbers."""

    reference: Observables
    generated: Mapping[str, Observables]
    differences: Mapping[str, tuple[Difference, ...]]
    """Of each generated set from the reference."""
    left_out: int
    """Structures of all sets whose relaxation did not converge."""


@dataclass(frozen=True)
class _Set:
    """Structures with their energies."""

    structures: Structures
    energy: Float[np.ndarray, " systems"]
    """eV."""


def measure(
    recipe: Panels, *, device: Device = "auto", progress: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[str, Measured]]:
    """The rows of a figure by name, one after the other; `progress` is told the structures relaxed so far of all.

    Errors: `FileNotFoundError`; `ValueError` for sets that cannot be compared, or whose elements no built-in potential
    was made for.
    """
    done = 0
    for name, row in recipe.rows.items():
        reference = _loaded(row.reference, recipe)
        generated = {label: _loaded(file, recipe) for label, file in row.generated.items()}
        potential = potential_of(reference, *generated.values())
        if potential is None:
            raise ValueError(f"row {name!r}: no built-in potential was made for just these elements")
        sets = []
        for structures in (reference, *generated.values()):
            before = done
            if recipe.relaxed:
                sets.append(_relaxed(structures, potential, device, lambda n, before=before: progress(before + n)))
            else:
                calculator = partial(PotentialCalculator, potential)
                sets.append(_Set(structures, potential_energies(structures, calculator=calculator)))
            done += len(structures)
        left_out = len(reference) + sum(map(len, generated.values())) - sum(len(s.energy) for s in sets)
        yield name, _compared(sets[0], dict(zip(generated, sets[1:], strict=True)), recipe.settings, left_out)


def potential_of(*sets: Structures | None) -> Potential | None:
    """The built-in potential that is made for just the elements of the structures."""
    elements = {symbol(number) for s in sets if s is not None for number in s.species.unique().tolist() if number}
    return next((potential for potential in POTENTIALS.values() if set(potential.symbols) == elements), None)


def _loaded(file: SetFile, recipe: Panels) -> Structures:
    everything = load_dataset(file.path, dtype=torch.float64, min_distance=0.0)  # samples may overlap: they count too
    structures = everything.without_ghosts()
    if len(structures) < _FEWEST:
        raise ValueError(f"{file.path}: {len(structures)} structures are too few to compare")
    return structures.select(range(min(recipe.at_most, len(structures))))


def _relaxed(structures: Structures, potential: Potential, device: Device, progress: Callable[[int], None]) -> _Set:
    """The structures that converged."""
    found = relax_structures(structures, potential, device=device, progress=progress)
    kept = np.flatnonzero(found.converged)
    if len(kept) < _FEWEST:
        raise ValueError(f"only {len(kept)} of {len(structures)} structures could be relaxed")
    return _Set(found.structures.select(kept.tolist()), found.energy[kept])


def _compared(reference: _Set, generated: Mapping[str, _Set], settings: Settings, left_out: int) -> Measured:
    if settings.bond_cutoff is None:
        settings = replace(
            settings, bond_cutoff=bond_lengths(*(s.structures for s in (reference, *generated.values())))
        )
    known = observe(reference.structures, settings=settings, energy=lambda _: reference.energy)
    found = {
        label: observe(s.structures, settings=settings, usual=known.usual, energy=lambda _, s=s: s.energy)
        for label, s in generated.items()
    }
    differences = {label: compare(o, known, settings=settings) for label, o in found.items()}
    return Measured(known, found, differences, left_out)
