"""Relaxation: known minima, monotone descent, and what it says of systems that do not get there."""

import numpy as np
import pytest

from amden.simulate.potentials import StillingerWeber, evaluate
from amden.simulate.relaxation import relax

SW = StillingerWeber()
LATTICE = 5.43095
"""Å, of Stillinger-Weber diamond."""
EIGHT = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4.0
ONE = np.array([8])


def strained(seed, *, strain=0.05, shake=0.1):
    """Eight atoms of diamond in a skewed, strained cell."""
    rng = np.random.default_rng(seed)
    cell = LATTICE * (np.eye(3) + strain * rng.uniform(-1.0, 1.0, (3, 3)))
    return EIGHT @ cell + shake * rng.normal(size=(8, 3)), cell


def test_strained_diamond_finds_its_lattice_constant_and_energy():
    positions, cell = strained(0)
    found = relax(SW, positions, cell[None], ONE, stress_tolerance=1e-4, force_tolerance=1e-4, device="cpu")
    assert found.converged.all()
    np.testing.assert_allclose(found.energy / 8, -4.3366, atol=1e-5)
    np.testing.assert_allclose(found.cell[0] @ found.cell[0].T, LATTICE**2 * np.eye(3), atol=1e-3)


def test_numbers_at_the_end_are_those_of_evaluate():
    positions, cell = strained(1)
    found = relax(SW, positions, cell[None], ONE, max_steps=5, device="cpu")
    exact = evaluate(SW, found.positions, found.cell, ONE)
    np.testing.assert_allclose(found.energy, exact.energy, rtol=1e-12)
    np.testing.assert_allclose(found.stress, exact.stress, atol=1e-12)
    np.testing.assert_allclose(found.max_force[0], np.linalg.norm(exact.forces, axis=1).max(), rtol=1e-9)
    assert not found.converged.any()


@pytest.mark.parametrize("cell_kind", ["variable", "fixed"])
def test_energy_falls_with_every_step(cell_kind):
    positions, cell = strained(2, shake=0.4)
    energies = [
        relax(SW, positions, cell[None], ONE, cell=cell_kind, max_steps=k, device="cpu").energy[0] for k in range(1, 15)
    ]
    assert energies[0] < evaluate(SW, positions, cell[None], ONE).energy[0]
    assert (np.diff(energies) <= 0.0).all()
    assert energies[-1] < energies[0] - 0.1
