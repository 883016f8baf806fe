"""Partial structure factors in the convention of Faber and Ziman, and what neutrons or X-rays see of them.

S_ab → 1 for large q and for an ideal gas: Faber and Ziman, Philos. Mag. 11, 153 (1965). How they are computed from
structures is in `scattering`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from amden.elements import atomic_number, form_factor, scattering_length

RADIATIONS: Final = ("neutron", "x-ray", "atoms")
"""What is scattered: neutrons by nuclei, X-rays by electrons; `atoms` counts all atoms alike."""


@dataclass(frozen=True)
class StructureFactor:
    """Structure factors of every system of a set.

    total: S(q) = Σ_ab w_ab S_ab,  w_ab = c_a c_b f_a f_b / (Σ_a c_a f_a)²

    ===== =====================================================================================================
    c_a   concentration of element a
    f_a   1, the scattering length of the nucleus, or the form factor of the neutral atom at the middle of the bin
    S_ab  Faber-Ziman partial
    ===== =====================================================================================================

    The weights add up to 1. The total is (I/N - <f²> + <f>²) / <f>² of the scattered intensity I: not the I/N<f²> that
    some use, which has the same peaks with other heights.
    """

    q: Float[np.ndarray, " bins"]
    """Centres of the bins in 1/Å."""
    partials: Mapping[str, Float[np.ndarray, "systems bins"]]
    """S_ab by pair, as `"O-Si"`, lighter element first; NaN for a system without the pair or without vectors there."""
    concentrations: Mapping[str, Float[np.ndarray, " systems"]]
    """Fraction of the atoms that are of each element."""
    n_vectors: Int[np.ndarray, "systems bins"]
    """Reciprocal lattice vectors (of q and -q one) that the bin is a mean of; 0 throughout for transforms of g(r)."""
    method: str
    """How it was computed, in words."""

    def weights(self, radiation: str = "neutron") -> dict[str, Float[np.ndarray, "systems bins"]]:
        """w_ab of each pair; a pair of two elements counts for both orders, so that all add up to 1.

        Errors: `ValueError` for an unknown radiation, or an element that has no tabulated factor.
        """
        f = {name: c[:, None] * _factor(name, radiation, self.q) for name, c in self.concentrations.items()}
        mean = np.sum(list(f.values()), axis=0)
        pairs = (pair.partition("-")[::2] for pair in self.partials)
        return {f"{a}-{b}": (1.0 + (a != b)) * f[a] * f[b] / mean**2 for a, b in pairs}

    def total(self, radiation: str = "neutron") -> Float[np.ndarray, "systems bins"]:
        """S(q) of each system; NaN where a system has no vectors."""
        weights = self.weights(radiation)
        there = {pair: np.any(np.isfinite(s), axis=1, keepdims=True) for pair, s in self.partials.items()}
        terms = [np.where(there[pair], weights[pair] * s, 0.0) for pair, s in self.partials.items()]
        return np.sum(terms, axis=0)

    def mean(self, radiation: str = "neutron") -> Float[np.ndarray, " bins"]:
        """S(q), mean over the systems that have vectors there; NaN where none has."""
        return _mean(self.total(radiation))

    def partial_means(self) -> dict[str, Float[np.ndarray, " bins"]]:
        """S_ab, mean over the systems that have the pair and vectors there."""
        return {pair: _mean(s) for pair, s in self.partials.items()}

    def complete(
        self, radiation: str = "neutron"
    ) -> tuple[Float[np.ndarray, " some"], Float[np.ndarray, "systems some"]]:
        """q and S(q) of each system without gaps: from the first bin that all have reached to the last that all have.

        Bins that fall between the shells of vectors of a cell are interpolated linearly.
        """
        return self._without_gaps(self.total(radiation))

    def complete_partial(self, pair: str) -> tuple[Float[np.ndarray, " some"], Float[np.ndarray, "systems some"]]:
        """The same of a partial; systems without the pair stay NaN."""
        values = self.partials[pair]
        there = np.isfinite(values).any(axis=1)
        q, found = self._without_gaps(values[there])
        filled = np.full((len(values), len(q)), np.nan)
        filled[there] = found
        return q, filled

    def _without_gaps(
        self, values: Float[np.ndarray, "some bins"]
    ) -> tuple[Float[np.ndarray, " reached"], Float[np.ndarray, "some reached"]]:
        known = np.isfinite(values)
        first, last = known.argmax(axis=1).max(), len(self.q) - 1 - known[:, ::-1].argmax(axis=1).max()
        q = self.q[first : last + 1]
        return q, np.stack([np.interp(q, self.q[k], s[k]) for k, s in zip(known, values, strict=True)])

    def smoothed(self, width: float = 0.1) -> "StructureFactor":
        """The same with each partial of each system averaged over q by a Gaussian of standard deviation `width` (1/Å).

        Each vector weighs the same, so that bins with few of them take the values of their neighbours. Bins more than
        three widths from any vector stay NaN. Small cells need it: their peaks are of a few vectors.

        Errors: `ValueError` if `width` is not positive.
        """
        if not width > 0:
            raise ValueError(f"`width` must be positive, got {width}")
        distance = (self.q[:, None] - self.q[None, :]) / width
        gauss = np.where(np.abs(distance) <= 3.0, np.exp(-0.5 * distance**2), 0.0)
        partials = {}
        for pair, s in self.partials.items():
            weight = np.where(np.isfinite(s), np.maximum(self.n_vectors, 1), 0)
            total = weight @ gauss
            means = (weight * np.nan_to_num(s)) @ gauss / np.where(total > 0, total, 1.0)
            partials[pair] = np.where(total > 0, means, np.nan)
        return replace(self, partials=partials, method=f"{self.method}; smoothed over {width:g} 1/Å")

    def ashcroft_langreth(self) -> dict[str, Float[np.ndarray, "systems bins"]]:
        """The partials in the other convention, δ_ab + √(c_a c_b) (S_ab - 1) (Phys. Rev. 156, 685 (1967))."""
        c = self.concentrations
        pairs = ((pair, *pair.partition("-")[::2]) for pair in self.partials)
        return {pair: (a == b) + np.sqrt(c[a] * c[b])[:, None] * (self.partials[pair] - 1.0) for pair, a, b in pairs}

    def peak(self, radiation: str = "neutron", *, between: tuple[float, float] = (1.0, 2.3)) -> float:
        """Position in 1/Å of the maximum of the mean S(q) in a range, by a parabola through the highest bin
        and its neighbours, where those are known.

        The default range is that of the first sharp diffraction peak of oxide glasses.

        Errors: `ValueError` if no bin in the range is known.
        """
        mean = self.mean(radiation)
        chosen = np.flatnonzero(np.isfinite(mean) & (self.q >= between[0]) & (self.q <= between[1]))
        if len(chosen) == 0:
            raise ValueError(f"`between` has no known S(q) from {between[0]} to {between[1]} 1/Å")
        top = int(chosen[np.argmax(mean[chosen])])
        if top - 1 not in chosen or top + 1 not in chosen:
            return float(self.q[top])
        low, high, width = mean[top - 1], mean[top + 1], self.q[top] - self.q[top - 1]
        bend = low + high - 2.0 * mean[top]
        return float(self.q[top] + (0.5 * width * (low - high) / bend if bend < 0 else 0.0))

    def rows(self, radiations: tuple[str, ...] = ("neutron", "x-ray")) -> list[dict[str, float | None]]:
        """One dictionary a bin of plain numbers, means over the systems; None where no system has vectors."""
        columns = {"q": self.q} | {r: self.mean(r) for r in radiations} | self.partial_means()
        return [
            {name: float(v) if np.isfinite(v) else None for name, v in zip(columns, row, strict=True)}
            for row in zip(*columns.values(), strict=True)
        ]


def _factor(name: str, radiation: str, q: np.ndarray) -> Float[np.ndarray, "*bins"]:
    if radiation == "neutron":
        return np.full(len(q), scattering_length(atomic_number(name)))
    if radiation == "x-ray":
        return form_factor(atomic_number(name), q)
    if radiation == "atoms":
        return np.ones(len(q))
    raise ValueError(f"unknown `radiation` {radiation!r}: expected one of {', '.join(RADIATIONS)}")


def _mean(values: Float[np.ndarray, "systems bins"]) -> Float[np.ndarray, " bins"]:
    known = np.isfinite(values)
    n = known.sum(axis=0)
    return np.where(n > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
