"""The ASE calculator: units and signs, relaxation, errors."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from amden.simulate.calculator import PotentialCalculator
from amden.simulate.potentials import StillingerWeber


@pytest.fixture
def silicon():
    atoms = bulk("Si", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = PotentialCalculator(StillingerWeber())
    return atoms


def test_forces_and_stress_have_the_signs_of_ase(silicon):
    np.testing.assert_allclose(silicon.get_forces()[:2], calculate_numerical_forces(silicon, 1e-5, [0, 1]), atol=1e-6)
    np.testing.assert_allclose(silicon.get_stress(), calculate_numerical_stress(silicon, 1e-5), atol=1e-7)
    assert silicon.get_potential_energies().sum() == pytest.approx(silicon.get_potential_energy())
    assert silicon.get_potential_energy(force_consistent=True) == silicon.get_potential_energy()


def test_relaxation_of_atoms_and_cell_finds_diamond(silicon):
    assert BFGS(FrechetCellFilter(silicon), logfile=None).run(fmax=1e-4, steps=200)
    assert silicon.get_potential_energy() / 8 == pytest.approx(-4.33660, abs=1e-5)
    assert silicon.get_volume() ** (1 / 3) == pytest.approx(5.431, abs=1e-3)


def test_strangers_are_named():
    oxide = Atoms("SiO", positions=[[0, 0, 0], [1.6, 0, 0]], cell=3 * [8.0], pbc=True)
    oxide.calc = PotentialCalculator(StillingerWeber())
    with pytest.raises(ValueError, match="the potential does not know O, it knows Si"):
        oxide.get_potential_energy()


def test_open_boundaries_are_refused():
    slab = Atoms("Si2", positions=[[0, 0, 0], [2.4, 0, 0]], cell=3 * [8.0], pbc=[True, True, False])
    slab.calc = PotentialCalculator(StillingerWeber())
    with pytest.raises(ValueError, match="`atoms` must be periodic in all directions"):
        slab.get_potential_energy()
