"""Sums over pairs that reach far: charges, and a short contact term, as data and as compiled functions of a distance.

    E = Σ_{i<j} [q_i q_j v(r_ij) + c(r_ij)] - ½ k (e + 2α/√π) Σ_i q_i²
    v(r) = k [erfc(αr)/r + f r - e],    f = erfc(αR)/R² + 2α/√π exp(-α²R²)/R,    e = erfc(αR)/R + f R,    r < R
    c(r) = P exp(-2ar) + Q exp(-ar) + B/r¹²,    r < R_c, where it is cut off and not shifted

v is the damped shifted force of C. J. Fennell and J. D. Gezelter, J. Chem. Phys. 124, 234104 (2006), k = e²/4πε0, with
the term of each ion alone as in LAMMPS (`pair_style coul/dsf`).

What damping takes away is smooth in x = (αr)², so no error function is needed, only two polynomials in r²:

    erf(αr)/r = α g(x),    g(x) = 2/√π ∫₀¹ exp(-xt²) dt,    -g'(x) = ½ h(x),    h(x) = 4/√π ∫₀¹ t² exp(-xt²) dt
    -v'(r)/r = k [(1/r² - f)/r - α³ h(x)]
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from amden.simulate.potentials.potential import Potential, Tools

COULOMB: Final = 14.399645
"""k in eV Å: the six decimals of LAMMPS' metal units."""

_DEGREES: Final = {np.float32: 9, float: 19}
"""Of the polynomials, where α²R² is about 6: they are as good as the numbers are."""
_NODES: Final = 64
_LONG: Final = 10
"""Coefficients, as many as in float32 there are."""
_AT_ONCE: Final = 4
"""Coefficients in one compiled function: few functions are compiled sooner, and a long one is no faster."""


@dataclass(frozen=True)
class Contact:
    """c(r) of a pair of species; letters of the equations above. All zero: none."""

    a: float = 0.0
    """1/Å."""
    P: float = 0.0
    """eV."""
    Q: float = 0.0
    """eV."""
    B: float = 0.0
    """eV Å¹²."""

    @property
    def empty(self) -> bool:
        """Whether the pair has no such term."""
        return self.P == self.Q == self.B == 0.0


@dataclass(frozen=True)
class PairSums:
    """The charges and contacts of a potential."""

    charges: tuple[float, ...]
    """e, of each species."""
    contacts: tuple[Contact, ...]
    """Of species s and t as number s · n + t of n² ones."""
    damping: float
    """α, 1/Å."""
    cutoff: float
    """R, Å."""
    contact_cutoff: float
    """R_c, Å."""

    @property
    def edge(self) -> tuple[float, float]:
        """f (1/Å²) and e (1/Å)."""
        at_edge = math.erfc(self.damping * self.cutoff) / self.cutoff
        bell = 2.0 * self.damping / math.sqrt(math.pi) * math.exp(-((self.damping * self.cutoff) ** 2))
        f = (at_edge + bell) / self.cutoff
        return f, at_edge + f * self.cutoff

    @property
    def self_energies(self) -> tuple[float, ...]:
        """eV of an ion of each species, from the term without pairs."""
        share = 0.5 * COULOMB * (self.edge[1] + 2.0 * self.damping / math.sqrt(math.pi))
        return tuple(-share * charge**2 for charge in self.charges)

    @property
    def contact_cutoffs(self) -> tuple[tuple[float, ...], ...]:
        """R_c of each pair of species, 0 where there is no contact term."""
        n, reach = len(self.charges), self.contact_cutoff
        return tuple(
            tuple(0.0 if contact.empty else reach for contact in self.contacts[s * n : (s + 1) * n]) for s in range(n)
        )

    @property
    def contact_table(self) -> Float64[np.ndarray, "4 pairs"]:
        """a, P, Q and B of each pair of species."""
        return np.array([[c.a, c.P, c.Q, c.B] for c in self.contacts]).T


@runtime_checkable
class LongRanged(Potential, Protocol):
    """A potential whose larger part is `PairSums`, so that the engine can sum them apart, over lists of their own."""

    @property
    def bonded(self) -> Potential:
        """The rest, of few neighbours and the same species."""
        ...

    @property
    def pair_sums(self) -> PairSums:
        """The larger part."""
        ...

    def short_phases(self, tools: Tools) -> tuple[Any, Any]:
        """`phases` of all but the charges, for which neighbours within `PairSums.contact_cutoffs` are enough."""
        ...


def image_cutoff(potential: Potential) -> float:
    """Å: an atom of the engine may meet only the nearest image of another within this distance.

    >>> from amden.simulate.potentials import StillingerWeber, bmp_shrm
    >>> round(image_cutoff(StillingerWeber()), 3), image_cutoff(bmp_shrm())
    (3.771, 7.0)
    """
    if not isinstance(potential, LongRanged):
        return potential.cutoff
    sums = potential.pair_sums
    return max(potential.bonded.cutoff, sums.contact_cutoff, 0.5 * sums.cutoff)


def polynomial(coefficients: Sequence[float], tools: Tools) -> Any:
    """The compiled polynomial with these coefficients, the constant first.

    A long one is that of even powers plus t times that of odd ones, in t²: neither waits for the other.
    """
    if len(coefficients) > _LONG:
        even, odd = polynomial(coefficients[::2], tools), polynomial(coefficients[1::2], tools)
        return tools.jit(lambda t: odd(t * t) * t + even(t * t))

    def one_more(rest, a):
        return tools.jit(lambda t: rest(t) * t + a)

    def four_more(rest, a, b, c, d):
        return tools.jit(lambda t: (((rest(t) * t + a) * t + b) * t + c) * t + d)

    first, *numbers = [tools.real(c) for c in reversed(coefficients)]
    result = tools.jit(lambda t: first)
    for number in numbers[: len(numbers) % _AT_ONCE]:
        result = one_more(result, number)
    for k in range(len(numbers) % _AT_ONCE, len(numbers), _AT_ONCE):
        result = four_more(result, *numbers[k : k + _AT_ONCE])
    return result


def _smooth_part(power: int, sums: PairSums, tools: Tools, *, factor: float, constant: float = 0.0) -> Any:
    """`constant` + `factor` 2^(1 + power/2)/√π ∫₀¹ t^power exp(-xt²) dt for `power` 0 and 2, a function of r²."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    t, weights = 0.5 * (nodes + 1.0), 0.5 * weights * 2.0 ** (1 + power // 2) / math.sqrt(math.pi)
    widest = (sums.damping * sums.cutoff) ** 2

    chebyshev, degree = np.polynomial.chebyshev, _DEGREES[tools.real]
    points = chebyshev.chebpts1(degree + 1)
    values = constant + factor * (np.exp(-0.5 * widest * np.multiply.outer(points + 1.0, t**2)) @ (weights * t**power))
    coefficients = chebyshev.cheb2poly(chebyshev.chebfit(points, values, degree))
    series = polynomial(coefficients.tolist(), tools)
    one, scale = tools.real(1), tools.real(2.0 / sums.cutoff**2)
    return tools.jit(lambda r2: series(r2 * scale - one))


def coulomb_kernels(sums: PairSums, tools: Tools) -> tuple[Any, Any]:
    """`push(r2, over_r)`, -v'(r)/kr, and `value(r2, over_r)`, v(r)/k, of unit charges below the cutoff."""
    f, e = sums.edge
    smooth = _smooth_part(0, sums, tools, factor=-sums.damping, constant=-e)
    smooth_push = _smooth_part(2, sums, tools, factor=-(sums.damping**3))
    edge, one = tools.real(f), tools.real(1)

    def push(r2, over_r):
        return over_r * (over_r * over_r - edge) + smooth_push(r2)

    def value(r2, over_r):
        return over_r * (edge * r2 + one) + smooth(r2)

    return tools.jit(push), tools.jit(value)


def contact_kernel(tools: Tools) -> Callable[..., Any]:
    """`contact(a, P, Q, B, r2, over_r)`: c(r) and -c'(r)/r below the cutoff."""
    exp, two, twelve = tools.exp, tools.real(2), tools.real(12)

    def contact(a, P, Q, B, r2, over_r):
        decay = exp(-a * r2 * over_r)
        over_r2 = over_r * over_r
        over_r6 = over_r2 * over_r2 * over_r2
        wall = B * over_r6 * over_r6
        attraction, repulsion = Q * decay, P * decay * decay
        push = a * over_r * (two * repulsion + attraction) + twelve * wall * over_r2
        return repulsion + attraction + wall, push

    return tools.jit(contact)
