"""The BMP-shrm potential of oxide glasses: M. Bertani, M. C. Menziani and A. Pedone, Phys. Rev. Materials 5, 045602.

    E = Coulomb of fixed partial charges, by a damped shifted force to 12 Å, all images
      + Σ_{X-O, O-O} D [(1 - exp(-α(r - r0)))² - 1] + B/r¹²                       to 7 Å
      + Σ_{Si, Al, P} A exp(-r/ρ)                                                  to 7 Å
      + Σ_{Si-O-Si, P-O-P, Si-O-P} K exp(-(r1 + r2)/ρ) (θ - θ0)²                   legs to 3.3 (Si) and 2.0 Å (P)

None but the first is shifted at its cutoff. `bmp_shrm` makes it of the published tables (`bmp_parameters`); the first
three terms are the `PairSums` of `pair_sums`, the last is in `bmp_kernels`.
"""

import math
from dataclasses import dataclass
from typing import Any

from amden.simulate.potentials import bmp_kernels as kernels
from amden.simulate.potentials import bmp_parameters as published
from amden.simulate.potentials.pair_sums import Contact, PairSums
from amden.simulate.potentials.potential import Potential, Tools


@dataclass(frozen=True)
class ScreenedAngles:
    """The three-body term alone, a potential of few neighbours; letters of the equations in `bmp_kernels`."""

    symbols: tuple[str, ...]
    """The elements; species number k is `symbols[k]`."""
    cutoffs: tuple[tuple[float, ...], ...]
    """Å, of each pair of species, in whichever is the centre; 0 where there are no such legs."""
    strengths: tuple[float, ...]
    """K in eV of the centre, one end and the other, as number (s · n + t) · n + u of n³ ones."""
    theta0: float
    """Degrees."""
    rho: float
    """Å."""
    most_near: int = 15
    """See `Potential.most_near`. Silicon in a melt at 6000 K has up to 8 oxygens within its legs."""

    @property
    def cutoff(self) -> float:
        """The longest leg, in Å."""
        return max(map(max, self.cutoffs))

    @property
    def n_moments(self) -> int:
        """None."""
        return 0

    @property
    def n_neighbor_moments(self) -> int:
        """None."""
        return 0

    def phases(self, tools: Tools) -> tuple[Any, Any]:
        """Nothing, then forces, energy and virial (see `Potential.phases`)."""
        return tools.jit(_nothing), kernels.angle_forces(self, tools, kernels.all_neighbors(tools))


def _nothing(i, geometry, moments):
    pass


@dataclass(frozen=True)
class ChargedNetwork:
    """Charges, contacts and angles together; `bmp_shrm` makes BMP-shrm.

    >>> glass = bmp_shrm()
    >>> glass.cutoff, glass.symbols[:3], glass.bonded.cutoff
    (12.0, ('Si', 'O', 'P'), 3.3)
    """

    angles: ScreenedAngles
    """The three-body term."""
    pair_sums: PairSums
    """All else."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The elements; species number k is `symbols[k]`."""
        return self.angles.symbols

    @property
    def bonded(self) -> Potential:
        """The part that is no sum over pairs."""
        return self.angles

    @property
    def cutoff(self) -> float:
        """That of the Coulomb term, in Å."""
        return self.pair_sums.cutoff

    @property
    def cutoffs(self) -> tuple[tuple[float, ...], ...]:
        """The same for all."""
        n = len(self.symbols)
        return ((self.cutoff,) * n,) * n

    @property
    def most_near(self) -> int:
        """Those of 0.1 atoms an Å³."""
        return math.ceil(0.1 * 4.0 / 3.0 * math.pi * self.cutoff**3)

    @property
    def n_moments(self) -> int:
        """One, the number of legs."""
        return 1

    @property
    def n_neighbor_moments(self) -> int:
        """One: row k + 1 holds which neighbour the k-th leg is."""
        return 1

    def phases(self, tools: Tools) -> tuple[Any, Any]:
        """Legs, then forces, energy and virial (see `Potential.phases`)."""
        return kernels.leg_kernel(self.angles, tools), kernels.all_forces(self.angles, self.pair_sums, tools)

    def short_phases(self, tools: Tools) -> tuple[Any, Any]:
        """The same without the charges (see `LongRanged.short_phases`)."""
        return kernels.leg_kernel(self.angles, tools), kernels.short_forces(self.angles, self.pair_sums, tools)


def bmp_shrm() -> ChargedNetwork:
    """BMP-shrm of Si, O, P, Al, Li, Be, K, Ca, Ti, Ba and Zn."""
    symbols = tuple(published.CHARGES)
    legs = published.LEGS_AT_OXYGEN
    cutoffs = tuple(
        tuple(legs.get(t, 0.0) if s == "O" else legs.get(s, 0.0) if t == "O" else 0.0 for t in symbols) for s in symbols
    )
    angles = published.ANGLES_AT_OXYGEN
    return ChargedNetwork(
        angles=ScreenedAngles(
            symbols=symbols,
            cutoffs=cutoffs,
            strengths=tuple(
                angles.get((t, u), angles.get((u, t), 0.0)) if s == "O" else 0.0
                for s in symbols
                for t in symbols
                for u in symbols
            ),
            theta0=published.THETA0,
            rho=published.RHO,
        ),
        pair_sums=PairSums(
            charges=tuple(published.CHARGES.values()),
            contacts=tuple(_contact(s, t) for s in symbols for t in symbols),
            damping=published.DAMPING,
            cutoff=published.COULOMB_CUTOFF,
            contact_cutoff=published.CONTACT_CUTOFF,
        ),
    )


def _contact(s: str, t: str) -> Contact:
    if "O" in (s, t):
        D, alpha, r0, B = published.MORSE_WITH_OXYGEN[t if s == "O" else s]
        return Contact(a=alpha, P=D * math.exp(2.0 * alpha * r0), Q=-2.0 * D * math.exp(alpha * r0), B=B)
    A, rho = published.BUCKINGHAM.get((s, t), published.BUCKINGHAM.get((t, s), (0.0, 1.0)))
    return Contact(a=1.0 / rho, Q=A) if A > 0.0 else Contact()
