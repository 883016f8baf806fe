"""How alike two structures are, whichever way they are turned, mirrored, moved or numbered.

A few atoms of a structure are looked up in another: the distance is the mean, over those atoms, of the distance to the
most similar environment there. Two samples of a glass are about as far from each other as any other two; a copy, even
one with its atoms displaced at random by 0.1 Å, is much closer.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden.analysis.environments import environments
from amden.analysis.grid import kinds
from amden.structure import Structures

LOOKED_UP: Final = 24
"""Atoms of a structure that are looked up."""

RARE: Final = 0.3
"""A number that varies less than this part of the median variation does not weigh more."""

LEAST: Final = 1e-3
"""A number that varies less does not vary: what is left, in crystals, is of the arithmetic."""

APART: Final = 30.0
"""Distance between the environments of unlike atoms."""


@dataclass(frozen=True)
class Fingerprints:
    """The environments of all atoms of a set as points; those of unlike atoms are `APART`."""

    points: Float[Tensor, "atoms axes"]
    n_atoms: Int[np.ndarray, " systems"]

    def __len__(self) -> int:
        return len(self.n_atoms)

    def select(self, systems: Int[np.ndarray, " chosen"]) -> "Fingerprints":
        """Those of the chosen systems, in the order given."""
        parts = self.points.split(self.n_atoms.tolist())
        return Fingerprints(torch.cat([parts[i] for i in systems]), self.n_atoms[systems])


@dataclass(frozen=True)
class Distances:
    """How far the structures of one set are from those of another."""

    pairs: Float[np.ndarray, "systems known"]
    """Distance of each to each; NaN of a structure to itself."""
    local: Float[np.ndarray, " systems"]
    """Distance of an atom's environment to the closest in all the other structures: median of the atoms looked up."""


def fingerprints(*sets: Structures) -> tuple[Fingerprints, ...]:
    """Fingerprints of sets that are to be compared, on the scale of the first: its standard deviations.

    >>> from amden.testing import random_structures
    >>> known, copy = random_structures([20] * 5), random_structures([20] * 5).select([3])
    >>> known, copy = fingerprints(known, copy)
    >>> distances(copy, known).pairs.argmin()
    np.int64(3)
    """
    elements = sorted({z for structures in sets for z in kinds(structures)})
    numbers = [environments(structures, elements=elements) for structures in sets]
    spread, centre = numbers[0].std(axis=0), numbers[0].mean(axis=0)
    spread = np.maximum(spread, RARE * float(np.median(spread[spread > LEAST])) if (spread > LEAST).any() else LEAST)
    return tuple(
        Fingerprints(_points((found - centre) / spread, structures, elements), structures.n_atoms.cpu().numpy())
        for found, structures in zip(numbers, sets, strict=True)
    )


def _points(
    numbers: Float[np.ndarray, "atoms numbers"], structures: Structures, elements: list[int]
) -> Float[Tensor, "atoms axes"]:
    """The numbers, and with more than one element an axis for each that keeps unlike atoms apart."""
    points = torch.from_numpy(numbers.astype(np.float32))
    if len(elements) == 1:
        return points
    kind = torch.from_numpy(np.searchsorted(elements, structures.species.cpu().numpy()))
    return torch.cat([points, APART / 2.0**0.5 * torch.eye(len(elements))[kind]], 1)


def distances(
    sought: Fingerprints, known: Fingerprints, *, themselves: Int[np.ndarray, " systems"] | None = None, seed: int = 0
) -> Distances:
    """Distances from structures to known ones; `themselves` says which of those they are, where they are."""
    atoms = torch.from_numpy(_some_atoms(sought.n_atoms, seed))
    points = sought.points[atoms.flatten()]
    squares = points.square().sum(1)
    pairs = torch.empty(len(known), len(sought))
    closest = torch.full(atoms.shape, torch.inf)
    for i, there in enumerate(known.points.split(known.n_atoms.tolist())):
        least = torch.addmm(there.square().sum(1)[:, None], there, points.T, alpha=-2.0).amin(0)
        found = (least + squares).clamp(min=0.0).sqrt().reshape(atoms.shape)
        if themselves is not None:
            found[torch.from_numpy(themselves == i)] = torch.inf
        pairs[i] = found.mean(1)
        closest = torch.minimum(closest, found)
    pairs[pairs.isinf()] = torch.nan
    return Distances(pairs.T.double().numpy(), closest.median(1).values.double().numpy())


def _some_atoms(n_atoms: Int[np.ndarray, " systems"], seed: int) -> Int[np.ndarray, "systems looked_up"]:
    """Atoms of each system, drawn without repetition where there are enough."""
    random = np.random.default_rng(seed)
    first = np.cumsum(n_atoms) - n_atoms
    drawn = [np.concatenate([random.permutation(n) for _ in range(ceil(LOOKED_UP / n))])[:LOOKED_UP] for n in n_atoms]
    return np.stack(drawn) + first[:, None]
