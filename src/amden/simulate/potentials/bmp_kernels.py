"""The compiled formulas of BMP-shrm: its screened three-body term, and all of it at once for `evaluate`.

    E_i = Σ_{j<k} K exp(-(r_ij + r_ik)/ρ) (θ_jik - θ0)²

over the legs j and k of an atom i, which are its neighbours of certain species within a cutoff of their own. The second
phase asks both ends of each pair for the derivative of their E with the vector between them, so nothing is scattered.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from amden.simulate.potentials.pair_sums import COULOMB, PairSums, contact_kernel, coulomb_kernels
from amden.simulate.potentials.potential import Tools

_SAME: Final = 1e-6
"""Å²; vectors from an atom that differ by less lead to the same neighbour: images are a lattice vector apart."""
_LEAST_SINE: Final = 1e-3
"""Where legs are this near to a straight line, 1/sin θ is kept finite, as LAMMPS keeps it."""


@dataclass(frozen=True)
class Legs:
    """Compiled functions that find the legs of an atom."""

    count: Any
    """`count(i, geometry, moments)`."""
    number: Any
    """`number(i, m, geometry, moments)`: number among its neighbours of the m-th leg of atom i."""


def all_neighbors(tools: Tools) -> Legs:
    """Where atoms have no other neighbours than the legs of one of the two."""
    n_near, index = tools.n_near, tools.index
    return Legs(
        count=tools.jit(lambda i, geometry, moments: n_near(geometry, i)),
        number=tools.jit(lambda i, m, geometry, moments: index(m)),
    )


def listed_legs(tools: Tools) -> Legs:
    """Those that `leg_kernel` left in the moments: how many in row 0, their numbers in the rows after it."""
    index = tools.index
    one = index(1)
    return Legs(
        count=tools.jit(lambda i, geometry, moments: index(moments[0, i])),
        number=tools.jit(lambda i, m, geometry, moments: index(moments[index(m + one), i])),
    )


def leg_kernel(angles: Any, tools: Tools) -> Any:
    """The first phase: `list_legs(i, geometry, moments)` for `listed_legs`."""
    real, index, n_near, neighbor, species = tools.real, tools.index, tools.n_near, tools.neighbor, tools.species
    none, one, span2 = index(0), index(1), tools.span2
    reach2 = np.array(angles.cutoffs, real) ** 2

    def list_legs(i, geometry, moments):
        own, count = species(geometry, i), none
        k, end = none, n_near(geometry, i)
        while k < end:
            j, x, y, z = neighbor(geometry, i, k)
            if span2(geometry, i, k, x * x + y * y + z * z) < reach2[own, species(geometry, j)]:
                count = index(count + one)
                moments[count, i] = real(k)
            k = index(k + one)
        moments[0, i] = real(count)

    return tools.jit(list_legs)


def angle_kernel(angles: Any, tools: Tools, legs: Legs) -> Any:
    """`turn(i, other, x, y, z, span2, geometry, moments)`: with the vector r from i to a leg of species `other`

    ∂E_i/∂r = Σ_k K e [-(θ - θ0)²/ρ u - 2 (θ - θ0)/sin θ (u_k - u cos θ)/r],    and Σ_k K e (θ - θ0)², twice its share.

    All are zero where the species make no angle, or where `span2` (`Tools.span2`) is beyond their cutoff.
    """
    real, index, rsqrt, exp, acos = tools.real, tools.index, tools.rsqrt, tools.exp, tools.acos
    n, species, neighbor = len(angles.symbols), tools.species, tools.neighbor
    count, number = legs.count, legs.number
    none, one_more, n_species = index(0), index(1), index(n)
    zero, one, two, same, least = (real(x) for x in (0, 1, 2, _SAME, _LEAST_SINE))
    theta0, over_rho = real(math.radians(angles.theta0)), real(1.0 / angles.rho)
    strengths = np.array(angles.strengths, real).reshape(n, n * n)
    bent = strengths.reshape(n, n, n).any(axis=2)  # whether a leg is part of an angle at this centre
    reach2 = np.where(bent, np.array(angles.cutoffs, real) ** 2, zero)

    def turn(i, other, x, y, z, span2, geometry, moments):
        gx = gy = gz = energy = zero
        own = species(geometry, i)
        if span2 >= reach2[own, other]:
            return gx, gy, gz, energy
        r2 = x * x + y * y + z * z
        over_r = rsqrt(r2)
        ux, uy, uz = x * over_r, y * over_r, z * over_r
        m, end = none, count(i, geometry, moments)
        while m < end:
            j, xk, yk, zk = neighbor(geometry, i, number(i, m, geometry, moments))
            m = index(m + one_more)
            strength = strengths[own, index(index(other) * n_species + index(species(geometry, j)))]
            dx, dy, dz = xk - x, yk - y, zk - z
            if strength > zero and dx * dx + dy * dy + dz * dz > same:
                rk2 = xk * xk + yk * yk + zk * zk
                over_rk = rsqrt(rk2)
                cosine = min(max((ux * xk + uy * yk + uz * zk) * over_rk, -one), one)
                over_sine = rsqrt(max(one - cosine * cosine, least * least))
                bend = acos(cosine) - theta0
                screened = strength * exp(-over_rho * (r2 * over_r + rk2 * over_rk)) * bend
                energy += screened * bend
                across = -two * screened * over_sine * over_r
                along = -over_rho * screened * bend - across * cosine
                gx += along * ux + across * over_rk * xk
                gy += along * uy + across * over_rk * yk
                gz += along * uz + across * over_rk * zk
        return gx, gy, gz, energy

    return tools.jit(turn)


def angle_forces(angles: Any, tools: Tools, legs: Legs) -> Any:
    """The second phase of the three-body term alone, of atoms with these legs."""
    real, index, neighbor, species = tools.real, tools.index, tools.neighbor, tools.species
    no_virial, add_virial, span2 = tools.no_virial, tools.add_virial, tools.span2
    turn, count, number = angle_kernel(angles, tools, legs), legs.count, legs.number
    none, one_more, zero, half = index(0), index(1), real(0), real(0.5)

    def forces(i, geometry, moments):
        own = species(geometry, i)
        fx = fy = fz = energy = zero
        virial = no_virial()
        m, end = none, count(i, geometry, moments)
        while m < end:
            k = number(i, m, geometry, moments)
            m = index(m + one_more)
            j, x, y, z = neighbor(geometry, i, k)
            held2 = span2(geometry, i, k, x * x + y * y + z * z)
            gx, gy, gz, share = turn(i, species(geometry, j), x, y, z, held2, geometry, moments)
            hx, hy, hz, _ = turn(index(j), own, -x, -y, -z, held2, geometry, moments)
            gx, gy, gz = gx - hx, gy - hy, gz - hz
            fx += gx
            fy += gy
            fz += gz
            energy += half * share
            virial = add_virial(virial, x, y, z, gx, gy, gz)
        return fx, fy, fz, energy, virial

    return tools.jit(forces)


def all_forces(angles: Any, sums: PairSums, tools: Tools) -> Any:
    """The second phase of the whole potential, where neighbours are all those within the longest cutoff."""
    real, index, rsqrt, n_near, neighbor = tools.real, tools.index, tools.rsqrt, tools.n_near, tools.neighbor
    species, add_virial = tools.species, tools.add_virial
    (push, value), short = coulomb_kernels(sums, tools), short_forces(angles, sums, tools)
    none, one_more, half = index(0), index(1), real(0.5)
    charges, alone, coulomb = np.array(sums.charges, real), np.array(sums.self_energies, real), real(COULOMB)

    def forces(i, geometry, moments):
        fx, fy, fz, energy, virial = short(i, geometry, moments)
        own = species(geometry, i)
        energy += alone[own]
        k, end = none, n_near(geometry, i)
        while k < end:
            j, x, y, z = neighbor(geometry, i, k)
            k = index(k + one_more)
            r2 = x * x + y * y + z * z
            over_r = rsqrt(r2)
            charge = coulomb * charges[own] * charges[species(geometry, j)]
            slope = -charge * push(r2, over_r)
            energy += half * charge * value(r2, over_r)
            gx, gy, gz = slope * x, slope * y, slope * z
            fx += gx
            fy += gy
            fz += gz
            virial = add_virial(virial, x, y, z, gx, gy, gz)
        return fx, fy, fz, energy, virial

    return tools.jit(forces)


def short_forces(angles: Any, sums: PairSums, tools: Tools) -> Any:
    """The second phase without the charges: contacts, and the angles of the legs that `leg_kernel` has listed."""
    real, index, rsqrt, n_near, neighbor = tools.real, tools.index, tools.rsqrt, tools.n_near, tools.neighbor
    species, span2, add_virial = tools.species, tools.span2, tools.add_virial
    contact, bent = contact_kernel(tools), angle_forces(angles, tools, listed_legs(tools))
    none, one_more, half = index(0), index(1), real(0.5)
    near2, n_species = real(sums.contact_cutoff**2), index(len(sums.charges))
    table = sums.contact_table.astype(real)

    def forces(i, geometry, moments):
        fx, fy, fz, energy, virial = bent(i, geometry, moments)
        own = species(geometry, i)
        k, end = none, n_near(geometry, i)
        while k < end:
            j, x, y, z = neighbor(geometry, i, k)
            r2 = x * x + y * y + z * z
            if span2(geometry, i, k, r2) < near2:
                pair = index(index(own) * n_species + index(species(geometry, j)))
                c, press = contact(table[0, pair], table[1, pair], table[2, pair], table[3, pair], r2, rsqrt(r2))
                energy += half * c
                gx, gy, gz = -press * x, -press * y, -press * z
                fx += gx
                fy += gy
                fz += gz
                virial = add_virial(virial, x, y, z, gx, gy, gz)
            k = index(k + one_more)
        return fx, fy, fz, energy, virial

    return tools.jit(forces)
