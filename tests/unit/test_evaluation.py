"""`evaluate`: derivatives, cells, batches, errors."""

import numpy as np
import pytest

from amden.simulate.potentials import StillingerWeber, evaluate

SW = StillingerWeber()
SKEWED = np.array([[6.1, 0.2, -0.3], [1.9, 5.8, 0.4], [-2.4, 1.1, 6.3]])


def silicon(n=14, seed=0, cell=SKEWED):
    """Atoms no closer than 1.7 Å, so that the energy is smooth on the scale of the differences."""
    rng = np.random.default_rng(seed)
    placed = []
    while len(placed) < n:
        candidate = rng.random(3) @ cell
        images = [np.array([a, b, c]) @ cell for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
        if all(np.linalg.norm(candidate - p + s) > 1.7 for p in placed for s in images):
            placed.append(candidate)
    return np.array(placed)


def energy(positions, cell=SKEWED):
    return evaluate(SW, positions, cell[None], np.array([len(positions)])).energy[0]


def test_force_is_minus_the_gradient():
    positions, h = silicon(), 1e-5
    forces = evaluate(SW, positions, SKEWED[None], np.array([14])).forces
    for i, d in ((0, 0), (5, 1), (13, 2)):
        step = np.zeros_like(positions)
        step[i, d] = h
        slope = (energy(positions + step) - energy(positions - step)) / (2 * h)
        assert forces[i, d] == pytest.approx(-slope, abs=1e-6)


def test_stress_is_the_derivative_with_strain():
    positions, h = silicon(), 1e-6
    result = evaluate(SW, positions, SKEWED[None], np.array([14]))
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] += h / 2
            strain[b, a] += h / 2
            up, down = np.eye(3) + strain, np.eye(3) - strain
            slope = (energy(positions @ up, SKEWED @ up) - energy(positions @ down, SKEWED @ down)) / (2 * h)
            assert result.stress[0, a, b] * np.linalg.det(SKEWED) == pytest.approx(slope, abs=1e-5)


def test_energies_of_atoms_sum_to_the_energy():
    result = evaluate(SW, silicon(), SKEWED[None], np.array([14]))
    assert result.energies.sum() == pytest.approx(result.energy[0])
    np.testing.assert_allclose(result.forces.sum(axis=0), 0.0, atol=1e-10)


def test_supercell_and_wrapping_change_nothing():
    positions = silicon()
    shifts = np.array([[a, b, c] for a in (0, 1) for b in (0, -3) for c in (0, 1)])
    big = np.concatenate([positions + s @ SKEWED for s in shifts])
    cell = SKEWED * np.array([[2.0], [6.0], [2.0]])[[0, 1, 2]]
    cell[1] /= 3.0
    one, eight = energy(positions), evaluate(SW, big, cell[None], np.array([len(big)]))
    assert eight.energy[0] == pytest.approx(8 * one, rel=1e-12)


def test_a_batch_is_its_systems():
    cells = np.stack([SKEWED, 7.0 * np.eye(3)])
    first, second = silicon(), silicon(9, seed=1, cell=cells[1])
    both = evaluate(SW, np.concatenate([first, second]), cells, np.array([14, 9]))
    alone = evaluate(SW, second, cells[1:], np.array([9]))
    np.testing.assert_array_equal(both.forces[14:], alone.forces)
    np.testing.assert_array_equal(both.stress[1:], alone.stress)


def test_atoms_out_of_reach_do_nothing():
    result = evaluate(SW, np.array([[0.0, 0.0, 0.0], [3.78, 0.0, 0.0]]), 20.0 * np.eye(3)[None], np.array([2]))
    assert result.energy[0] == 0.0
    assert not result.forces.any()


def test_many_atoms_need_little_memory():
    """Linked cells: 16,000 atoms of diamond, energy known."""
    n = 13
    corner = np.stack(np.meshgrid(*3 * [np.arange(n)], indexing="ij"), -1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
    positions = 5.431 * (corner + basis).reshape(-1, 3)
    result = evaluate(SW, positions, 5.431 * n * np.eye(3)[None], np.array([len(positions)]))
    assert result.energy[0] / len(positions) == pytest.approx(-4.33660, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_atoms": np.array([13])}, "`n_atoms` must hold one count a cell and sum to 14 atoms"),
        ({"n_atoms": np.array([14, 0]), "cells": np.stack([SKEWED, SKEWED])}, "`n_atoms` must be positive, got 0"),
        ({"positions": np.full((14, 3), np.nan)}, "`positions` and `cells` must be finite"),
        ({"cells": np.ones((1, 3, 3))}, "`cells` must enclose a volume"),
        ({"species": np.ones(14, np.int64)}, "`species` must be one number an atom, below 1"),
        ({"positions": np.zeros((14, 3))}, "`positions` of system 0: two atoms are in the same place"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"positions": silicon(), "cells": SKEWED[None], "n_atoms": np.array([14])} | change
    with pytest.raises(ValueError, match=message):
        evaluate(SW, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sigma": 0.0}, "`sigma` must be positive"), ({"a": -1.0}, "`a` must be positive"), ({"p": -1}, "`p` must be")],
)
def test_bad_parameters_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        StillingerWeber(**change)
