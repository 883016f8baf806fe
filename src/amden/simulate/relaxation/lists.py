"""Neighbours during a relaxation: all images within reach of an atom, in any cell, listed with a skin.

Atoms are at q F and lattice vectors at cell₀ F, where F is the stretch of the cell. A list made at F₀ holds every pair
within the cutoff for as long as

    (1 - |F₀⁻¹ F - 1|) (cutoff + skin) - 2 max |Δq F| ≥ cutoff

A list is in ascending order of partner and image whatever its history, so sums over neighbours do not depend on when
lists were made, but for those of `charges` on the CPU. Of a `LongRanged` potential it ends with those that have
short terms (`terms`), which are few: only their vectors are stored, and the charges are summed over the list itself
(`charges`).

An image at the fractions f from an atom is at least |f_k| h_k away, where h_k is the height of the cell along its k-th
lattice vector: so few images of a pair are looked at in any but the smallest cells.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.potentials.potential import Potential
from amden.simulate.relaxation import terms
from amden.simulate.relaxation import workspace as w

SKIN = 0.5
"""Å; only the speed depends on it."""

MOST_IMAGES = 500
"""Cells between an atom and its neighbour, along each lattice vector."""

_SLACK = 1e-12
"""For the rounding of fractions."""
_CODE, _ZERO = 1024, 512
"""Three numbers of cells, each plus `_ZERO`, are the digits of one 32-bit integer in this base."""


def _squares(jit: Callable[[Callable], Any], potential: Potential, *, skin: float) -> Any:
    """`square(species, i, j)`: of the cutoff of two atoms with the skin, Å²."""
    squares = (np.array(potential.cutoffs) + skin) ** 2
    if np.ptp(squares) == 0.0:
        square = float(squares[0, 0])
        return jit(lambda species, i, j: square)
    return jit(lambda species, i, j: squares[species[i], species[j]])


def decoder(jit: Callable[[Callable], Any]) -> Any:
    """`decoded(code)`: the numbers of cells between an atom and an image."""
    return jit(lambda code: (code // (_CODE * _CODE) - _ZERO, code // _CODE % _CODE - _ZERO, code % _CODE - _ZERO))


def imager(jit: Callable[[Callable], Any]) -> Any:
    """`image(place, cell, i, j, a, b, c)`: the vector from atom i to the image of atom j so many cells away."""

    def image(place, cell, i, j, a, b, c):
        x = place[0, j] - place[0, i] + a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
        y = place[1, j] - place[1, i] + a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
        z = place[2, j] - place[2, i] + a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
        return x, y, z

    return jit(image)


def lister(jit: Callable[[Callable], Any], potential: Potential) -> Any:
    """`build(thread, n_threads, n, work)`: all images within cutoff and skin.

    Returns whether an atom has more than there is room for: the last row is spare.
    """
    integer, reach, square = np.int32, potential.cutoff + SKIN, _squares(jit, potential, skin=SKIN)
    short, decoded, ordered = terms.shortener(jit, potential), decoder(jit), isinstance(potential, LongRanged)

    def along(k, inverse):
        height = 1.0 / math.sqrt(inverse[0, k] ** 2 + inverse[1, k] ** 2 + inverse[2, k] ** 2)
        return min(reach / height, float(MOST_IMAGES)) * (1.0 + _SLACK)

    along = jit(along)

    def span(fraction, width):
        """First and last of the images along a lattice vector: the nearest where its neighbours are too far."""
        nearest = -math.floor(fraction + 0.5)
        if 1.0 - abs(fraction + nearest) > width:
            return integer(nearest), integer(nearest)
        return integer(math.ceil(-width - fraction)), integer(math.floor(width - fraction))

    span = jit(span)

    def put_short_last(i, count, work):
        """Those with short terms after the others, both in their order; how many they are, at most one more than there
        is room for."""
        listed, near, vector, most = work.listed, work.near, work.vector, len(work.near)
        chosen, cell, species, n_short, kept = work.chosen, work.chosen_cell, work.species, 0, 0
        for k in range(count):
            j, code = listed[0, k, i], listed[1, k, i]
            a, b, c = decoded(code)
            if not short(i, j, a, b, c, chosen, cell, species):
                listed[0, kept, i], listed[1, kept, i] = j, code
                kept += 1
            elif n_short < most:
                near[n_short, i], vector[0, n_short, i] = j, float(code)
                n_short += 1
            else:
                return most + 1
        for k in range(n_short):
            listed[0, kept + k, i], listed[1, kept + k, i] = near[k, i], integer(vector[0, k, i])
        return n_short

    put_short_last = jit(put_short_last)

    def build(thread, n_threads, n, work):
        place, cell, inverse, species = work.place, work.frames[w.CELL], work.frames[w.INVERSE], work.species
        listed, room, full = work.listed, work.listed.shape[1] - 1, False
        wide_a, wide_b, wide_c = along(0, inverse), along(1, inverse), along(2, inverse)
        for i in range(thread, n, n_threads):
            count, xi, yi, zi = 0, place[0, i], place[1, i], place[2, i]
            for j in range(n):
                dx, dy, dz, reach2 = place[0, j] - xi, place[1, j] - yi, place[2, j] - zi, square(species, i, j)
                fa = dx * inverse[0, 0] + dy * inverse[1, 0] + dz * inverse[2, 0]
                fb = dx * inverse[0, 1] + dy * inverse[1, 1] + dz * inverse[2, 1]
                fc = dx * inverse[0, 2] + dy * inverse[1, 2] + dz * inverse[2, 2]
                first_a, last_a = span(fa, wide_a)
                first_b, last_b = span(fb, wide_b)
                first_c, last_c = span(fc, wide_c)
                for a in range(first_a, last_a + 1):
                    for b in range(first_b, last_b + 1):
                        for c in range(first_c, last_c + 1):
                            x = dx + a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
                            y = dy + a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
                            z = dz + a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
                            if x * x + y * y + z * z < reach2 and not (i == j and a == b == c == 0):
                                row = count if count < room else room
                                listed[0, row, i] = j
                                listed[1, row, i] = ((a + _ZERO) * _CODE + b + _ZERO) * _CODE + c + _ZERO
                                count += 1
            full = full or count > room
            work.counts[0, i] = min(count, room)
            if ordered:
                n_short = put_short_last(i, min(count, room), work)
                full = full or n_short > len(work.near)
                work.counts[2, i] = min(n_short, len(work.near))
        return full

    return jit(build)


def selector(jit: Callable[[Callable], Any], potential: Potential) -> Any:
    """`select(i, work)`: those of the list within the cutoff, or with short terms."""
    integer, square, note = np.int32, _squares(jit, potential, skin=0.0), terms.noter(jit, potential)
    image, decoded, ordered = imager(jit), decoder(jit), isinstance(potential, LongRanged)

    def select(i, work):
        place, cell = work.place, work.frames[w.CELL]
        count, end = 0, work.counts[0, i]
        for k in range(end - work.counts[2, i] if ordered else 0, end):
            j = work.listed[0, k, i]
            a, b, c = decoded(work.listed[1, k, i])
            x, y, z = image(place, cell, i, j, a, b, c)
            if ordered or x * x + y * y + z * z < square(work.species, i, j):
                work.near[count, i] = j
                work.vector[0, count, i], work.vector[1, count, i], work.vector[2, count, i] = x, y, z
                note(i, j, a, b, c, count, work)
                count += 1
        work.counts[1, i] = integer(count)

    return jit(select)
