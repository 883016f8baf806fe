"""The Tersoff potential of several elements: J. Tersoff, Phys. Rev. B 39, 5566 (1989).

    E = Σ_i E_i,    E_i = ½ Σ_{j≠i} f(r_ij) [A exp(-λ1 r_ij) - b_ij B exp(-λ2 r_ij)]
    b_ij = (1 + βⁿ ζ_ijⁿ)^(-1/2n),    ζ_ij = Σ_{k≠i,j} f(r_ik) g(θ_jik)
    g(θ) = 1 + c²/d² - c²/(d² + (h - cos θ)²)
    f(r) = ½ - ½ sin(π/2 (2r - S - R)/(S - R)) from R to S, 1 before and 0 after

n, β, c, d and h are those of the element of i, all else belongs to the two elements of a bond. Here are the parameters;
the formulas are in `tersoff_kernels`.
"""

import math
from dataclasses import dataclass
from typing import Any

from amden.simulate.potentials.potential import Tools
from amden.simulate.potentials.tersoff_kernels import force_kernel, order_kernel, radial_kernels


@dataclass(frozen=True)
class TersoffCenter:
    """How an element weighs the neighbours around one of its bonds; letters of the equations above."""

    n: float
    beta: float
    c: float
    d: float
    h: float
    """Cosine of the angle that weakens a bond least."""


@dataclass(frozen=True)
class TersoffBond:
    """The radial functions of two elements; letters of the equations above."""

    A: float
    """eV."""
    B: float
    """eV."""
    lambda1: float
    """1/Å."""
    lambda2: float
    """1/Å."""
    R: float
    """Å, where f begins to fall."""
    S: float
    """Å, where f has fallen to 0."""


@dataclass(frozen=True)
class Tersoff:
    """Parameters of a Tersoff potential with λ3 = 0; `munetoh_silica` makes those of Si-O.

    >>> silica = munetoh_silica()
    >>> silica.symbols, silica.cutoff, round(silica.cutoffs[0][1], 4)
    (('Si', 'O'), 2.8, 2.3664)
    """

    symbols: tuple[str, ...]
    """The elements; species number k is `symbols[k]`."""
    centers: tuple[TersoffCenter, ...]
    """One for each element."""
    bonds: tuple[TersoffBond, ...]
    """One for each pair of elements: 0-0, 0-1, …, 1-1, …"""
    most_near: int = 11
    """See `Potential.most_near`. Random starts of silica have up to 9, its melts at 3500 K up to 7."""

    def __post_init__(self) -> None:
        n = len(self.symbols)
        if n < 1 or len(self.centers) != n or len(self.bonds) != n * (n + 1) // 2:
            raise ValueError(
                f"{n} `symbols` need {n} `centers` and {n * (n + 1) // 2} `bonds`, "
                f"got {len(self.centers)} and {len(self.bonds)}"
            )
        for bond in self.bonds:
            if not 0.0 < bond.R < bond.S:
                raise ValueError(f"`R` and `S` of a bond must be positive and ascending, got {bond.R} and {bond.S}")
        for center in self.centers:
            if not (center.n > 0.0 and center.beta > 0.0 and center.d != 0.0):
                raise ValueError(f"`n` and `beta` of a centre must be positive and `d` not 0, got {center}")

    @property
    def pairs(self) -> tuple[TersoffBond, ...]:
        """The bond of species s and t as number s · n + t of n² ones."""
        n = len(self.symbols)
        corner = [min(s, t) * n - min(s, t) * (min(s, t) + 1) // 2 + max(s, t) for s in range(n) for t in range(n)]
        return tuple(self.bonds[k] for k in corner)

    @property
    def cutoffs(self) -> tuple[tuple[float, ...], ...]:
        """S of each pair of species, in Å."""
        n = len(self.symbols)
        reaches = [bond.S for bond in self.pairs]
        return tuple(tuple(reaches[s * n : (s + 1) * n]) for s in range(n))

    @property
    def cutoff(self) -> float:
        """The longest S, in Å."""
        return max(bond.S for bond in self.bonds)

    @property
    def n_moments(self) -> int:
        """None: all belong to neighbours."""
        return 0

    @property
    def n_neighbor_moments(self) -> int:
        """Two: ∂E_i/∂ζ_ij in row 2k and b_ij in row 2k + 1 for neighbour number k."""
        return 2

    def phases(self, tools: Tools) -> tuple[Any, Any]:
        """Bond orders, then forces, energy and virial (see `Potential.phases`)."""
        radial = radial_kernels(self.pairs, tools)
        return order_kernel(self.centers, tools, radial), force_kernel(self.centers, tools, radial)


def munetoh_silica() -> Tersoff:
    """Si-O by S. Munetoh, T. Motooka, K. Moriguchi, A. Shintani, Comput. Mater. Sci. 39, 334 (2007), table 1.

    A, B, R and S of Si-O are the exact geometric means, B times χ = 1.17945. λ2 of Si-O has the six figures that
    LAMMPS distributes, the arithmetic mean cut off; λ1 is the arithmetic mean.
    """
    silicon = TersoffBond(A=1830.8, B=471.18, lambda1=2.4799, lambda2=1.73222, R=2.5, S=2.8)
    oxygen = TersoffBond(A=1882.55, B=218.787, lambda1=4.17108, lambda2=2.35692, R=1.7, S=2.0)
    mixed = TersoffBond(
        A=math.sqrt(silicon.A * oxygen.A),
        B=1.17945 * math.sqrt(silicon.B * oxygen.B),
        lambda1=3.32549,
        lambda2=2.04456,
        R=math.sqrt(silicon.R * oxygen.R),
        S=math.sqrt(silicon.S * oxygen.S),
    )
    return Tersoff(
        symbols=("Si", "O"),
        centers=(
            TersoffCenter(n=0.78734, beta=1.1e-6, c=1.0039e5, d=16.217, h=-0.59825),
            TersoffCenter(n=1.04968, beta=1.1632e-7, c=6.46921e4, d=4.11127, h=-0.845922),
        ),
        bonds=(silicon, mixed, oxygen),
    )
