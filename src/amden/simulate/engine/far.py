"""The engine's sums over pairs that reach far (`pair_sums`): lists of their own, and the loops over them.

Cells may be smaller than twice the cutoff. Along each lattice vector two images of an atom lie within a cell's height
of another: the nearest, at the fraction s, and that on the other side, at s - sign s. So a neighbour is its number and
three bits that say along which lattice vectors the other image is meant; where the nearest image changes, both mean
one another, and at that moment they are equally far.

Lists are in ascending order, nearest images first. Energy and virial are summed only when they are asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float32

from amden.simulate.engine.verlet import reach
from amden.simulate.potentials.pair_sums import LongRanged, PairSums, contact_kernel, coulomb_kernels
from amden.simulate.potentials.potential import Potential, Tools

BITS: Final = 13
"""Of the number of a neighbour; the three above say which image it is."""
MOST_ATOMS: Final = 2**BITS - 1

_LEAST2: Final = 1e-4
"""Å²; nearer atoms are taken to be this far apart, where there is nothing left to simulate."""
_FINE: Final = 0.25
"""Energies in which a `Tally` takes energies and virials: they reach further than forces."""


class Far(NamedTuple):
    """The arrays of one system; those without use are small."""

    charge: Any
    """float32, e, of each atom."""
    table: Any
    """float32, [4, pair], `PairSums.contact_table`."""
    listed: Any
    """uint16, [neighbour, atom], neighbours within the cutoff and the skin."""
    contacts: Any
    """uint16, [neighbour, atom], nearest images within the cutoff of the contact term and the skin."""
    counts: Any
    """int32, [3, atom]: nearest images among `listed`, all of `listed`, all of `contacts`."""


@dataclass(frozen=True)
class Tally:
    """How long sums are added up, so that entries of a list beyond the cutoff, which are zeros, change no bit of them.

    One number after the other, that is so. Where several are added at a time, it needs integers, whose sums are the
    same in any order; they may wrap around on the way.
    """

    together: int
    """Addends at a time: lists are filled up to multiples of this with the atom itself, which is no pair, so that all
    addends are computed alike."""
    nothing: Any
    """The sum before its first addend."""
    add: Any
    """`add(total, x)`: the sum with x."""
    told: Any
    """`told(total)`: the sum as float32."""


@dataclass(frozen=True)
class FarSums:
    """Compiled functions."""

    build: Any
    """`build(thread, n_threads, n, fixed, metric, species, far)`: the lists; returns whether some had no room."""
    forces: Any
    """`forces(i, fixed, metric, species, far)`: the force on atom i in eV/Å."""
    measure: Any
    """`measure(i, fixed, metric, species, far)`: the energy of the atom and Σ r·∂E/∂r over its pairs, in eV."""


def tables_of(potential: Potential) -> tuple[Float32[np.ndarray, " species"], Float32[np.ndarray, "4 pairs"]]:
    """Charges of the species, and the contact terms of their pairs; of other potentials zeros."""
    if not isinstance(potential, LongRanged):
        return np.zeros(len(potential.symbols), np.float32), np.zeros((4, 1), np.float32)
    sums = potential.pair_sums
    return np.array(sums.charges, np.float32), sums.contact_table.astype(np.float32)


def far_sums(tools: Tools, tally: Tally, potential: Potential, vector: Any, *, skin: float, diagonal: bool) -> FarSums:
    """Of a potential; where it is not `LongRanged` they do nothing."""
    if not isinstance(potential, LongRanged):
        return _nothing(tools)
    other = _other_image(tools.jit, diagonal=diagonal)
    return FarSums(
        build=_lister(tools, tally, potential.pair_sums, vector, other, skin=skin),
        forces=_forcer(tools, tally, potential.pair_sums, vector, other),
        measure=_measurer(tools, tally, potential.pair_sums, vector, other),
    )


def _nothing(tools: Tools) -> FarSums:
    zero = tools.real(0)
    return FarSums(
        build=tools.jit(lambda thread, n_threads, n, fixed, metric, species, far: False),
        forces=tools.jit(lambda i, fixed, metric, species, far: (zero, zero, zero)),
        measure=tools.jit(lambda i, fixed, metric, species, far: (zero, zero)),
    )


def _other_image(jit: Callable[[Callable], Any], *, diagonal: bool) -> Any:
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


def _margins(jit: Callable[[Callable], Any], reach: float) -> Any:
    """`margins(metric)`: along each lattice vector, |s| times 2³² beyond which the other image may be within reach."""
    real = np.float32
    turn, none, half, length = real(2.0**32), real(0), real(0.5), real(reach)

    def margin(d, metric):
        p, q = 3 * ((d + 1) % 3), 3 * ((d + 2) % 3)
        x = metric[p + 1] * metric[q + 2] - metric[p + 2] * metric[q + 1]
        y = metric[p + 2] * metric[q] - metric[p] * metric[q + 2]
        z = metric[p] * metric[q + 1] - metric[p + 1] * metric[q]
        volume = abs(x * metric[3 * d] + y * metric[3 * d + 1] + z * metric[3 * d + 2])
        return max(turn - length * (x * x + y * y + z * z) ** half / volume, none)

    margin = jit(margin)
    return jit(lambda metric: (margin(0, metric), margin(1, metric), margin(2, metric)))


def _lister(tools: Tools, tally: Tally, sums: PairSums, vector: Any, other: Any, *, skin: float) -> Any:
    jit, integer, real, index, small = tools.jit, np.int32, np.float32, np.uint32, np.uint16
    margins, bits, farthest2 = _margins(jit, sums.cutoff + skin), index(BITS), real((sums.contact_cutoff + skin) ** 2)
    none, one, two, four, reach2 = index(0), index(1), index(2), index(4), real((sums.cutoff + skin) ** 2)
    contact2, together = reach(jit, sums.contact_cutoffs, skin=skin), index(tally.together)

    def put(array, i, count, code):
        if count < index(array.shape[0]):
            array[count, i] = small(code)
        return index(count + one)

    put = jit(put)

    def filled(array, i, start, count):
        while index(count - start) % together != none:
            count = put(array, i, count, i)
        return count

    filled = jit(filled)

    def nearest(i, n, fixed, metric, species, far):
        count, contacts, j = none, none, none
        while j < n:
            x, y, z = vector(fixed, i, fixed, j, metric)
            r2 = x * x + y * y + z * z
            if r2 < reach2 and j != i:
                count = put(far.listed, i, count, j)
                if r2 < farthest2 and r2 < contact2(species, i, j):
                    contacts = put(far.contacts, i, contacts, j)
            j = index(j + one)
        return filled(far.listed, i, none, count), filled(far.contacts, i, none, contacts)

    nearest = jit(nearest)

    def beyond(margin, s):
        return abs(real(s)) > margin

    beyond = jit(beyond)

    def others(i, n, start, fixed, metric, far):
        count, j = start, none
        ma, mb, mc = margins(metric)
        while j < n:
            within = index(one if beyond(ma, integer(fixed[0, j] - fixed[0, i])) else none)
            within |= index(two if beyond(mb, integer(fixed[1, j] - fixed[1, i])) else none)
            within |= index(four if beyond(mc, integer(fixed[2, j] - fixed[2, i])) else none)
            image = index(within & index(~within + one))
            while image != none:
                x, y, z = other(i, j, image, fixed, metric)
                if x * x + y * y + z * z < reach2 and j != i:
                    count = put(far.listed, i, count, j | index(image << bits))
                image = index(index(image - within) & within)  # the next set of these bits
            j = index(j + one)
        return filled(far.listed, i, start, count)

    others = jit(others)

    def build(thread, n_threads, n, fixed, metric, species, far):
        full, end, room = False, index(n), index(far.listed.shape[0])
        contact_room = index(far.contacts.shape[0])
        for i in range(thread, n, n_threads):
            start, contacts = nearest(index(i), end, fixed, metric, species, far)
            count = others(index(i), end, start, fixed, metric, far)
            far.counts[0, i], far.counts[1, i] = integer(min(start, room)), integer(min(count, room))
            far.counts[2, i] = integer(min(contacts, contact_room))
            full = full or count > room or contacts > contact_room
        return full

    return jit(build)


def _pairs(tools: Tools, tally: Tally, sums: PairSums, vector: Any, other: Any, weigh: tuple[Any, Any, Any]) -> Any:
    """`total(i, fixed, metric, species, far)`: three sums over the charges and three over the contacts of atom i.

    `weigh` says what is added of a pair: of charges, of contacts, and how.
    """
    jit, real, index, rsqrt = tools.jit, np.float32, np.uint32, tools.rsqrt
    cutoff2, contact2, low = real(sums.cutoff**2), real(sums.contact_cutoff**2), index(2**BITS - 1)
    zero, least, bits, n_species = real(0), real(_LEAST2), index(BITS), index(len(sums.charges))
    nothing = tally.nothing
    of_charges, of_contacts, added = weigh

    def charged(total, x, y, z, charge):
        r2 = x * x + y * y + z * z
        charge = charge if (r2 < cutoff2) & (r2 > zero) else zero
        r2 = max(r2, least)
        return added(total, x, y, z, of_charges(r2, rsqrt(r2), charge))

    charged = jit(charged)

    def nearest(i, fixed, metric, far):
        total = nothing, nothing, nothing
        for k in range(far.counts[0, i]):
            j = far.listed[index(k), i]
            x, y, z = vector(fixed, i, fixed, j, metric)
            total = charged(total, x, y, z, far.charge[j])
        return total

    nearest = jit(nearest)

    def others(i, fixed, metric, far, total):
        for k in range(far.counts[0, i], far.counts[1, i]):
            code = index(far.listed[index(k), i])
            j = code & low
            x, y, z = other(i, j, code >> bits, fixed, metric)
            total = charged(total, x, y, z, far.charge[j])
        return total

    others = jit(others)

    def contacts(i, fixed, metric, species, far):
        total, table = (nothing, nothing, nothing), far.table
        own = index(index(species[i]) * n_species)
        for k in range(far.counts[2, i]):
            j = far.contacts[index(k), i]
            x, y, z = vector(fixed, i, fixed, j, metric)
            r2 = x * x + y * y + z * z
            within = real((r2 < contact2) & (r2 > zero))
            r2 = max(r2, least)
            pair = index(own + index(species[j]))
            weight = of_contacts(table[0, pair], table[1, pair], table[2, pair], table[3, pair], r2, rsqrt(r2), within)
            total = added(total, x, y, z, weight)
        return total

    contacts = jit(contacts)

    def total(i, fixed, metric, species, far):
        i = index(i)
        return others(i, fixed, metric, far, nearest(i, fixed, metric, far)), contacts(i, fixed, metric, species, far)

    return jit(total)


def _forcer(tools: Tools, tally: Tally, sums: PairSums, vector: Any, other: Any) -> Any:
    (push, _), contact, jit = coulomb_kernels(sums, tools), contact_kernel(tools), tools.jit
    add, told = tally.add, tally.told

    def of_charges(r2, over_r, charge):
        return charge * push(r2, over_r)

    def of_contacts(a, P, Q, B, r2, over_r, within):
        _, press = contact(a, P, Q, B, r2, over_r)
        return within * press

    def added(total, x, y, z, p):
        return add(total[0], -p * x), add(total[1], -p * y), add(total[2], -p * z)

    pairs = _pairs(tools, tally, sums, vector, other, (jit(of_charges), jit(of_contacts), jit(added)))

    def forces(i, fixed, metric, species, far):
        a, b = pairs(i, fixed, metric, species, far)
        q = far.charge[i]
        return q * told(a[0]) + told(b[0]), q * told(a[1]) + told(b[1]), q * told(a[2]) + told(b[2])

    return jit(forces)


def _measurer(tools: Tools, tally: Tally, sums: PairSums, vector: Any, other: Any) -> Any:
    (push, value), contact, jit, real = coulomb_kernels(sums, tools), contact_kernel(tools), tools.jit, np.float32
    add, told, half, fine, coarse = tally.add, tally.told, real(0.5), real(_FINE), real(1.0 / _FINE)
    alone = np.array(sums.self_energies, real)

    def of_charges(r2, over_r, charge):
        return charge * value(r2, over_r), charge * push(r2, over_r) * r2

    def of_contacts(a, P, Q, B, r2, over_r, within):
        c, press = contact(a, P, Q, B, r2, over_r)
        return within * c, within * press * r2

    def added(total, x, y, z, weight):
        return add(total[0], fine * weight[0]), add(total[1], -fine * weight[1]), total[2]

    pairs = _pairs(tools, tally, sums, vector, other, (jit(of_charges), jit(of_contacts), jit(added)))

    def measure(i, fixed, metric, species, far):
        a, b = pairs(i, fixed, metric, species, far)
        q = far.charge[i]
        energy = half * coarse * (q * told(a[0]) + told(b[0])) + alone[species[i]]
        return energy, coarse * (q * told(a[1]) + told(b[1]))

    return jit(measure)
