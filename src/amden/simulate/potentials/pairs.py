"""Neighbour lists in float64 for compiled code: all images within a cutoff, in any periodic cell, by linked cells.

The tensors of `amden.neighbors` serve the networks; this list is built and used inside one compiled call, without
Python between them.
"""

import math

import numpy as np

from amden.simulate.compiler import compiled

_NEIGHBORS_GUESS = 24
"""Room for this many pairs an atom at first; doubled when it is used up."""


@compiled()
def _bins(positions, cell, cutoff):
    """Atoms sorted by bin: shape of the grid, bins to look around, wrapped positions, order, first atom of a bin."""
    n = positions.shape[0]
    inverse = np.linalg.inv(cell)
    shape = np.empty(3, np.int64)
    around = np.empty(3, np.int64)
    for d in range(3):
        height = 1.0 / math.sqrt(inverse[0, d] ** 2 + inverse[1, d] ** 2 + inverse[2, d] ** 2)
        most = max(1, round(n ** (1.0 / 3.0)) + 1)
        shape[d] = min(max(1, int(height / cutoff)), most)
        around[d] = math.ceil(cutoff * shape[d] / height)
    wrapped = np.empty((n, 3))
    bin_of = np.empty((n, 3), np.int64)
    counts = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int64)
    for i in range(n):
        for d in range(3):
            s = positions[i, 0] * inverse[0, d] + positions[i, 1] * inverse[1, d] + positions[i, 2] * inverse[2, d]
            s -= math.floor(s)
            bin_of[i, d] = min(int(s * shape[d]), shape[d] - 1)
            wrapped[i, d] = s
        counts[(bin_of[i, 0] * shape[1] + bin_of[i, 1]) * shape[2] + bin_of[i, 2] + 1] += 1
    first = np.cumsum(counts)
    filled = first.copy()
    order = np.empty(n, np.int64)
    for i in range(n):
        b = (bin_of[i, 0] * shape[1] + bin_of[i, 1]) * shape[2] + bin_of[i, 2]
        order[filled[b]] = i
        filled[b] += 1
    return shape, around, wrapped @ cell, bin_of, order, first


@compiled()
def neighbor_list(positions, cell, cutoff):
    """Pairs closer than `cutoff`, sorted by atom: first pair of each atom, partners, vectors to the partners."""
    n = positions.shape[0]
    shape, around, wrapped, bin_of, order, first = _bins(positions, cell, cutoff)
    start = np.zeros(n + 1, np.int64)
    partner = np.empty(max(n * _NEIGHBORS_GUESS, 64), np.int64)
    vector = np.empty((len(partner), 3))
    n_pairs = 0
    for i in range(n):
        for ox in range(bin_of[i, 0] - around[0], bin_of[i, 0] + around[0] + 1):
            for oy in range(bin_of[i, 1] - around[1], bin_of[i, 1] + around[1] + 1):
                for oz in range(bin_of[i, 2] - around[2], bin_of[i, 2] + around[2] + 1):
                    ix, iy, iz = ox // shape[0], oy // shape[1], oz // shape[2]
                    dx = ix * cell[0, 0] + iy * cell[1, 0] + iz * cell[2, 0] - wrapped[i, 0]
                    dy = ix * cell[0, 1] + iy * cell[1, 1] + iz * cell[2, 1] - wrapped[i, 1]
                    dz = ix * cell[0, 2] + iy * cell[1, 2] + iz * cell[2, 2] - wrapped[i, 2]
                    b = ((ox - ix * shape[0]) * shape[1] + oy - iy * shape[1]) * shape[2] + oz - iz * shape[2]
                    home = ix == 0 and iy == 0 and iz == 0
                    for m in range(first[b], first[b + 1]):
                        j = order[m]
                        x, y, z = wrapped[j, 0] + dx, wrapped[j, 1] + dy, wrapped[j, 2] + dz
                        if x * x + y * y + z * z < cutoff * cutoff and not (home and i == j):
                            if n_pairs == len(partner):
                                partner = np.concatenate((partner, np.empty_like(partner)))
                                vector = np.concatenate((vector, np.empty_like(vector)))
                            partner[n_pairs] = j
                            vector[n_pairs, 0], vector[n_pairs, 1], vector[n_pairs, 2] = x, y, z
                            n_pairs += 1
        start[i + 1] = n_pairs
    return start, partner[:n_pairs], vector[:n_pairs]
