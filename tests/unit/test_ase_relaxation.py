"""Relaxation with a calculator whose minimum is known by other means."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.optimize import minimize_scalar

from amden.simulate.ase_relaxation import relax_atoms


def disturbed(a: float) -> Atoms:
    """A strained copper cell with displaced atoms."""
    crystal = bulk("Cu", a=a, cubic=True)
    crystal.rattle(0.1, seed=1)
    crystal.calc = EMT()
    return crystal


def energy_of_fcc(a: float) -> float:
    crystal = bulk("Cu", a=a, cubic=True)
    crystal.calc = EMT()
    return crystal.get_potential_energy()


@pytest.mark.parametrize("a", [3.5, 3.7])
def test_atoms_and_cell_come_to_the_minimum(a):
    atoms = disturbed(a)
    assert relax_atoms(atoms, variable_cell=True, force_tolerance=1e-3, max_steps=5000)
    best = minimize_scalar(energy_of_fcc, bounds=(3.4, 3.8), method="bounded", options={"xatol": 1e-6})
    assert atoms.get_potential_energy() == pytest.approx(best.fun, abs=1e-4)
    assert atoms.get_volume() == pytest.approx(best.x**3, rel=1e-3)


def test_a_fixed_cell_stays():
    atoms = disturbed(3.7)
    assert relax_atoms(atoms, variable_cell=False, force_tolerance=1e-4, max_steps=5000)
    np.testing.assert_array_equal(atoms.cell.array, 3.7 * np.eye(3))
    assert atoms.get_potential_energy() == pytest.approx(energy_of_fcc(3.7), abs=1e-6)


def test_what_did_not_converge_is_told():
    atoms = disturbed(3.5)
    before, energy = atoms.positions.copy(), atoms.get_potential_energy()
    assert not relax_atoms(atoms, variable_cell=True, force_tolerance=1e-6, max_steps=0)
    np.testing.assert_array_equal(atoms.positions, before)
    assert not relax_atoms(atoms, variable_cell=True, force_tolerance=1e-6, max_steps=1)
    assert atoms.get_potential_energy() < energy
