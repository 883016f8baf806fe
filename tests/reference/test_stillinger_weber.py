"""Stillinger-Weber against LAMMPS 22Jul2025 (`tests/data/README.md`) and the literature."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from ase.stress import full_3x3_to_voigt_6_stress

from amden.simulate.potentials import StillingerWeber, evaluate

FRAMES = read(Path(__file__).parents[1] / "data" / "sw_si.extxyz", ":")


@pytest.fixture(scope="module")
def evaluation():
    """All frames in one batch."""
    positions = np.concatenate([frame.positions for frame in FRAMES])
    cells = np.stack([frame.cell.array for frame in FRAMES])
    return evaluate(StillingerWeber(), positions, cells, np.array([len(frame) for frame in FRAMES]))


def test_energies_are_those_of_lammps(evaluation):
    n_atoms = np.array([len(frame) for frame in FRAMES])
    expected = np.array([frame.info["lammps_energy"] for frame in FRAMES])
    np.testing.assert_allclose(evaluation.energy / n_atoms, expected / n_atoms, atol=1e-8)


def test_forces_are_those_of_lammps(evaluation):
    expected = np.concatenate([frame.arrays["lammps_forces"] for frame in FRAMES])
    np.testing.assert_allclose(evaluation.forces, expected, atol=1e-5)


@pytest.mark.parametrize("system", range(len(FRAMES)))
def test_stress_is_that_of_lammps(evaluation, system):
    stress = full_3x3_to_voigt_6_stress(evaluation.stress[system])
    np.testing.assert_allclose(stress, FRAMES[system].info["lammps_stress"], atol=1e-7)


def test_diamond_has_the_cohesive_energy_of_the_paper():
    """The potential was made to give -2ε an atom at the lattice constant 5.431 Å (Phys. Rev. B 31, 5262, sec. III)."""
    primitive = bulk("Si", a=5.431)
    result = evaluate(StillingerWeber(), primitive.positions, primitive.cell.array[None], np.array([2]))
    assert result.energy[0] / 2 == pytest.approx(-2.0 * 2.1683, abs=1e-4)
    np.testing.assert_allclose(result.forces, 0.0, atol=1e-12)
    np.testing.assert_allclose(result.stress, 0.0, atol=1e-4)


def test_elastic_constants_of_diamond():
    """C11 = 151.4 GPa and C12 = 76.4 GPa (Cowley, Phys. Rev. Lett. 60, 2379 (1988)), within their printed figures."""
    crystal = bulk("Si", a=5.43095, cubic=True)
    strained = [crystal.cell.array * (1.0 + sign * 1e-4 * np.array([1.0, 0.0, 0.0])) for sign in (1, -1)]
    positions = [crystal.get_scaled_positions() @ cell for cell in strained]
    result = evaluate(StillingerWeber(), np.concatenate(positions), np.stack(strained), np.array([8, 8]))
    slope = (result.stress[0] - result.stress[1]) / 2e-4 * 160.21766
    assert slope[0, 0] == pytest.approx(151.4, rel=0.01)
    assert slope[1, 1] == pytest.approx(76.4, rel=0.01)
