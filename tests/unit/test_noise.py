"""The noise floor of sets whose distribution is known."""

import numpy as np
import pytest

from amden.analysis.noise import (
    Floor,
    Sample,
    bootstrap_interval,
    deviation_of_difference,
    difference_of_means,
    fraction_floor,
    noise_floor,
    rmsd_of_means,
    wasserstein,
)


def normal(n: int, *, bins: int = 0, seed: int = 0, atoms: int = 100) -> Sample:
    values = np.random.default_rng(seed).normal(size=(n, bins) if bins else n)
    return Sample(values, np.full(n, atoms))


def test_squared_floor_of_halves_is_the_unbiased_variance_over_both_sizes():
    """Exact for sampling without replacement (Cochran, Sampling Techniques, 1977, theorem 2.2)."""
    sample = normal(40, bins=30)
    floor = noise_floor(sample, sample, distance=rmsd_of_means, halvings=4000)
    variance = sample.values.var(axis=0, ddof=1).mean()
    assert floor.halves**2 == pytest.approx(variance * (1 / 20 + 1 / 20), rel=0.02)
    assert floor.expected**2 == pytest.approx(variance * (1 / 40 + 1 / 40), rel=0.02)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (61, 15), (200, 20)])
def test_expected_floor_is_the_distance_of_independent_sets(n, m):
    distances = [
        rmsd_of_means(normal(n, bins=10, seed=2 * s).values, normal(m, bins=10, seed=2 * s + 1).values)
        for s in range(300)
    ]
    floors = [noise_floor(normal(n, bins=10, seed=s), normal(m), distance=rmsd_of_means).expected for s in range(20)]
    assert np.sqrt(np.mean(np.square(floors))) == pytest.approx(np.sqrt(np.mean(np.square(distances))), rel=0.05)
    assert np.mean(np.square(distances)) == pytest.approx(1 / n + 1 / m, rel=0.1)


def test_structures_of_four_times_the_atoms_count_four_times():
    reference = normal(50)
    small = noise_floor(reference, normal(40, atoms=100), distance=difference_of_means)
    large = noise_floor(reference, normal(10, atoms=400), distance=difference_of_means)
    assert small == large
    assert normal(10, atoms=400).size == pytest.approx(4000.0)
    mixed = Sample(np.zeros(2), np.array([100, 300]))
    assert mixed.size == pytest.approx(4 / (1 / 100 + 1 / 300))


@pytest.mark.parametrize("distance", [difference_of_means, wasserstein])
@pytest.mark.parametrize(("n", "m"), [(8, 8), (30, 8), (40, 40)])
def test_one_sound_set_in_twenty_passes_the_limit(distance, n, m):
    passed = 0
    for seed in range(200):
        reference, other = normal(n, seed=2 * seed), normal(m, seed=2 * seed + 1)
        floor = noise_floor(reference, other, distance=distance, halvings=60, seed=seed)
        passed += distance(other.values, reference.values) > floor.limit
    assert 1 <= passed <= 26  # 200 · 0.05 = 10 ± 3, and few structures tell less


def test_a_shift_of_the_mean_passes_the_limit():
    reference, other = normal(50, seed=1), normal(50, seed=2)
    floor = noise_floor(reference, other, distance=difference_of_means)
    assert difference_of_means(other.values + 1.0, reference.values) > 3.0 * floor.limit


def test_the_band_is_the_spread_of_the_difference():
    reference, other = normal(400, bins=3), normal(100)
    assert deviation_of_difference(reference, other) == pytest.approx(np.sqrt(1 / 400 + 1 / 100), rel=0.1)


def test_structures_without_a_value_are_left_out():
    sample = Sample.of(np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]]), np.array([5, 6, 7]))
    np.testing.assert_array_equal(sample.values, [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(sample.n_atoms, [5, 7])


def test_few_structures_have_no_floor():
    floor = noise_floor(normal(3), normal(10), distance=difference_of_means)
    assert np.isnan([floor.halves, floor.expected, floor.limit]).all()
    assert np.isnan(deviation_of_difference(normal(3, bins=2), normal(10, bins=2))).all()
    assert isinstance(noise_floor(normal(4), normal(1), distance=difference_of_means), Floor)


def test_the_seed_decides():
    floors = [noise_floor(normal(20), normal(20), distance=wasserstein, halvings=5, seed=s) for s in (0, 0, 1)]
    assert floors[0] == floors[1] != floors[2]


def test_bootstrap_intervals_hold_the_true_distance_nineteen_times_in_twenty():
    """Two normal distributions one deviation apart: both distances are 1."""
    for distance in (difference_of_means, wasserstein):
        held = 0
        for seed in range(100):
            a, b = normal(40, seed=2 * seed), normal(40, seed=2 * seed + 1)
            shifted = Sample(b.values + 1.0, b.n_atoms)
            low, high = bootstrap_interval(a, shifted, distance=distance, resamples=200, seed=seed)
            held += low <= 1.0 <= high
        assert 88 <= held <= 100


def test_intervals_of_sets_made_the_same_way_reach_zero():
    reached = sum(
        bootstrap_interval(normal(40, seed=s), normal(40, seed=s + 500), distance=wasserstein, resamples=200)[0] < 0.1
        for s in range(40)
    )
    assert reached >= 36
    assert np.isnan(bootstrap_interval(normal(3), normal(40), distance=wasserstein)).all()


def test_the_floor_of_fractions_is_that_of_the_binomial_distribution():
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(400):
        reference, other = random.random(200) < 0.3, random.random(100) < 0.3
        passed += abs(reference.mean() - other.mean()) > fraction_floor(reference, other).limit
    assert 8 <= passed <= 34  # 400 · 0.05 = 20 ± 4.4
    never = fraction_floor(np.zeros(600, bool), np.zeros(500, bool))
    assert 1 / 500 < never.limit < 3 / 500  # one of 500 is chance where 600 had none, three are not
    assert np.isnan(fraction_floor(np.zeros(3, bool), np.zeros(5, bool)).limit)


def test_bad_input():
    with pytest.raises(ValueError, match="`halvings` must be positive, got 0"):
        noise_floor(normal(10), normal(10), distance=wasserstein, halvings=0)
