"""The engine's sums over pairs that reach far (`pair_sums`): over all atoms or over lists (`far_lists`).

In a small cell most atoms are within the cutoff of an atom. Then its nearest images are all gone through, without a
list of them: those beyond the cutoff count as zeros, and memory is read in its own order. Only contacts, and images
beyond the nearest, are listed.

Energy and virial are summed only when they are asked for.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float32

from amden.simulate.engine.far_lists import BITS, far_lister, other_image
from amden.simulate.potentials.pair_sums import COULOMB, LongRanged, PairSums, contact_kernel, coulomb_kernels
from amden.simulate.potentials.potential import Potential, Tools

_TINY2: Final = 1e-8
"""Å²; is added to squares of distances, so that an atom and itself are at one too. Less than rounding of others."""
_LEAST2: Final = 1e-4
"""Å²; nearer contacts are taken to be this far apart, where there is nothing left to simulate."""
_FINE: Final = 0.25
"""Energies in which a `Tally` takes energies and virials: they reach further than forces."""


class Far(NamedTuple):
    """The arrays of one system; those without use are small."""

    unlisted: Any
    """Number of atoms that are gone through, all of them and what fills them up; 0 if nearest images are listed."""
    charge: Any
    """float32, k q in eV Å/e, of each atom; zeros after the last."""
    table: Any
    """float32, [pair, 4], `PairSums.contact_table`; what is read of a pair lies side by side."""
    listed: Any
    """uint16, [neighbour, atom], neighbours within the cutoff and the skin, as `far_lists` writes them."""
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
    walk: Any
    """`walk(step)`: the compiled loop `loop(total, start, stop, i, fixed, metric, species, far)` of
    `total = step(total, k, i, fixed, metric, species, far)`, k from `start` to `stop`."""
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


def tables_of(potential: Potential) -> tuple[Float32[np.ndarray, " species"], Float32[np.ndarray, "pairs 4"]]:
    """k q of the species, and the contact terms of their pairs; of other potentials zeros."""
    if not isinstance(potential, LongRanged):
        return np.zeros(len(potential.symbols), np.float32), np.zeros((1, 4), np.float32)
    sums = potential.pair_sums
    return (COULOMB * np.array(sums.charges)).astype(np.float32), np.ascontiguousarray(sums.contact_table.T, np.float32)


def far_sums(tools: Tools, tally: Tally, potential: Potential, vector: Any, *, skin: float, diagonal: bool) -> FarSums:
    """Of a potential; where it is not `LongRanged` they do nothing."""
    if not isinstance(potential, LongRanged):
        return _nothing(tools)
    sums, other = potential.pair_sums, other_image(tools.jit, diagonal=diagonal)
    return FarSums(
        build=far_lister(tools, tally.together, sums, vector, skin=skin, diagonal=diagonal),
        forces=_forcer(tools, tally, sums, vector, other),
        measure=_measurer(tools, tally, sums, vector, other),
    )


def _nothing(tools: Tools) -> FarSums:
    zero = tools.real(0)
    return FarSums(
        build=tools.jit(lambda thread, n_threads, n, fixed, metric, species, far: False),
        forces=tools.jit(lambda i, fixed, metric, species, far: (zero, zero, zero)),
        measure=tools.jit(lambda i, fixed, metric, species, far: (zero, zero)),
    )


def _pairs(tools: Tools, tally: Tally, sums: PairSums, vector: Any, other: Any, weigh: tuple[Any, Any, Any]) -> Any:
    """`total(i, fixed, metric, species, far)`: three sums over the charges and three over the contacts of atom i.

    `weigh` says what is added of a pair: of charges, of contacts, and how.
    """
    jit, real, index, rsqrt = tools.jit, np.float32, np.uint32, tools.rsqrt
    cutoff2, contact2, low = real(sums.cutoff**2), real(sums.contact_cutoff**2), index(2**BITS - 1)
    zero, tiny, least = real(0), real(_TINY2), real(_LEAST2)
    bits, n_species, nothing = index(BITS), index(len(sums.charges)), tally.nothing
    of_charges, of_contacts, added = weigh

    def charged(total, x, y, z, charge):
        r2 = tiny + x * x + y * y + z * z
        charge = charge if r2 < cutoff2 else zero
        return added(total, x, y, z, of_charges(r2, rsqrt(r2), charge))

    charged = jit(charged)

    def any_atom(total, j, i, fixed, metric, species, far):
        x, y, z = vector(fixed, i, fixed, j, metric)
        return charged(total, x, y, z, far.charge[j])

    def nearest(total, k, i, fixed, metric, species, far):
        j = far.listed[index(k), i]
        x, y, z = vector(fixed, i, fixed, j, metric)
        return charged(total, x, y, z, far.charge[j])

    def others(total, k, i, fixed, metric, species, far):
        code = index(far.listed[index(k), i])
        j = code & low
        x, y, z = other(i, j, code >> bits, fixed, metric)
        return charged(total, x, y, z, far.charge[j])

    def contact(total, k, i, fixed, metric, species, far):
        table, j = far.table, far.contacts[index(k), i]
        x, y, z = vector(fixed, i, fixed, j, metric)
        r2 = x * x + y * y + z * z
        within = real((r2 < contact2) & (r2 > zero))
        r2 = max(r2, least)
        pair = index(index(species[i]) * n_species + index(species[j]))
        weight = of_contacts(table[pair, 0], table[pair, 1], table[pair, 2], table[pair, 3], r2, rsqrt(r2), within)
        return added(total, x, y, z, weight)

    sum_all, sum_nearest, sum_others, sum_contacts = (
        tally.walk(jit(step)) for step in (any_atom, nearest, others, contact)
    )

    def total(i, fixed, metric, species, far):
        i = index(i)
        none = nothing, nothing, nothing
        of_all = sum_all(none, 0, far.unlisted, i, fixed, metric, species, far)
        of_all = sum_nearest(of_all, 0, far.counts[0, i], i, fixed, metric, species, far)
        of_all = sum_others(of_all, far.counts[0, i], far.counts[1, i], i, fixed, metric, species, far)
        return of_all, sum_contacts(none, 0, far.counts[2, i], i, fixed, metric, species, far)

    return jit(total)


def _forcer(tools: Tools, tally: Tally, sums: PairSums, vector: Any, other: Any) -> Any:
    (push, _), contact, jit = coulomb_kernels(sums, tools), contact_kernel(tools), tools.jit
    add, told, over_k = tally.add, tally.told, np.float32(1.0 / COULOMB)

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
        q = over_k * far.charge[i]
        return q * told(a[0]) + told(b[0]), q * told(a[1]) + told(b[1]), q * told(a[2]) + told(b[2])

    return jit(forces)


def _measurer(tools: Tools, tally: Tally, sums: PairSums, vector: Any, other: Any) -> Any:
    (push, value), contact, jit, real = coulomb_kernels(sums, tools), contact_kernel(tools), tools.jit, np.float32
    add, told, half, fine, coarse = tally.add, tally.told, real(0.5), real(_FINE), real(1.0 / _FINE)
    alone, over_k = np.array(sums.self_energies, real), real(1.0 / COULOMB)
    zero, itself = real(0), real(2.0 * _TINY2)

    def of_charges(r2, over_r, charge):
        charge = charge if r2 > itself else zero
        return charge * value(r2, over_r), charge * push(r2, over_r) * r2

    def of_contacts(a, P, Q, B, r2, over_r, within):
        c, press = contact(a, P, Q, B, r2, over_r)
        return within * c, within * press * r2

    def added(total, x, y, z, weight):
        return add(total[0], fine * weight[0]), add(total[1], -fine * weight[1]), total[2]

    pairs = _pairs(tools, tally, sums, vector, other, (jit(of_charges), jit(of_contacts), jit(added)))

    def measure(i, fixed, metric, species, far):
        a, b = pairs(i, fixed, metric, species, far)
        q = over_k * far.charge[i]
        energy = half * coarse * (q * told(a[0]) + told(b[0])) + alone[species[i]]
        return energy, coarse * (q * told(a[1]) + told(b[1]))

    return jit(measure)
