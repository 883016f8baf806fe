"""The lists of the sums over far pairs (`far`): who is on them, and which image of an atom is meant.

Cells may be smaller than twice the cutoff. Along each lattice vector two images of an atom lie within a cell's height
of another: the nearest, at the fraction s, and that on the other side, at s - sign s. So a neighbour is its number and
three bits that say along which lattice vectors the other image is meant; where the nearest image changes, both mean
one another, and at that moment they are equally far.

Lists are in ascending order, nearest images first.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from amden.simulate.engine.verlet import reach
from amden.simulate.potentials.pair_sums import PairSums

BITS: Final = 13
"""Of the number of a neighbour; the three above say which image it is."""
MOST_ATOMS: Final = 2**BITS - 1


def other_image(jit: Callable[[Callable], Any], *, diagonal: bool) -> Any:
    """`other(i, j, image, fixed, metric)`: as `verlet.displacement`, to the image that three bits say."""
    integer, real, index = np.int32, np.float32, np.uint32
    turn, zero, one, two, four = real(2.0**32), real(0), index(1), index(2), index(4)

    def across(i, j, d, chosen, fixed):
        s = real(integer(fixed[d, j] - fixed[d, i]))
        return s - (zero if chosen == index(0) else turn if s > zero else -turn)

    across = jit(across)

    def orthorhombic(i, j, image, fixed, metric):
        x = across(i, j, 0, image & one, fixed) * metric[0]
        y = across(i, j, 1, image & two, fixed) * metric[4]
        z = across(i, j, 2, image & four, fixed) * metric[8]
        return x, y, z

    def triclinic(i, j, image, fixed, metric):
        a = across(i, j, 0, image & one, fixed)
        b = across(i, j, 1, image & two, fixed)
        c = across(i, j, 2, image & four, fixed)
        x = a * metric[0] + b * metric[3] + c * metric[6]
        y = a * metric[1] + b * metric[4] + c * metric[7]
        z = a * metric[2] + b * metric[5] + c * metric[8]
        return x, y, z

    return jit(orthorhombic if diagonal else triclinic)


def _turns(jit: Callable[[Callable], Any], reach: float, *, diagonal: bool) -> tuple[Any, Any]:
    """`bounds(metric)`, and `turns(i, j, x, y, z, r2, fixed, bounds)`: the bits of the lattice vectors along which an
    image of j other than the nearest, which is at x, y, z, may be within reach of i."""
    integer, real, index = np.int32, np.float32, np.uint32
    turn, zero, half, two = real(2.0**32), real(0), real(0.5), real(2)
    length, reach2 = real(reach), real(reach**2)
    bits = tuple((index(1 << d), index(0)) for d in range(3))

    def straight_bounds(metric):
        a, b, c = turn * abs(metric[0]), turn * abs(metric[4]), turn * abs(metric[8])
        return two * a, two * b, two * c, reach2 - a * a, reach2 - b * b, reach2 - c * c

    def straight(i, j, x, y, z, r2, fixed, bounds):
        """(|x| - a)² for x²: the other steps away from the nearest image only lengthen the way."""
        a, b, c, most_a, most_b, most_c = bounds
        found = bits[0][0] if r2 - a * abs(x) < most_a else bits[0][1]
        found |= bits[1][0] if r2 - b * abs(y) < most_b else bits[1][1]
        found |= bits[2][0] if r2 - c * abs(z) < most_c else bits[2][1]
        return index(found)

    def margin(d, metric):
        """|s| times 2³² beyond which the other image may be within reach."""
        p, q = 3 * ((d + 1) % 3), 3 * ((d + 2) % 3)
        x = metric[p + 1] * metric[q + 2] - metric[p + 2] * metric[q + 1]
        y = metric[p + 2] * metric[q] - metric[p] * metric[q + 2]
        z = metric[p] * metric[q + 1] - metric[p + 1] * metric[q]
        volume = abs(x * metric[3 * d] + y * metric[3 * d + 1] + z * metric[3 * d + 2])
        return max(turn - length * (x * x + y * y + z * z) ** half / volume, zero)

    margin = jit(margin)

    def skewed_bounds(metric):
        return margin(0, metric), margin(1, metric), margin(2, metric)

    def skewed(i, j, x, y, z, r2, fixed, bounds):
        found = bits[0][0] if abs(real(integer(fixed[0, j] - fixed[0, i]))) > bounds[0] else bits[0][1]
        found |= bits[1][0] if abs(real(integer(fixed[1, j] - fixed[1, i]))) > bounds[1] else bits[1][1]
        found |= bits[2][0] if abs(real(integer(fixed[2, j] - fixed[2, i]))) > bounds[2] else bits[2][1]
        return index(found)

    return (jit(straight_bounds), jit(straight)) if diagonal else (jit(skewed_bounds), jit(skewed))


def far_lister(tools: Any, together: int, sums: PairSums, vector: Any, *, skin: float, diagonal: bool) -> Any:
    """`build(thread, n_threads, n, fixed, metric, species, far)`: the lists of `far.Far`, each filled up to a multiple
    of `together` with the atom itself; returns whether some had no room."""
    jit, integer, real, index, small = tools.jit, np.int32, np.float32, np.uint32, np.uint16
    other, (bounds, turns) = other_image(jit, diagonal=diagonal), _turns(jit, sums.cutoff + skin, diagonal=diagonal)
    contact2 = reach(jit, sums.contact_cutoffs, skin=skin)
    none, one, bits, low = index(0), index(1), index(BITS), index(2**BITS - 1)
    reach2, group = real((sums.cutoff + skin) ** 2), index(together)

    def put(array, i, count, code):
        last = index(index(array.shape[0]) - one)
        array[min(count, last), i] = small(code)
        return index(count + one)

    put = jit(put)

    def filled(array, i, start, count):
        while index(count - start) % group != none:
            count = put(array, i, count, i)
        return count

    filled = jit(filled)

    def once(i, n, fixed, metric, species, far):
        """Nearest images; and at the far end of the list, backwards, who may have others there, with their bits."""
        count, contacts, candidates, j = none, none, none, none
        limits, last, listing = bounds(metric), index(index(far.listed.shape[0]) - one), far.unlisted == 0
        while j < n:
            x, y, z = vector(fixed, i, fixed, j, metric)
            r2 = x * x + y * y + z * z
            if (r2 < contact2(species, i, j)) & (j != i):
                contacts = put(far.contacts, i, contacts, j)
            if listing and r2 < reach2 and j != i:
                count = put(far.listed, i, count, j)
            found = turns(i, j, x, y, z, r2, fixed, limits)
            if found != none:
                far.listed[index(last - min(candidates, last)), i] = small(j | index(found << bits))
                candidates = index(candidates + one)
            j = index(j + one)
        return filled(far.listed, i, none, count), filled(far.contacts, i, none, contacts), candidates

    once = jit(once)

    def others(i, start, candidates, fixed, metric, far):
        count, k, last = start, none, index(index(far.listed.shape[0]) - one)
        while k < candidates and k <= last:
            code = index(far.listed[index(last - k), i])
            j, within = index(code & low), index(code >> bits)
            image = index(within & index(~within + one))
            while image != none:
                x, y, z = other(i, j, image, fixed, metric)
                if x * x + y * y + z * z < reach2:
                    count = put(far.listed, i, count, j | index(image << bits))
                image = index(index(image - within) & within)  # the next set of these bits
            k = index(k + one)
        return filled(far.listed, i, start, count)

    others = jit(others)

    def build(thread, n_threads, n, fixed, metric, species, far):
        full, end, room = False, index(n), index(far.listed.shape[0])
        contact_room = index(far.contacts.shape[0])
        for i in range(thread, n, n_threads):
            start, contacts, candidates = once(index(i), end, fixed, metric, species, far)
            count = others(index(i), start, candidates, fixed, metric, far)
            far.counts[0, i], far.counts[1, i] = integer(min(start, room)), integer(min(count, room))
            far.counts[2, i] = integer(min(contacts, contact_room))
            full = full or index(count + candidates) > room or contacts > contact_room
        return full

    return jit(build)


def sublister(jit: Callable[[Callable], Any], vector: Any, reach2: Any) -> Any:
    """`build(thread, n_threads, n, fixed, origin, metric, species, far, listed, n_listed)`: as `verlet.lister`, of
    neighbours that are all among the contacts, which are listed before by the same thread."""
    index = np.uint32
    none, one = index(0), index(1)

    def build(thread, n_threads, n, fixed, origin, metric, species, far, listed, n_listed):
        room, full = index(listed.shape[0] - 1), False
        for i in range(thread, n, n_threads):
            i = index(i)
            count, k, end = none, none, index(far.counts[2, i])
            while k < end:
                j = far.contacts[k, i]
                x, y, z = vector(fixed, i, fixed, j, metric)
                if x * x + y * y + z * z < reach2(species, i, j) and j != i:
                    if count < room:
                        listed[count, i] = j
                    count = index(count + one)
                k = index(k + one)
            full = full or count > room
            n_listed[i] = min(count, room)
            origin[0, i], origin[1, i], origin[2, i] = fixed[0, i], fixed[1, i], fixed[2, i]
        return full

    return jit(build)
