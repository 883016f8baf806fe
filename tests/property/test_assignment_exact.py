"""Assignments under constraints against all there are, and against the solver of scipy where those are too many."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from amden.diffusion.assignment import balanced, proportioned
from amden.diffusion.composition import Formula, Neutral
from amden.diffusion.vocabulary import Vocabulary

CHARGES = st.lists(st.integers(-3, 4), min_size=2, max_size=4, unique=True)


def random_log_p(n: int, classes: int, seed: int, sharpness: float = 2.0) -> np.ndarray:
    raw = sharpness * np.random.default_rng(seed).normal(size=(n, classes))
    return raw - np.log(np.exp(raw).sum(1, keepdims=True))


def brute(log_p: np.ndarray, allowed) -> float:
    """The largest sum of any assignment that is allowed; -inf if none is."""
    n, classes = log_p.shape
    return max(
        (
            sum(log_p[i, c] for i, c in enumerate(chosen))
            for chosen in product(range(classes), repeat=n)
            if allowed(chosen)
        ),
        default=-np.inf,
    )


def score(log_p: np.ndarray, chosen: np.ndarray) -> float:
    return float(log_p[np.arange(len(chosen)), chosen].sum())


@settings(max_examples=60)
@given(n=st.integers(1, 6), charges=CHARGES, seed=st.integers(0, 1000))
def test_neutral_is_the_best_of_all(n, charges, seed):
    q, log_p = np.array(charges), random_log_p(n, len(charges), seed)
    best = brute(log_p, lambda chosen: sum(q[c] for c in chosen) == 0)
    if best == -np.inf:
        with pytest.raises(ValueError, match=f"no choice of elements makes {n} atoms neutral"):
            balanced(log_p, q)
        return
    chosen = balanced(log_p, q)
    assert q[chosen].sum() == 0
    assert score(log_p, chosen) == pytest.approx(best, abs=1e-9)


@settings(max_examples=60)
@given(n=st.integers(3, 6), parts=st.sampled_from([(1, 2), (1, 1), (2, 1), (1, 1, 1)]), seed=st.integers(0, 1000))
def test_a_formula_with_ghosts_is_the_best_of_all(n, parts, seed):
    nu = np.array([*parts, 0])
    log_p = random_log_p(n, len(nu), seed)

    def allowed(chosen):
        counts = np.bincount(chosen, minlength=len(nu))[:-1]
        units = counts // nu[:-1]
        return units.min() == units.max() > 0 and (counts == units * nu[:-1]).all()

    chosen = proportioned(log_p, nu, free=len(nu) - 1)
    assert allowed(chosen)
    assert score(log_p, chosen) == pytest.approx(brute(log_p, allowed), abs=1e-9)


@settings(max_examples=20)
@given(units=st.integers(1, 30), seed=st.integers(0, 1000), sharpness=st.sampled_from([0.1, 2.0, 20.0]))
def test_a_formula_without_ghosts_is_the_optimal_assignment(units, seed, sharpness):
    parts = np.array([2, 1, 3])
    log_p = random_log_p(6 * units, 3, seed, sharpness)
    places = np.repeat(np.arange(3), parts * units)
    row, column = linear_sum_assignment(-log_p[:, places])
    chosen = proportioned(log_p, parts)
    assert np.bincount(chosen, minlength=3).tolist() == (parts * units).tolist()
    assert score(log_p, chosen) == pytest.approx(float(log_p[:, places][row, column].sum()), abs=1e-8)


@settings(max_examples=20)
@given(n=st.integers(60, 400), seed=st.integers(0, 1000), bias=st.floats(-1.0, 1.0))
def test_neutral_silica_with_ghosts_is_the_formula(n, seed, bias):
    """Two elements: neutrality and SiO₂ ask for the same, so two algorithms must agree, far from balance too."""
    silica = Vocabulary((8, 14), ghosts=True)
    log_p = random_log_p(n, 3, seed) + np.array([bias, 0.0, 0.0])
    neutral = Neutral.of(silica)
    assert neutral is not None
    by_charge = neutral.assigned(log_p, silica)
    by_formula = Formula({14: 1, 8: 2}).assigned(log_p, silica)
    assert score(log_p, by_charge) == pytest.approx(score(log_p, by_formula), abs=1e-8)


@pytest.mark.parametrize("bias", [-6.0, 6.0])
def test_far_from_neutral_is_as_exact_and_no_slower(bias):
    """Nearly all of one element: without a price on charge the programme would need gigabytes here."""
    silica = Vocabulary((8, 14), ghosts=True)
    log_p = random_log_p(6000, 3, 1) + np.array([bias, 0.0, 0.0])
    by_charge = Neutral({8: -2, 14: 4}).assigned(log_p, silica)
    by_formula = Formula({14: 1, 8: 2}).assigned(log_p, silica)
    assert score(log_p, by_charge) == pytest.approx(score(log_p, by_formula), abs=1e-7)
