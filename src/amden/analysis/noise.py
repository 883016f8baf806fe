"""The noise floor: how far apart two sets of structures are that are made the same way.

A difference between two finite sets is never zero. The floor is measured, not assumed: the reference is cut at random
into two halves, many times, and the halves are compared exactly as the two sets are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm, wasserstein_distance
from scipy.stats import t as student_t

Distance = Callable[[np.ndarray, np.ndarray], float]
"""How far apart two sets are: from their values, one row a structure, to a number that is not negative."""

FEWEST = 4
"""A reference of fewer structures has no floor."""


def rmsd_of_means(a: Float[np.ndarray, "m bins"], b: Float[np.ndarray, "n bins"]) -> float:
    """Root mean square over the bins of the difference between the mean curves of two sets.

    >>> rmsd_of_means(np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([[2.0, 4.0]])) == 2**0.5
    True
    """
    return float(np.sqrt(np.mean((a.mean(axis=0) - b.mean(axis=0)) ** 2)))


def difference_of_means(a: Float[np.ndarray, " m"], b: Float[np.ndarray, " n"]) -> float:
    """Absolute difference between the means of two sets.

    >>> difference_of_means(np.array([1.0, 3.0]), np.array([5.0]))
    3.0
    """
    return float(abs(a.mean() - b.mean()))


def wasserstein(a: Float[np.ndarray, " m"], b: Float[np.ndarray, " n"]) -> float:
    """Wasserstein-1 distance between two sets of numbers, ∫ |F_a - F_b|, in their unit.

    >>> wasserstein(np.array([0.0, 1.0]), np.array([0.5, 1.5]))
    0.5
    """
    return float(wasserstein_distance(a, b))


@dataclass(frozen=True)
class Sample:
    """A quantity of each structure of a set."""

    values: Float[np.ndarray, "systems *rest"]
    n_atoms: Int[np.ndarray, " systems"]

    @staticmethod
    def of(values: Float[np.ndarray, "systems *rest"], n_atoms: Int[np.ndarray, " systems"]) -> "Sample":
        """The structures whose values are all finite numbers; the others are left out."""
        known = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        return Sample(values[known], n_atoms[known])

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def size(self) -> float:
        """Size in atoms, n² / Σ 1/N: the mean over the set has the variance of one structure of so many atoms.

        True of quantities whose variance falls as 1/N with the atoms N of a structure, as g(r), density and energy an
        atom do. For n structures of the same size it is n N.
        """
        return float(len(self) ** 2 / np.sum(1.0 / self.n_atoms))


@dataclass(frozen=True)
class Floor:
    """The distance that two sets would have by chance; NaN where the reference is too small to tell."""

    halves: float
    """Root mean square distance between random halves of the reference."""
    expected: float
    """The same, rescaled to the sizes of the two sets compared."""
    limit: float
    """What 95 % of pairs of such sets stay below: more is not noise."""


def noise_floor(reference: Sample, other: Sample, *, distance: Distance, halvings: int = 200, seed: int = 0) -> Floor:
    """Floor of the distance between a reference and another set: what it would be if both were made the same way.

        expected = rms(D) √[(1/A + 1/B) / (1/A₁ + 1/A₂)]

    ======= ==========================================================================
    D       distance between the halves of each of the `halvings`
    A, B    `size` of the reference and of the other set, in atoms
    A₁, A₂  that of the halves: about A/2, so that equal sets have rms(D)/√2
    ======= ==========================================================================

    For distances between means the expectation of D² over halvings is (1/A₁ + 1/A₂) times the unbiased variance, so
    the rescaling is exact; for Wasserstein distances it holds to leading order and for structures of the same size.
    The limit is the 95 % quantile of D, rescaled likewise and widened by t/1.96 with Student's t of n - 1 degrees of
    freedom (two-sided, 95 %), because a floor from few structures is itself uncertain. The structures must be
    independent: snapshots of one short run understate the floor.

    Errors: `ValueError` if `halvings` is not positive.
    """
    if halvings < 1:
        raise ValueError(f"`halvings` must be positive, got {halvings}")
    n = len(reference)
    if n < FEWEST or len(other) == 0:
        return Floor(np.nan, np.nan, np.nan)
    random = np.random.default_rng(seed)
    splits = [np.split(random.permutation(n), [n // 2]) for _ in range(halvings)]
    distances = np.array([distance(reference.values[a], reference.values[b]) for a, b in splits])
    in_halves = (1.0 / (n // 2) + 1.0 / (n - n // 2)) * n / reference.size
    scale = float(np.sqrt((1.0 / reference.size + 1.0 / other.size) / in_halves))
    halves = float(np.sqrt(np.mean(distances**2)))
    wider = float(student_t.ppf(0.975, n - 1) / norm.ppf(0.975))
    return Floor(halves, scale * halves, scale * wider * float(np.quantile(distances, 0.95)))


def fraction_floor(reference: Bool[np.ndarray, " n"], other: Bool[np.ndarray, " m"]) -> Floor:
    """Floor of the difference between the fractions of two sets that are true, by binomial statistics.

        expected = √[p (1 - p) (1/n + 1/m)],  p = (k + ½) / (n + 1)

    k: how many of the n of the reference are true; ½ and 1 are Jeffreys' prior, so that a reference without any does
    not make one too many in the other set. The limit is 1.96 times that.
    """
    n, m = len(reference), len(other)
    if n < FEWEST or m == 0:
        return Floor(np.nan, np.nan, np.nan)
    p = (float(reference.sum()) + 0.5) / (n + 1.0)
    deviation = np.sqrt(p * (1.0 - p))
    expected = float(deviation * np.sqrt(1.0 / n + 1.0 / m))
    halves = float(deviation * np.sqrt(1.0 / (n // 2) + 1.0 / (n - n // 2)))
    return Floor(halves, expected, float(norm.ppf(0.975)) * expected)


def bootstrap_interval(
    reference: Sample, other: Sample, *, distance: Distance, resamples: int = 400, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a distance between what the two sets are drawn from, by resampling the structures of both.

    The basic bootstrap, (2D - q₉₇.₅, 2D - q₂.₅) with the quantiles of the resampled distances and cut at 0: two sets
    are further apart than what they are drawn from, resampled sets once more, and the reflection at D takes that off
    (Davison and Hinkley, Bootstrap Methods and their Application, Cambridge, 1997, eq. 5.6). NaN as for a floor.
    """
    if min(len(reference), len(other)) < FEWEST:
        return np.nan, np.nan
    random = np.random.default_rng(seed)
    a, b = reference.values, other.values
    found = [distance(_again(a, random), _again(b, random)) for _ in range(resamples)]
    low, high = (2.0 * distance(a, b) - float(q) for q in np.quantile(found, (0.975, 0.025)))
    return max(low, 0.0), max(high, 0.0)


def _again(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return values[random.integers(len(values), size=len(values))]


def deviation_of_difference(reference: Sample, other: Sample) -> Float[np.ndarray, "*rest"]:
    """Standard deviation, bin by bin, of the difference between the means of two sets made the same way.

        s_k √[(1 + A/B) / n]

    s_k: standard deviation over the n structures of the reference; A, B: sizes of the sets. NaN as for a floor.
    """
    if len(reference) < FEWEST or len(other) == 0:
        return np.full(reference.values.shape[1:], np.nan)
    spread = reference.values.std(axis=0, ddof=1)
    return np.asarray(spread * np.sqrt((1.0 + reference.size / other.size) / len(reference)))
