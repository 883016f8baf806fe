"""How alike two structures are, whichever way they are turned, mirrored, moved or numbered.

A few atoms of a structure are looked up in another: the distance is the mean, over those atoms, of the distance to the
most similar environment there. Two samples of a glass are about as far from each other as any other two; a copy, even
one with its atoms displaced at random by 0.1 Å, is much closer.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Final, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from amden.analysis.environments import environments
from amden.analysis.grid import kinds
from amden.compiler import kept
from amden.structure import Structures

LOOKED_UP: Final = 24
"""Atoms of a structure that are looked up."""

BLOCK: Final = 16
"""Atoms looked up at a time: small products stay in the cache, and BLAS starts no threads of its own for them."""

RARE: Final = 0.3
"""A number that varies less than this part of the median variation does not weigh more."""

LEAST: Final = 1e-3
"""A number that varies less does not vary: what is left, in crystals, is of the arithmetic."""

APART: Final = 30.0
"""Distance between the environments of unlike atoms."""


@dataclass(frozen=True)
class Fingerprints:
    """The environments of all atoms of a set as points; those of unlike atoms are `APART`."""

    points: Float32[np.ndarray, "atoms axes"]
    n_atoms: Int[np.ndarray, " systems"]

    def __len__(self) -> int:
        return len(self.n_atoms)

    def select(self, systems: Int[np.ndarray, " chosen"]) -> "Fingerprints":
        """Those of the chosen systems, in the order given."""
        parts = self.parts()
        return Fingerprints(np.concatenate([parts[i] for i in systems]), self.n_atoms[systems])

    def parts(self) -> list[Float32[np.ndarray, "_ axes"]]:
        """The points of each system."""
        return np.split(self.points, np.cumsum(self.n_atoms)[:-1])


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
) -> Float32[np.ndarray, "atoms axes"]:
    """The numbers, and with more than one element an axis for each that keeps unlike atoms apart."""
    kind = np.searchsorted(elements, structures.species.cpu().numpy())
    apart = APART / np.sqrt(2.0) * np.eye(len(elements))[kind] if len(elements) > 1 else numbers[:, :0]
    return np.concatenate([numbers, apart], axis=1, dtype=np.float32)


@kept()
@no_type_check
def _nearest(twice, known, squares, least):
    """Least of squares[k] - twice[i] · known[:, k] over k, for each i."""
    n = len(squares)
    for first in range(0, len(twice), BLOCK):
        products = np.dot(twice[first : first + BLOCK], known)
        for i in range(len(products)):
            values = products[i]
            for k in range(n):
                values[k] = squares[k] - values[k]
            left = n
            while left > 1:  # halves against each other, which the compiler turns into wide instructions
                half = (left + 1) // 2
                for k in range(left - half):
                    values[k] = values[half + k] if values[half + k] < values[k] else values[k]
                left = half
            least[first + i] = values[0]


def distances(
    sought: Fingerprints, known: Fingerprints, *, themselves: Int[np.ndarray, " systems"] | None = None, seed: int = 0
) -> Distances:
    """Distances from structures to known ones; `themselves` says which of those they are, where they are."""
    points = sought.points[_some_atoms(sought.n_atoms, seed).ravel()]
    twice, squares = 2.0 * points, np.square(points).sum(axis=1)

    def look_up(there: np.ndarray) -> np.ndarray:
        least = np.empty(len(points), np.float32)
        _nearest(twice, np.ascontiguousarray(there.T), np.square(there).sum(axis=1), least)
        return np.sqrt(np.maximum(least + squares, 0.0)).reshape(-1, LOOKED_UP)

    pairs, local = np.empty((len(sought), len(known))), np.full((len(sought), LOOKED_UP), np.inf, np.float32)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for i, found in enumerate(pool.map(look_up, known.parts())):
            if themselves is not None:
                found[themselves == i] = np.inf
            pairs[:, i] = found.mean(axis=1)
            np.minimum(local, found, out=local)
    return Distances(np.where(np.isinf(pairs), np.nan, pairs), np.median(local, axis=1).astype(np.float64))


def _some_atoms(n_atoms: Int[np.ndarray, " systems"], seed: int) -> Int[np.ndarray, "systems looked_up"]:
    """Atoms of each system, drawn without repetition where there are enough."""
    random = np.random.default_rng(seed)
    first = np.cumsum(n_atoms) - n_atoms
    drawn = [np.concatenate([random.permutation(n) for _ in range(ceil(LOOKED_UP / n))])[:LOOKED_UP] for n in n_atoms]
    return np.stack(drawn) + first[:, None]
