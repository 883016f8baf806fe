"""Does a model give back what it was trained on, and does it always give the same?

An independent sample of a material is about as far from all known structures, a copy has one that is much closer. How
much closer the closest comes by chance is seen on structures that are no copies.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from scipy.stats import t as student_t

from amden.analysis.noise import Floor, Sample, noise_floor
from amden.analysis.similarity import Distances, Fingerprints, distances, fingerprints
from amden.structure import Structures

FALSE_ALARM: Final = 0.05
"""Chance that one or more structures of a set without copies are taken for copies."""

SAME: Final = 0.02
"""A structure closer than this part of the typical distance is the same one up to rounding."""

UNSEEN: Final = 200
"""So many structures at most tell how close the closest is by chance."""

FEWEST: Final = 10
"""Fewer do not tell."""


ALIKE: Final = 0.1
"""A typical distance of less counts as this: it is of the arithmetic, in sets of crystals."""


@dataclass(frozen=True)
class Closest:
    """The closest of many known structures, for each structure of a set."""

    index: Int[np.ndarray, " systems"]
    """Which one it is."""
    novelty: Float[np.ndarray, " systems"]
    """Distance to it over the median distance to all: 0 for a copy, near 1 for an independent sample."""
    local: Float[np.ndarray, " systems"]
    """Distance of an atom's environment to the closest of all known structures (`Distances.local`)."""

    def __len__(self) -> int:
        return len(self.index)

    def select(self, chosen: Bool[np.ndarray, " systems"]) -> "Closest":
        """Those of some structures."""
        return Closest(self.index[chosen], self.novelty[chosen], self.local[chosen])


@dataclass(frozen=True)
class Copies:
    """Structures that are nearly known ones."""

    closest: Closest
    unseen: Closest
    """The same of structures that are no copies."""
    unseen_are: str
    """Where those come from, in words."""

    @cached_property
    def limit(self) -> float:
        """Novelty below which a structure is a near copy; NaN where too few structures tell.

        That of the smallest of many distances, by Gumbel's law for minima with the mean μ and the standard deviation σ
        of the unseen, so that `FALSE_ALARM` is the chance of one or more of n structures below it:

            limit = μ + σ w (√6/π) [γ + ln(-ln(1 - p))],  p = 1 - (1 - FALSE_ALARM)^(1/n)

        γ: Euler's constant; w: quantile of Student's t at p over the normal one, as few structures leave σ uncertain.
        """
        values = self.unseen.novelty
        if len(values) < FEWEST:
            return np.nan
        p = -np.expm1(np.log1p(-FALSE_ALARM) / len(self.closest))
        wider = student_t.isf(p, len(values) - 1) / norm.isf(p)
        reach = np.sqrt(6.0) / np.pi * (np.euler_gamma + np.log(-np.log1p(-p)))
        return float(values.mean() + values.std(ddof=1) * wider * reach)

    @property
    def same(self) -> Bool[np.ndarray, " systems"]:
        """Copies up to rounding."""
        return self.closest.novelty < SAME

    @property
    def flagged(self) -> Bool[np.ndarray, " systems"]:
        """Near copies, those up to rounding included."""
        return (self.closest.novelty < self.limit) | self.same

    @property
    def verdict(self) -> str:
        """`none`, or how many."""
        n = int(self.flagged.sum())
        if n:
            return f"{n} of {len(self.closest)}"
        return "none" if np.isfinite(self.limit) else f"no floor: fewer than {FEWEST} unseen structures"


@dataclass(frozen=True)
class Diversity:
    """Mean distance between two structures of a set, and of the reference."""

    generated: float
    reference: float
    floor: Floor


@dataclass(frozen=True)
class Novelty:
    """What a set has of its own."""

    copies: Copies | None
    """Near copies of the training set; None where that is not given."""
    repeats: Copies | None
    """Structures of the set that are nearly another one of it; None of a set of one."""
    diversity: Diversity | None
    """None without a reference, or of sets of one."""


def novelty(
    structures: Structures,
    *,
    reference: Structures | None = None,
    training: Structures | None = None,
    halvings: int = 200,
    seed: int = 0,
) -> Novelty:
    """Compare structures with those of a training set and with each other.

    The reference, or the training set in its place, tells what independent structures are like. What the reference
    shares with the training set is left out; where too little is left, each training structure against the others
    tells how close the closest comes.

    Errors: `ValueError` if neither is given, or for a training set of fewer than `FEWEST` structures.
    """
    if training is not None and len(training) < FEWEST:
        raise ValueError(f"`training` must have {FEWEST} structures or more to be looked for, got {len(training)}")
    known = reference if reference is not None else training
    if known is None:
        raise ValueError("`reference` or `training` must be given: something must tell what independent structures are")
    sets = [s.without_ghosts() for s in (known, structures, training) if s is not None]
    theirs, ours, *rest = fingerprints(*sets)
    rows = np.linspace(0, len(theirs) - 1, min(UNSEEN, len(theirs))).round().astype(int)
    unseen = theirs.select(rows)
    repeats = diversity = None
    if len(ours) > 1 and len(theirs) > 1:
        within = distances(ours, ours, themselves=np.arange(len(ours)), seed=seed)
        of_unseen = distances(unseen, theirs, themselves=rows, seed=seed)
        name = "reference" if reference is not None else "training set"
        repeats = Copies(closest(within), closest(of_unseen), f"structures of the {name} among themselves")
        pairs = of_unseen.pairs[:, rows]
        diversity = _diversity(within.pairs, pairs, ours.n_atoms, unseen.n_atoms, halvings=halvings, seed=seed)
    copies = _copies(ours, rest[0], None if reference is None else unseen, seed) if rest else None
    return Novelty(copies, repeats, diversity)


def closest(found: Distances) -> Closest:
    """The closest structure of each row of distances."""
    nearest, typical = np.nanmin(found.pairs, axis=1), np.nanmedian(found.pairs, axis=1)
    return Closest(np.nanargmin(found.pairs, axis=1), nearest / np.maximum(typical, ALIKE), found.local)


def _copies(ours: Fingerprints, known: Fingerprints, unseen: Fingerprints | None, seed: int) -> Copies:
    of_ours = closest(distances(ours, known, seed=seed))
    if unseen is not None:
        of_unseen = closest(distances(unseen, known, seed=seed))
        new = of_unseen.select(of_unseen.novelty >= SAME)
        if len(new) >= FEWEST:
            return Copies(of_ours, new, "structures of the reference that are not of the training set")
    rows = np.linspace(0, len(known) - 1, min(UNSEEN, len(known))).round().astype(int)
    of_known = closest(distances(known.select(rows), known, themselves=rows, seed=seed))
    return Copies(of_ours, of_known, "structures of the training set among themselves")


def _diversity(
    ours: Float[np.ndarray, "m m"],
    theirs: Float[np.ndarray, "n n"],
    our_atoms: Int[np.ndarray, " m"],
    their_atoms: Int[np.ndarray, " n"],
    *,
    halvings: int,
    seed: int,
) -> Diversity:
    """The floor is that of halves of the reference, each with the mean distance within it."""

    def difference(a: np.ndarray, b: np.ndarray) -> float:
        i, j = a.astype(np.int64), b.astype(np.int64)
        return abs(float(np.nanmean(theirs[np.ix_(i, i)]) - np.nanmean(theirs[np.ix_(j, j)])))

    places, others = np.arange(len(theirs), dtype=np.float64), np.arange(len(ours), dtype=np.float64)
    known, other = Sample(places, their_atoms), Sample(others, our_atoms)
    floor = noise_floor(known, other, distance=difference, halvings=halvings, seed=seed)
    return Diversity(float(np.nanmean(ours)), float(np.nanmean(theirs)), floor)
