"""Neighbour lists in float64 for compiled code: all images within a cutoff, in any periodic cell, by linked cells.

The tensors of `amden.neighbors` serve the networks; this list is built and used inside one compiled call, without
Python between them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from amden.compiler import kept

_NEIGHBORS_GUESS = 24
"""Room for this many pairs an atom at first; doubled when it is used up."""


@dataclass(frozen=True)
class Grid:
    """Atoms of one cell in bins no narrower than the cutoff, unless the cell is."""

    positions: Float64[np.ndarray, "atoms 3"]
    """Å, wrapped into the cell."""
    bins: Int64[np.ndarray, "atoms 3"]
    """Bin of each atom."""
    shape: Int64[np.ndarray, " 3"]
    """Number of bins along each lattice vector."""
    around: Int64[np.ndarray, " 3"]
    """Bins to look at on either side; they may be images of the bin itself."""

    @staticmethod
    def of(positions: Float64[np.ndarray, "atoms 3"], cell: Float64[np.ndarray, "3 3"], *, cutoff: float) -> "Grid":
        """The grid of a system."""
        inverse = np.linalg.inv(cell)
        heights = 1.0 / np.linalg.norm(inverse, axis=0)
        most = round(len(positions) ** (1.0 / 3.0)) + 1
        shape = np.clip((heights / cutoff).astype(np.int64), 1, most)
        fractions = positions @ inverse
        fractions -= np.floor(fractions)
        bins = np.minimum((fractions * shape).astype(np.int64), shape - 1)
        return Grid(fractions @ cell, bins, shape, np.ceil(cutoff * shape / heights).astype(np.int64))

    @property
    def arrays(self) -> tuple[Any, ...]:
        """For `neighbor_list`."""
        return self.positions, self.bins, self.shape, self.around


@kept()
def _sorted_by_bin(bins, shape):
    """Atoms in the order of their bins, and the first place of each bin."""
    first = np.zeros(shape[0] * shape[1] * shape[2] + 2, np.int64)
    for i in range(len(bins)):
        first[(bins[i, 0] * shape[1] + bins[i, 1]) * shape[2] + bins[i, 2] + 2] += 1
    for b in range(2, len(first)):
        first[b] += first[b - 1]
    order = np.empty(len(bins), np.int64)
    for i in range(len(bins)):
        b = (bins[i, 0] * shape[1] + bins[i, 1]) * shape[2] + bins[i, 2] + 1
        order[first[b]] = i
        first[b] += 1
    return order, first


@kept()
def _doubled(array):
    result = np.empty((2 * array.shape[0], array.shape[1]), array.dtype)
    for row in range(array.shape[0]):  # not as a slice: that takes Numba three seconds to compile
        for column in range(array.shape[1]):
            result[row, column] = array[row, column]
    return result


@kept(error_model="numpy")
def _pairs_of(i, positions, bins, shape, around, cell, cutoff, order, first, partner, vector, n_pairs):
    """Appends the pairs of atom i; returns how many there are now, or -1 where there is no room."""
    for ox in range(bins[i, 0] - around[0], bins[i, 0] + around[0] + 1):
        ix = ox // shape[0]
        bx = (ox - ix * shape[0]) * shape[1]
        for oy in range(bins[i, 1] - around[1], bins[i, 1] + around[1] + 1):
            iy = oy // shape[1]
            by = (bx + oy - iy * shape[1]) * shape[2]
            for oz in range(bins[i, 2] - around[2], bins[i, 2] + around[2] + 1):
                iz = oz // shape[2]
                b = by + oz - iz * shape[2]
                dx = ix * cell[0, 0] + iy * cell[1, 0] + iz * cell[2, 0] - positions[i, 0]
                dy = ix * cell[0, 1] + iy * cell[1, 1] + iz * cell[2, 1] - positions[i, 1]
                dz = ix * cell[0, 2] + iy * cell[1, 2] + iz * cell[2, 2] - positions[i, 2]
                home = ix == 0 and iy == 0 and iz == 0
                for m in range(first[b], first[b + 1]):
                    j = order[m]
                    x, y, z = positions[j, 0] + dx, positions[j, 1] + dy, positions[j, 2] + dz
                    if x * x + y * y + z * z < cutoff * cutoff and not (home and i == j):
                        if n_pairs == len(partner):
                            return -1
                        partner[n_pairs, 0] = j
                        vector[n_pairs, 0], vector[n_pairs, 1], vector[n_pairs, 2] = x, y, z
                        n_pairs += 1
    return n_pairs


@kept(error_model="numpy")
def neighbor_list(positions, bins, shape, around, cell, cutoff):
    """Pairs closer than `cutoff`, sorted by atom: first pair of each atom, partners, vectors to the partners."""
    n = len(positions)
    order, first = _sorted_by_bin(bins, shape)
    start = np.zeros(n + 1, np.int64)
    partner = np.empty((max(n * _NEIGHBORS_GUESS, 64), 1), np.int64)
    vector = np.empty((len(partner), 3))
    i = np.int64(0)
    while i < n:
        end = _pairs_of(i, positions, bins, shape, around, cell, cutoff, order, first, partner, vector, start[i])
        if end < 0:
            partner, vector = _doubled(partner), _doubled(vector)
        else:
            i += 1
            start[i] = end
    return start, partner[: start[n], 0], vector[: start[n]]
