"""Neighbours during a relaxation: all images within reach of an atom, in any cell, listed with a skin.

Atoms are at q F and lattice vectors at cell₀ F, where F is the stretch of the cell. A list made at F₀ holds every pair
within the cutoff for as long as

    (1 - |F₀⁻¹ F - 1|) (cutoff + skin) - 2 max |Δq F| ≥ cutoff

A list is in ascending order of partner and image whatever its history, so sums over neighbours do not depend on when
lists were made.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from amden.simulate.potentials.potential import Potential
from amden.simulate.relaxation import terms
from amden.simulate.relaxation import workspace as w

SKIN = 0.5
"""Å; only the speed depends on it."""

MOST_IMAGES = 500
"""Cells between an atom and its neighbour, along each lattice vector."""

_CODE, _ZERO = 1024, 512
"""Three numbers of cells, each plus `_ZERO`, are the digits of one 32-bit integer in this base."""


def _squares(jit: Callable[[Callable], Any], potential: Potential, *, skin: float) -> Any:
    """`square(species, i, j)`: of the cutoff of two atoms with the skin, Å²."""
    squares = np.array([[(cutoff + skin) ** 2 for cutoff in row] for row in potential.cutoffs])
    if squares.size == 1:
        square = float(squares[0, 0])
        return jit(lambda species, i, j: square)
    return jit(lambda species, i, j: squares[species[i], species[j]])


def lister(jit: Callable[[Callable], Any], potential: Potential) -> Any:
    """`build(thread, n_threads, n, work)`: all images within cutoff and skin.

    Returns whether an atom has more than there is room for: the last row is spare.
    """
    integer, reach, square = np.int32, potential.cutoff + SKIN, _squares(jit, potential, skin=SKIN)

    def along(k, inverse):
        height = 1.0 / math.sqrt(inverse[0, k] ** 2 + inverse[1, k] ** 2 + inverse[2, k] ** 2)
        return int(min(reach / height + 0.5, MOST_IMAGES))

    along = jit(along)

    def vector(i, j, place, a, b, c, cell):
        x = place[0, j] - place[0, i] + a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
        y = place[1, j] - place[1, i] + a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
        z = place[2, j] - place[2, i] + a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
        return x, y, z

    vector = jit(vector)

    def nearest(i, j, k, place, inverse):
        dx, dy, dz = place[0, j] - place[0, i], place[1, j] - place[1, i], place[2, j] - place[2, i]
        return -integer(math.floor(dx * inverse[0, k] + dy * inverse[1, k] + dz * inverse[2, k] + 0.5))

    nearest = jit(nearest)

    def build(thread, n_threads, n, work):
        place, cell, inverse = work.place, work.frames[w.CELL], work.frames[w.INVERSE]
        room, full = work.listed.shape[1] - 1, False
        na, nb, nc = along(0, inverse), along(1, inverse), along(2, inverse)
        for i in range(thread, n, n_threads):
            count = 0
            for j in range(n):
                a0, b0 = nearest(i, j, 0, place, inverse), nearest(i, j, 1, place, inverse)
                c0, reach2 = nearest(i, j, 2, place, inverse), square(work.species, i, j)
                for a in range(a0 - na, a0 + na + 1):
                    for b in range(b0 - nb, b0 + nb + 1):
                        for c in range(c0 - nc, c0 + nc + 1):
                            x, y, z = vector(i, j, place, a, b, c, cell)
                            if x * x + y * y + z * z < reach2 and not (i == j and a == b == c == 0):
                                row = count if count < room else room
                                work.listed[0, row, i] = j
                                work.listed[1, row, i] = integer(((a + _ZERO) * _CODE + b + _ZERO) * _CODE + c + _ZERO)
                                count += 1
            full = full or count > room
            work.counts[0, i] = integer(count if count < room else room)
        return full

    return jit(build)


def selector(jit: Callable[[Callable], Any], potential: Potential) -> Any:
    """`select(i, work)`: those of the list within the cutoff."""
    integer, square, note = np.int32, _squares(jit, potential, skin=0.0), terms.noter(jit, potential)

    def select(i, work):
        place, cell = work.place, work.frames[w.CELL]
        xi, yi, zi = place[0, i], place[1, i], place[2, i]
        count = 0
        for k in range(work.counts[0, i]):
            j, code = work.listed[0, k, i], work.listed[1, k, i]
            a, b, c = code // (_CODE * _CODE) - _ZERO, code // _CODE % _CODE - _ZERO, code % _CODE - _ZERO
            x = place[0, j] - xi + a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
            y = place[1, j] - yi + a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
            z = place[2, j] - zi + a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
            if x * x + y * y + z * z < square(work.species, i, j):
                work.near[count, i] = j
                work.vector[0, count, i], work.vector[1, count, i], work.vector[2, count, i] = x, y, z
                note(i, j, a, b, c, count, work)
                count += 1
        work.counts[1, i] = integer(count)

    return jit(select)
