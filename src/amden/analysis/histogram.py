"""Counts of distances, bonds and angles of a batch: the compiled loops under every observable of `analysis`.

One walk over the `grid` serves all and meets every periodic image within the range, in any cell, however skewed or
small. Nothing is kept but the counts: no lists of pairs. What the counts mean is the business of `rdf` and `bonds`.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import acos, pi, sqrt
from typing import TypeVar, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int

from amden.analysis.grid import Grid, grids, kinds
from amden.compiler import kept
from amden.structure import Structures

T = TypeVar("T")

STRETCH = 8192
"""Atoms counted at a time: a larger system is cut, so that it keeps all cores busy."""


@kept()
@no_type_check
def neighbours(i, place, points, cell, n_bins, stencil, start, reach2, found, other):
    """Number of images within the reach of sorted atom `i`; their vectors go to `found`, their atoms to `other`.

    No more is written than `found` has room for, but all are counted.
    """
    count = 0
    bx, rest = divmod(place, n_bins[1] * n_bins[2])
    by, bz = divmod(rest, n_bins[2])
    for ax in range(bx - stencil[0], bx + stencil[0] + 1):
        wx, mx = divmod(ax, n_bins[0])
        for ay in range(by - stencil[1], by + stencil[1] + 1):
            wy, my = divmod(ay, n_bins[1])
            row = (mx * n_bins[1] + my) * n_bins[2]
            low, high = bz - stencil[2], bz + stencil[2]
            for wz in range(low // n_bins[2], high // n_bins[2] + 1):
                first = start[row + max(low - wz * n_bins[2], 0)]
                last = start[row + min(high - wz * n_bins[2], n_bins[2] - 1) + 1]
                sx = wx * cell[0, 0] + wy * cell[1, 0] + wz * cell[2, 0] - points[i, 0]
                sy = wx * cell[0, 1] + wy * cell[1, 1] + wz * cell[2, 1] - points[i, 1]
                sz = wx * cell[0, 2] + wy * cell[1, 2] + wz * cell[2, 2] - points[i, 2]
                home = wx == 0 and wy == 0 and wz == 0
                for j in range(first, last):
                    dx, dy, dz = points[j, 0] + sx, points[j, 1] + sy, points[j, 2] + sz
                    if dx * dx + dy * dy + dz * dz < reach2 and not (home and j == i):
                        if count < len(other):
                            found[count, 0], found[count, 1], found[count, 2], other[count] = dx, dy, dz, j
                        count += 1
    return count


@kept()
@no_type_check
def _count_distances(begin, end, points, places, kinds, cell, n_bins, stencil, start, reach, counts):
    """Add the distances below `reach` from the sorted atoms `begin` to `end` to `counts[kind, kind, bin]`."""
    found, other = np.empty((256, 3)), np.empty(256, np.int64)
    scale = counts.shape[2] / reach
    for i in range(begin, end):
        n = neighbours(i, places[i], points, cell, n_bins, stencil, start, reach * reach, found, other)
        if n > len(other):
            found, other = np.empty((2 * n, 3)), np.empty(2 * n, np.int64)
            n = neighbours(i, places[i], points, cell, n_bins, stencil, start, reach * reach, found, other)
        for k in range(n):
            distance = sqrt(found[k, 0] * found[k, 0] + found[k, 1] * found[k, 1] + found[k, 2] * found[k, 2])
            counts[kinds[i], kinds[other[k]], min(int(distance * scale), counts.shape[2] - 1)] += 1


@kept()
@no_type_check
def _count_bonds(begin, end, points, places, kinds, cell, n_bins, stencil, start, reach, cutoffs, bonds, counts):
    """Bonds of the sorted atoms `begin` to `end` to `bonds[atom, kind]`, angles to `counts[kind, ends, bin]`."""
    found, other, length = np.empty((64, 3)), np.empty(64, np.int64), np.empty(64)
    for i in range(begin, end):
        bonded = 0
        n = neighbours(i, places[i], points, cell, n_bins, stencil, start, reach * reach, found, other)
        if n > len(other):
            found, other, length = np.empty((2 * n, 3)), np.empty(2 * n, np.int64), np.empty(2 * n)
            n = neighbours(i, places[i], points, cell, n_bins, stencil, start, reach * reach, found, other)
        for k in range(n):
            x, y, z = found[k, 0], found[k, 1], found[k, 2]
            distance = sqrt(x * x + y * y + z * z)
            kind = kinds[other[k]]
            if distance < cutoffs[kinds[i], kind]:
                found[bonded, 0], found[bonded, 1], found[bonded, 2] = x, y, z
                length[bonded], other[bonded] = distance, kind
                bonds[i, kind] += 1
                bonded += 1
        for k in range(bonded):
            for m in range(k):
                dot = found[k, 0] * found[m, 0] + found[k, 1] * found[m, 1] + found[k, 2] * found[m, 2]
                angle = acos(max(-1.0, min(1.0, dot / (length[k] * length[m] + 1e-300))))
                low, high = min(other[k], other[m]), max(other[k], other[m])
                ends = low * len(cutoffs) - low * (low + 1) // 2 + high
                counts[kinds[i], ends, min(int(angle / pi * counts.shape[2]), counts.shape[2] - 1)] += 1


def distance_counts(
    structures: Structures, *, r_max: float, n_bins: int
) -> Int[np.ndarray, "systems kinds kinds n_bins"]:
    """Ordered pairs of atoms by distance, `n_bins` of equal width from 0 to `r_max` in Å, images included.

    `counts[s, a, b, k]` counts pairs of an atom of kind a and a neighbour of kind b, so that an unordered pair is
    counted twice.
    """
    _require_positive("r_max", r_max)
    n_kinds = len(kinds(structures))
    counts = np.zeros((len(structures), n_kinds, n_kinds, n_bins), np.int64)

    def run(grid: Grid, begin: int, end: int) -> tuple[Grid, np.ndarray]:
        part = np.zeros(counts.shape[1:], np.int64)
        _count_distances(begin, end, *grid.arrays(), r_max, part)
        return grid, part

    for grid, part in on_all_cores(run, grids(structures, r_max)):
        counts[grid.system] += part
    return counts


def bond_counts(
    structures: Structures, *, cutoffs: Float[np.ndarray, "kinds kinds"], n_bins: int
) -> tuple[Int[np.ndarray, "atoms kinds"], Int[np.ndarray, "systems kinds ends n_bins"]]:
    """Number of bonds of each atom to each kind, and angles between them by kind of the centre and of the ends.

    Atoms of kinds a and b are bonded below `cutoffs[a, b]` in Å, never where that is 0. Ends are unordered pairs of
    kinds in the order of `itertools.combinations_with_replacement`. The `n_bins` of equal width go from 0° to 180°.
    """
    reach = float(cutoffs.max())
    _require_positive("cutoff", reach)
    n = len(cutoffs)
    bonds = np.zeros((len(structures.positions), n), np.int64)
    counts = np.zeros((len(structures), n, n * (n + 1) // 2, n_bins), np.int64)

    def run(grid: Grid, begin: int, end: int) -> tuple[Grid, np.ndarray, np.ndarray]:
        of_atoms, part = np.zeros((len(grid.atoms), n), np.int64), np.zeros(counts.shape[1:], np.int64)
        _count_bonds(begin, end, *grid.arrays(), reach, cutoffs, of_atoms, part)
        return grid, of_atoms, part

    for grid, of_atoms, part in on_all_cores(run, grids(structures, reach)):
        bonds[grid.atoms] += of_atoms
        counts[grid.system] += part
    return bonds, counts


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"`{name}` must be positive, got {value}")


def on_all_cores(run: Callable[[Grid, int, int], T], grids: Iterable[Grid]) -> Iterator[T]:
    """Results of `run` over stretches of the atoms of all systems, on as many threads as torch may use."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        stretches = ((g, i, min(i + STRETCH, len(g.atoms))) for g in grids for i in range(0, len(g.atoms), STRETCH))
        yield from pool.map(lambda stretch: run(*stretch), stretches)
