"""Random packings: distances, seeds, limits."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial import cKDTree

from amden.simulate.packing import ion_distances, random_ion_packing, random_packing


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


GLASS = ["Si", "O", "Li", "K"]


def least(positions, species, length, pair):
    a, b = (positions[species == s] for s in pair)
    shift = a[:, None] - b
    far = np.linalg.norm(shift - length * np.rint(shift / length), axis=2)
    return far[far > 0].min()


def test_ions_keep_the_distances_of_their_pair():
    species, wanted = np.repeat([0, 1, 2, 3], [60, 150, 50, 10]), ion_distances(GLASS)
    positions, cell = random_ion_packing(species, volume=270 / 0.06, min_distances=wanted, seed=2)
    again, _ = random_ion_packing(species, volume=270 / 0.06, min_distances=wanted, seed=2)
    np.testing.assert_array_equal(positions, again)
    for pair in ((s, t) for s in range(4) for t in range(s + 1)):
        assert least(positions, species, cell[0, 0], pair) >= wanted[pair] * (1 - 1e-9)
    assert least(positions, species, cell[0, 0], (0, 1)) < 2.0


def test_dense_ions_are_put_closer_all_alike():
    species, wanted = np.repeat([0, 1], [70, 140]), ion_distances(GLASS[:2])
    positions, cell = random_ion_packing(species, volume=210 / 0.11, min_distances=wanted, seed=2)
    ratio = [least(positions, species, cell[0, 0], pair) / wanted[pair] for pair in ((0, 0), (0, 1), (1, 1))]
    assert 0.5 < min(ratio) < 0.97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": np.array([0, 2])}, "`species` must be one number an atom, below 2"),
        ({"volume": 0.0}, "`volume` must be positive, got 0.0"),
        ({"min_distances": np.array([[1.0, 2.0], [1.0, 1.0]])}, "`min_distances` must be symmetric and not negative"),
        (
            {"species": np.zeros(200, int), "volume": 200.0},
            "has no room for 200 atoms even at half the `min_distances`",
        ),
    ],
)
def test_impossible_ions_are_refused(change, message):
    given = {"species": np.array([0, 1]), "volume": 1000.0, "min_distances": ion_distances(["Si", "O"]), "seed": 1}
    given |= change
    with pytest.raises(ValueError, match=message):
        random_ion_packing(given.pop("species"), **given)


INTERRUPTED_AT_MANY_MOMENTS = """
import random, signal, time
import numpy as np
from amden.simulate.packing import ion_distances, random_ion_packing, random_packing

def pack(seed):
    random_packing(8, volume=400.0, min_distance=2.0, seed=seed)
    random_ion_packing(np.array([0, 1, 1]), volume=100.0, min_distances=ion_distances(["Si", "O"]), seed=seed)

pack(0)
start = time.perf_counter()
for seed in range(20):
    pack(seed)
usual = (time.perf_counter() - start) / 20
signal.signal(signal.SIGALRM, signal.default_int_handler)
moments, caught = random.Random(1), 0
for seed in range(2000):
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, moments.random() * usual))
        pack(seed)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        caught += 1
print(caught)
"""


def test_an_interrupt_at_any_moment_is_an_interrupt_and_no_crash():
    """Compiled code that is given a generator of random numbers crashes here within a few hundred."""
    code = [sys.executable, "-c", INTERRUPTED_AT_MANY_MOMENTS]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 500
