"""The Stillinger-Weber potential: F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985).

    E = Σ_{i<j} φ(r_ij) + Σ_i Σ_{j<k} ε λ (cos θ_jik - cos θ0)² f(r_ij) f(r_ik)
    φ(r) = ε A [B (σ/r)^p - (σ/r)^q] exp(σ / (r - aσ)),    f(r) = exp(γσ / (r - aσ)),    both 0 from r = aσ on

The sum over triplets is a sum over moments of the neighbours of each atom, so its cost is linear in them. With
u = r/r, V = Σ f u, T = Σ f u ⊗ u, S = Σ f = tr T and c = -cos θ0

    Σ_{j<k} (cos θ_jik + c)² f_j f_k = ½ [T : T + 2c V·V + c² S² - (1 + c)² Σ f²]
"""

from dataclasses import dataclass
from typing import Any

from amden.simulate.potentials.potential import Tools

_MOMENTS = 9
"""Txx, Tyy, Tzz, Tyz, Txz, Txy, Vx, Vy, Vz."""

_NEAREST_GAP = 0.01
"""|r - aσ|/σ is kept above this, where both exponentials are below exp(-100): no division by zero at the cutoff."""


@dataclass(frozen=True)
class StillingerWeber:
    """Parameters of the Stillinger-Weber potential of one element; the default is silicon.

    ======== ============== ======== ==============
    symbol   variable       symbol   variable
    ======== ============== ======== ==============
    ε        eps            cos θ0   cos_theta0
    σ        sigma          A        A
    a        a              B        B
    λ        lam            p        p
    γ        gamma          q        q
    ======== ============== ======== ==============

    >>> round(StillingerWeber().cutoff, 5)
    3.77118
    """

    eps: float = 2.1683
    """Energy unit in eV."""
    sigma: float = 2.0951
    """Length unit in Å."""
    a: float = 1.80
    """Cutoff in units of σ."""
    lam: float = 21.0
    """Strength of the three-body term in units of ε."""
    gamma: float = 1.20
    """Range of the three-body term."""
    cos_theta0: float = -1.0 / 3.0
    """Cosine of the angle that costs nothing."""
    A: float = 7.049556277
    """Strength of the pair term in units of ε."""
    B: float = 0.6022245584
    """Repulsion relative to attraction."""
    p: int = 4
    """Exponent of the repulsion."""
    q: int = 0
    """Exponent of the attraction."""
    symbol: str = "Si"
    """The element."""

    def __post_init__(self) -> None:
        for name in ("sigma", "a"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        for name in ("p", "q"):
            if getattr(self, name) != int(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be a whole number, not negative, got {getattr(self, name)}")

    @property
    def symbols(self) -> tuple[str, ...]:
        """The one element, as species 0."""
        return (self.symbol,)

    @property
    def cutoff(self) -> float:
        """a σ, in Å."""
        return self.a * self.sigma

    @property
    def cutoffs(self) -> tuple[tuple[float, ...], ...]:
        """The one of the one species."""
        return ((self.cutoff,),)

    @property
    def most_near(self) -> int:
        """Twice the neighbours of the melt."""
        return 31

    @property
    def n_neighbor_moments(self) -> int:
        """None."""
        return 0

    @property
    def n_moments(self) -> int:
        """Nine: the symmetric tensor T and the vector V; S is the trace of T."""
        return _MOMENTS

    def phases(self, tools: Tools) -> tuple[Any, Any]:
        """The moments of each atom, then forces, energy and virial (see `Potential.phases`)."""
        return _moment_kernel(self, tools), _force_kernel(self, tools)


def _moment_kernel(sw: StillingerWeber, tools: Tools) -> Any:
    real, exp, rsqrt, inverse = tools.real, tools.exp, tools.rsqrt, tools.inverse
    n_near, neighbor, index = tools.n_near, tools.neighbor, tools.index
    none, one = index(0), index(1)
    zero, reach, gap_max, gamma_sigma = (real(x) for x in (0, sw.cutoff, -_NEAREST_GAP * sw.sigma, sw.gamma * sw.sigma))

    def moments(i, geometry, out):
        txx = tyy = tzz = tyz = txz = txy = vx = vy = vz = zero
        k, end = none, n_near(geometry, i)
        while k < end:
            _, x, y, z = neighbor(geometry, i, k)
            k = index(k + one)
            r2 = x * x + y * y + z * z
            over_r = rsqrt(r2)
            x *= over_r
            y *= over_r
            z *= over_r
            f = exp(gamma_sigma * inverse(min(r2 * over_r - reach, gap_max)))
            fx, fy, fz = f * x, f * y, f * z
            vx += fx
            vy += fy
            vz += fz
            txx += fx * x
            tyy += fy * y
            tzz += fz * z
            tyz += fy * z
            txz += fx * z
            txy += fx * y
        out[0, i], out[1, i], out[2, i] = txx, tyy, tzz
        out[3, i], out[4, i], out[5, i] = tyz, txz, txy
        out[6, i], out[7, i], out[8, i] = vx, vy, vz

    return tools.jit(moments)


def _power(exponent: int, tools: Tools) -> Any:
    one = tools.real(1)

    def power(x):
        result = one
        for _ in range(exponent):
            result *= x
        return result

    return tools.jit(power)


def _radial_kernel(sw: StillingerWeber, tools: Tools) -> Any:
    """f, f', φ, φ' at a distance, given r and 1/r."""
    real, exp, inverse = tools.real, tools.exp, tools.inverse
    reach, gap_max, sigma, gamma = (real(x) for x in (sw.cutoff, -_NEAREST_GAP * sw.sigma, sw.sigma, sw.gamma))
    depth, b, p, q = (real(x) for x in (sw.eps * sw.A, sw.B, sw.p, sw.q))
    power_p, power_q = _power(int(sw.p), tools), _power(int(sw.q), tools)

    def radial(r, over_r):
        over_gap = inverse(min(r - reach, gap_max))
        steep = sigma * over_gap
        slope = -steep * over_gap
        f = exp(gamma * steep)
        envelope = depth * exp(steep)
        repulsion = b * power_p(sigma * over_r)
        attraction = power_q(sigma * over_r)
        phi = envelope * (repulsion - attraction)
        dphi = phi * slope - envelope * over_r * (p * repulsion - q * attraction)
        return f, gamma * slope * f, phi, dphi

    return tools.jit(radial)


def _force_kernel(sw: StillingerWeber, tools: Tools) -> Any:
    """With T = T_i + T_j, V = V_i - V_j, S = S_i + S_j the energy changes with the vector r u from i to j by

    ∂E/∂r = φ' u + ελ f' [u·T·u + 2c V·u + c² S - 2(1 + c)² f] u + 2ελ f/r [T·u + cV - u (u·T·u + c V·u)].
    """
    real, rsqrt = tools.real, tools.rsqrt
    n_near, neighbor, no_virial, add_virial = tools.n_near, tools.neighbor, tools.no_virial, tools.add_virial
    radial, index = _radial_kernel(sw, tools), tools.index
    none, one = index(0), index(1)
    cosine = -sw.cos_theta0
    zero, half, two, c, c2, self_term, strength = (
        real(x) for x in (0, 0.5, 2, cosine, cosine**2, (1 + cosine) ** 2, sw.eps * sw.lam)
    )

    def forces(i, geometry, m):
        txx, tyy, tzz, tyz, txz, txy = m[0, i], m[1, i], m[2, i], m[3, i], m[4, i], m[5, i]
        vx, vy, vz = m[6, i], m[7, i], m[8, i]
        fx = fy = fz = pair = f_squared = zero
        virial = no_virial()
        k, end = none, n_near(geometry, i)
        while k < end:
            j, x, y, z = neighbor(geometry, i, k)
            k = index(k + one)
            r2 = x * x + y * y + z * z
            over_r = rsqrt(r2)
            f, df, phi, dphi = radial(r2 * over_r, over_r)
            ux, uy, uz = x * over_r, y * over_r, z * over_r
            sxx, syy, szz = txx + m[0, j], tyy + m[1, j], tzz + m[2, j]
            syz, sxz, sxy = tyz + m[3, j], txz + m[4, j], txy + m[5, j]
            wx, wy, wz = c * (vx - m[6, j]), c * (vy - m[7, j]), c * (vz - m[8, j])
            ax = sxx * ux + sxy * uy + sxz * uz
            ay = sxy * ux + syy * uy + syz * uz
            az = sxz * ux + syz * uy + szz * uz
            a_u = ax * ux + ay * uy + az * uz
            w_u = wx * ux + wy * uy + wz * uz
            along = a_u + two * w_u + c2 * (sxx + syy + szz) - two * self_term * f
            across = two * strength * f * over_r
            radial_part = dphi + strength * df * along - across * (a_u + w_u)
            gx = radial_part * ux + across * (ax + wx)
            gy = radial_part * uy + across * (ay + wy)
            gz = radial_part * uz + across * (az + wz)
            fx += gx
            fy += gy
            fz += gz
            pair += phi
            f_squared += f * f
            virial = add_virial(virial, x, y, z, gx, gy, gz)
        trace = txx + tyy + tzz
        squares = txx * txx + tyy * tyy + tzz * tzz + two * (tyz * tyz + txz * txz + txy * txy)
        triplets = squares + two * c * (vx * vx + vy * vy + vz * vz) + c2 * trace * trace - self_term * f_squared
        return fx, fy, fz, half * (pair + strength * triplets), virial

    return tools.jit(forces)
