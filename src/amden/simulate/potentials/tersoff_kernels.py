"""The compiled formulas of the Tersoff potential, in the letters of `tersoff`.

ζ carries its factor β here, and g with it, in a form without the difference of two large numbers that c²/d² would make.

The first phase leaves ∂E_i/∂ζ_ij and b_ij with atom i, two numbers a neighbour. With them `_end_kernel` gives the
derivative of E_i with one of the vectors that leave i; the second phase asks it for both ends of each pair. So nothing
is scattered, and sums are in the order of the lists.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amden.simulate.potentials.potential import Tools

Centers = Sequence[Any]
"""One for each species, with the attributes of `TersoffCenter`."""

_SAME = 1e-6
"""Å²; vectors from an atom that differ by less lead to the same neighbour: images are a lattice vector apart."""

_LEAST_ZETA = 1e-20
"""βζ below which b = 1 and its derivative, which diverges for n < 1 though no force does, is taken as 0."""


@dataclass(frozen=True)
class Radial:
    """Compiled functions of a distance."""

    kind: Any
    """`kind(s, t)`: number of the bond of two species."""
    fading: Any
    """`fading(kind, r)`: f and f'."""
    repulsion: Any
    """`repulsion(kind, r)`: A exp(-λ1 r) and its derivative."""
    attraction: Any
    """`attraction(kind, r)`: B exp(-λ2 r) and its derivative."""


def radial_kernels(pairs: Sequence[Any], tools: Tools) -> Radial:
    """Of the n² bonds of n species, each with the attributes of `TersoffBond`."""
    real, index, exp, sin, cos = tools.real, tools.index, tools.exp, tools.sin, tools.cos
    n_species = index(math.isqrt(len(pairs)))
    zero, one, two = real(0), real(1), real(2)

    def table(parameter: Callable[[Any], float]) -> np.ndarray:
        return np.array([parameter(bond) for bond in pairs], real)

    begin, end, rate = table(lambda b: b.R), table(lambda b: b.S), table(lambda b: 0.5 * math.pi / (b.S - b.R))
    A, B = table(lambda b: b.A), table(lambda b: b.B)
    lambda1, lambda2 = table(lambda b: -b.lambda1), table(lambda b: -b.lambda2)

    def fading(kind, r):
        if r <= begin[kind]:
            return one, zero
        angle = rate[kind] * max(end[kind] - r, zero)
        sine = sin(angle)
        return sine * sine, -two * rate[kind] * sine * cos(angle)

    def repulsion(kind, r):
        value = A[kind] * exp(lambda1[kind] * r)
        return value, lambda1[kind] * value

    def attraction(kind, r):
        value = B[kind] * exp(lambda2[kind] * r)
        return value, lambda2[kind] * value

    return Radial(
        kind=tools.jit(lambda s, t: index(index(s) * n_species + index(t))),
        fading=tools.jit(fading),
        repulsion=tools.jit(repulsion),
        attraction=tools.jit(attraction),
    )


def _angular_kernel(centers: Centers, tools: Tools) -> Any:
    """`angular(species, cosine)`: βg and its derivative with the cosine."""
    real, inverse, two = tools.real, tools.inverse, tools.real(2)

    def table(parameter: Callable[[Any], float]) -> np.ndarray:
        return np.array([parameter(center) for center in centers], real)

    beta, h, d2 = table(lambda x: x.beta), table(lambda x: x.h), table(lambda x: x.d**2)
    strength = table(lambda x: x.beta * (x.c / x.d) ** 2)

    def angular(species, cosine):
        x = cosine - h[species]
        over = inverse(d2[species] + x * x)
        share = strength[species] * over * x
        return beta[species] + share * x, two * share * d2[species] * over

    return tools.jit(angular)


def order_kernel(centers: Centers, tools: Tools, radial: Radial) -> Any:
    """∂E_i/∂ζ_ij = ¼ f B exp(-λ2 r) b (βζ)ⁿ / (βζ (1 + (βζ)ⁿ)) and b_ij for each neighbour j."""
    real, index, exp, log, rsqrt, inverse = tools.real, tools.index, tools.exp, tools.log, tools.rsqrt, tools.inverse
    n_near, neighbor, species = tools.n_near, tools.neighbor, tools.species
    kind, fading, attraction = radial.kind, radial.fading, radial.attraction
    angular, none, one_more, two_rows = _angular_kernel(centers, tools), index(0), index(1), index(2)
    zero, one, quarter, least = (real(x) for x in (0, 1, 0.25, _LEAST_ZETA))
    power = np.array([center.n for center in centers], real)
    outer_power = np.array([-0.5 / center.n for center in centers], real)

    def around(i, k, x, y, z, geometry, own):
        """βζ of neighbour number k, with the unit vector to it."""
        zeta = zero
        m, end = none, n_near(geometry, i)
        while m < end:
            if m != k:
                other, xm, ym, zm = neighbor(geometry, i, m)
                r2 = xm * xm + ym * ym + zm * zm
                over_r = rsqrt(r2)
                f, _ = fading(kind(own, species(geometry, other)), r2 * over_r)
                g, _ = angular(own, (x * xm + y * ym + z * zm) * over_r)
                zeta += f * g
            m = index(m + one_more)
        return zeta

    around = tools.jit(around)

    def orders(i, geometry, out):
        own = species(geometry, i)
        k, end = none, n_near(geometry, i)
        while k < end:
            j, x, y, z = neighbor(geometry, i, k)
            r2 = x * x + y * y + z * z
            over_r = rsqrt(r2)
            zeta = around(i, k, x * over_r, y * over_r, z * over_r, geometry, own)
            slope, b = zero, one
            if zeta > least:
                bond = kind(own, species(geometry, j))
                f, _ = fading(bond, r2 * over_r)
                value, _ = attraction(bond, r2 * over_r)
                t = exp(power[own] * log(zeta))
                b = exp(outer_power[own] * log(one + t))
                slope = quarter * f * value * b * t * inverse(zeta * (one + t))
            out[two_rows * k, i], out[two_rows * k + one_more, i] = slope, b
            k = index(k + one_more)

    return tools.jit(orders)


def _end_kernel(centers: Centers, tools: Tools, radial: Radial) -> Any:
    """`end(i, r, unit, over_r, f, df, geometry, m)`: ∂(E_i through all ζ)/∂r of the vector r from i, and its b.

    With u = r/r and P_k = ∂E_i/∂ζ_ik, over the other neighbours k of i

        Σ_k [g' (P f_k + P_k f) (u_k - u cos θ)/r + P_k f' g u]
    """
    real, index, rsqrt = tools.real, tools.index, tools.rsqrt
    n_near, neighbor, species, kind, fading = tools.n_near, tools.neighbor, tools.species, radial.kind, radial.fading
    angular, none, one_more, two_rows = _angular_kernel(centers, tools), index(0), index(1), index(2)
    zero, one, same = real(0), real(1), real(_SAME)

    def end(i, r, unit, over_r, f, df, geometry, moments):
        x, y, z = r
        ux, uy, uz = unit
        own = species(geometry, i)
        ax = ay = az = along_a = bx = by = bz = along_b = radial_sum = slope = zero
        b = one
        k, last = none, n_near(geometry, i)
        while k < last:
            j, xk, yk, zk = neighbor(geometry, i, k)
            dx, dy, dz = xk - x, yk - y, zk - z
            if dx * dx + dy * dy + dz * dz < same:
                slope, b = moments[two_rows * k, i], moments[two_rows * k + one_more, i]
            else:
                r2 = xk * xk + yk * yk + zk * zk
                over_rk = rsqrt(r2)
                fk, _ = fading(kind(own, species(geometry, j)), r2 * over_rk)
                xk *= over_rk
                yk *= over_rk
                zk *= over_rk
                cosine = ux * xk + uy * yk + uz * zk
                g, dg = angular(own, cosine)
                slope_k = moments[two_rows * k, i]
                radial_sum += slope_k * g
                wa, wb = fk * dg, slope_k * dg
                ax += wa * xk
                ay += wa * yk
                az += wa * zk
                along_a += wa * cosine
                bx += wb * xk
                by += wb * yk
                bz += wb * zk
                along_b += wb * cosine
            k = index(k + one_more)
        p, q = slope * over_r, f * over_r
        straight = df * radial_sum - p * along_a - q * along_b
        return p * ax + q * bx + straight * ux, p * ay + q * by + straight * uy, p * az + q * bz + straight * uz, b

    return tools.jit(end)


def force_kernel(centers: Centers, tools: Tools, radial: Radial) -> Any:
    """The second phase: forces, energy and virial."""
    real, index, rsqrt = tools.real, tools.index, tools.rsqrt
    n_near, neighbor, no_virial, add_virial = tools.n_near, tools.neighbor, tools.no_virial, tools.add_virial
    kind, fading, species = radial.kind, radial.fading, tools.species
    repulsion, attraction, end = radial.repulsion, radial.attraction, _end_kernel(centers, tools, radial)
    none, one_more, two_rows = index(0), index(1), index(2)
    zero, one, half, two = (real(x) for x in (0, 1, 0.5, 2))

    def forces(i, geometry, moments):
        own = species(geometry, i)
        fx = fy = fz = energy = zero
        virial = no_virial()
        k, last = none, n_near(geometry, i)
        while k < last:
            j, x, y, z = neighbor(geometry, i, k)
            r2 = x * x + y * y + z * z
            over_r = rsqrt(r2)
            r, ux, uy, uz = r2 * over_r, x * over_r, y * over_r, z * over_r
            bond = kind(own, species(geometry, j))
            f, df = fading(bond, r)
            push, dpush = repulsion(bond, r)
            pull, dpull = attraction(bond, r)
            gx = gy = gz = both = zero
            center, sign = index(i), one
            for _ in range(2):  # one place to call from: this is most of the compiled code
                vector, unit = (sign * x, sign * y, sign * z), (sign * ux, sign * uy, sign * uz)
                hx, hy, hz, b = end(center, vector, unit, over_r, f, df, geometry, moments)
                gx += sign * hx
                gy += sign * hy
                gz += sign * hz
                both += b
                center, sign = index(j), -one
            straight = half * (df * (two * push - both * pull) + f * (two * dpush - both * dpull))
            gx += straight * ux
            gy += straight * uy
            gz += straight * uz
            fx += gx
            fy += gy
            fz += gz
            energy += half * f * (push - moments[two_rows * k + one_more, i] * pull)
            virial = add_virial(virial, x, y, z, gx, gy, gz)
            k = index(k + one_more)
        return fx, fy, fz, energy, virial

    return tools.jit(forces)
