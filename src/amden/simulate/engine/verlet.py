"""Neighbours in the engine: fractional positions in 32 bits, a Verlet list with a skin, the neighbours in reach.

A position is an integer fraction of the cell, s = integer / 2³². Differences of integers wrap around, so the minimum
image in any cell is free, adding displacements loses no precision, and a change of the cell moves no integer.

Lists are in ascending order whatever their history, so that sums over neighbours do not depend on when lists were made.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

ATOM, SPECIES, NEAR, N_NEAR, METRIC = range(5)
"""Places in the `geometry` handed to a potential's kernels."""


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


def lister(jit: Callable[[Callable], Any], vector: Any) -> Any:
    """`build(thread, n_threads, n, fixed, origin, metric, reach2, listed, n_listed)`: all atoms within √reach2.

    Returns whether some atom has more than there is room for. `origin` takes the positions of this moment.
    """

    def build(thread, n_threads, n, fixed, origin, metric, reach2, listed, n_listed):
        room = listed.shape[0]
        most = 0
        for i in range(thread, n, n_threads):
            count = 0
            for j in range(n):
                x, y, z = vector(fixed, i, fixed, j, metric)
                if x * x + y * y + z * z < reach2 and j != i:
                    if count < room:
                        listed[count, i] = j
                    count += 1
            n_listed[i] = min(count, room)
            most = max(most, count)
            for d in range(3):
                origin[d, i] = fixed[d, i]
        return most > room

    return jit(build)


def selector(jit: Callable[[Callable], Any], vector: Any) -> Any:
    """`select(i, fixed, metric, cutoff2, listed, n_listed, near, n_near)`: those of the list within the cutoff.

    Returns whether there are more than there is room for: the last row of `near` only takes what is too much.
    """

    def select(i, fixed, metric, cutoff2, listed, n_listed, near, n_near):
        room = near.shape[0] - 1
        count = 0
        for k in range(n_listed[i]):
            j = listed[k, i]
            x, y, z = vector(fixed, i, fixed, j, metric)
            near[min(count, room), i] = j
            if x * x + y * y + z * z < cutoff2:
                count += 1
        n_near[i] = min(count, room)
        return count > room

    return jit(select)
