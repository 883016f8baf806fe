"""Random packings: distances, seeds, limits."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from amden.simulate.packing import random_packing


@pytest.mark.parametrize(("n", "min_distance"), [(1, 2.0), (2, 2.0), (3, 2.3), (256, 2.2), (3000, 2.2), (64, 0.0)])
def test_no_two_atoms_are_too_close(n, min_distance):
    positions, cell = random_packing(n, volume=20.0 * n, min_distance=min_distance, seed=3)
    length = cell[0, 0]
    assert length**3 == pytest.approx(20.0 * n)
    assert positions.shape == (n, 3)
    assert positions.min() >= 0.0
    assert positions.max() < length
    if min_distance > 0.0:
        assert not cKDTree(positions, boxsize=length).query_pairs(min_distance * (1 - 1e-9))


def test_seed_decides():
    first, again, other = (random_packing(50, volume=1000.0, min_distance=2.0, seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1.0


def test_atoms_are_spread_evenly():
    x = np.concatenate([random_packing(100, volume=2000.0, min_distance=2.0, seed=s)[0] for s in range(40)])
    counts, _ = np.histogram(x / 2000.0 ** (1 / 3), bins=10, range=(0, 1))
    np.testing.assert_allclose(counts, 1200, atol=5 * 1200**0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_atoms": 0}, "`n_atoms` must be positive, got 0"),
        ({"volume": -1.0}, "`volume` must be positive, got -1.0"),
        ({"min_distance": -1.0}, "`min_distance` must not be negative, got -1.0"),
        ({"min_distance": 3.5}, "`min_distance` 3.5 is too long for 100 atoms in 2000.0 Å³"),
        ({"min_distance": 2.4}, "`min_distance` 2.4 is too long"),
        ({"n_atoms": 1, "min_distance": 20.0}, "`min_distance` 20.0 is too long for 1 atoms"),
    ],
)
def test_the_impossible_is_refused(change, message):
    arguments = {"n_atoms": 100, "volume": 2000.0, "min_distance": 2.0, "seed": 1} | change
    if change == {"min_distance": 2.4}:
        arguments["volume"] = 100 * 7.24 / 0.378
    with pytest.raises(ValueError, match=message):
        random_packing(arguments.pop("n_atoms"), **arguments)
