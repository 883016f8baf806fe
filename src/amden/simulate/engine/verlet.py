"""Neighbours in the engine: fractional positions in 32 bits, a Verlet list with a skin, the neighbours in reach.

A position is an integer fraction of the cell, s = integer / 2³². Differences of integers wrap around, so the minimum
image in any cell is free, adding displacements loses no precision, and a change of the cell moves no integer.

Lists are in ascending order whatever their history, so that sums over neighbours do not depend on when lists were made.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def displacement(jit: Callable[[Callable], Any], *, diagonal: bool) -> Any:
    """`displacement(fixed, i, other, j, metric)`: Cartesian minimum image from `fixed[:, i]` to `other[:, j]`.

    `metric` is the cell over 2³², flattened; with `diagonal` only its diagonal is looked at.
    """
    integer, real = np.int32, np.float32

    def orthorhombic(fixed, i, other, j, metric):
        x = real(integer(other[0, j] - fixed[0, i])) * metric[0]
        y = real(integer(other[1, j] - fixed[1, i])) * metric[4]
        z = real(integer(other[2, j] - fixed[2, i])) * metric[8]
        return x, y, z

    def triclinic(fixed, i, other, j, metric):
        a = real(integer(other[0, j] - fixed[0, i]))
        b = real(integer(other[1, j] - fixed[1, i]))
        c = real(integer(other[2, j] - fixed[2, i]))
        x = a * metric[0] + b * metric[3] + c * metric[6]
        y = a * metric[1] + b * metric[4] + c * metric[7]
        z = a * metric[2] + b * metric[5] + c * metric[8]
        return x, y, z

    return jit(orthorhombic if diagonal else triclinic)


def drifter(jit: Callable[[Callable], Any], nearest: Any, *, diagonal: bool) -> Any:
    """`advance(i, fixed, vx, vy, vz, matrix)`: moves atom i by one step; `nearest` makes integers of float32."""
    integer = np.int32

    def orthorhombic(i, fixed, vx, vy, vz, matrix):
        fixed[0, i] = integer(fixed[0, i] + nearest(vx * matrix[0]))
        fixed[1, i] = integer(fixed[1, i] + nearest(vy * matrix[4]))
        fixed[2, i] = integer(fixed[2, i] + nearest(vz * matrix[8]))

    def triclinic(i, fixed, vx, vy, vz, matrix):
        fixed[0, i] = integer(fixed[0, i] + nearest(vx * matrix[0] + vy * matrix[3] + vz * matrix[6]))
        fixed[1, i] = integer(fixed[1, i] + nearest(vx * matrix[1] + vy * matrix[4] + vz * matrix[7]))
        fixed[2, i] = integer(fixed[2, i] + nearest(vx * matrix[2] + vy * matrix[5] + vz * matrix[8]))

    return jit(orthorhombic if diagonal else triclinic)


def reach(jit: Callable[[Callable], Any], cutoffs: tuple[tuple[float, ...], ...], *, skin: float) -> Any:
    """`reach2(species, i, j)`: the square of the cutoff of two atoms and the skin, Å²."""
    squares = np.array([[(cutoff + skin) ** 2 for cutoff in row] for row in cutoffs], np.float32)
    if squares.size == 1:
        square = squares[0, 0]
        return jit(lambda species, i, j: square)
    return jit(lambda species, i, j: squares[species[i], species[j]])


def lister(jit: Callable[[Callable], Any], vector: Any, reach2: Any) -> Any:
    """`build(thread, n_threads, n, fixed, origin, metric, species, listed, n_listed)`: all atoms within reach.

    Returns whether some atom has more than there is room for: the last row is spare. `origin` takes the positions of
    this moment.
    """
    index = np.uint32
    none, one = index(0), index(1)

    def build(thread, n_threads, n, fixed, origin, metric, species, listed, n_listed):
        room, end, full = index(listed.shape[0] - 1), index(n), False
        i = index(thread)
        while i < end:
            count, j = none, none
            while j < end:
                x, y, z = vector(fixed, i, fixed, j, metric)
                listed[count if count < room else room, i] = j
                inside = (x * x + y * y + z * z < reach2(species, i, j)) & (j != i)
                count = index(count + (one if inside else none))
                j = index(j + one)
            full = full or count > room
            n_listed[i] = count if count < room else room
            origin[0, i], origin[1, i], origin[2, i] = fixed[0, i], fixed[1, i], fixed[2, i]
            i = index(i + n_threads)
        return full

    return jit(build)


def selector(jit: Callable[[Callable], Any], vector: Any, cutoff2: Any) -> Any:
    """`select(i, fixed, metric, species, listed, n_listed, near, n_near)`: those of the list within the cutoff.

    Returns whether there are more than there is room for: the last row of `near` is spare.
    """
    index = np.uint32
    none, one = index(0), index(1)

    def select(i, fixed, metric, species, listed, n_listed, near, n_near):
        room, end = index(near.shape[0] - 1), index(n_listed[i])
        count, k = none, none
        while k < end:
            j = listed[k, i]
            x, y, z = vector(fixed, i, fixed, j, metric)
            near[count if count < room else room, i] = j
            inside = x * x + y * y + z * z < cutoff2(species, i, j)
            count = index(count + (one if inside else none))
            k = index(k + one)
        n_near[i] = count if count < room else room
        return count > room

    return jit(select)
