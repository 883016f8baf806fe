"""BMP-shrm against LAMMPS: stored frames (`tests/data/README.md`)."""

from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from ase.stress import full_3x3_to_voigt_6_stress

from amden.simulate.potentials import bmp_shrm, evaluate

GLASS = bmp_shrm()
FRAMES = read(Path(__file__).parents[1] / "data" / "bmp_meg.extxyz", ":")
N_ATOMS = np.array([len(frame) for frame in FRAMES])


@pytest.fixture(scope="module")
def evaluation():
    """All frames in one batch."""
    return evaluate(
        GLASS,
        np.concatenate([frame.positions for frame in FRAMES]),
        np.stack([frame.cell.array for frame in FRAMES]),
        N_ATOMS,
        species=np.concatenate([[GLASS.symbols.index(s) for s in frame.get_chemical_symbols()] for frame in FRAMES]),
    )


def test_energies_are_those_of_lammps(evaluation):
    """LAMMPS' polynomial for erfc is good to 1.5e-7, which the charges of an atom's neighbours make 4e-6 eV."""
    expected = np.array([frame.info["lammps_energy"] for frame in FRAMES])
    np.testing.assert_allclose(evaluation.energy / N_ATOMS, expected / N_ATOMS, atol=6e-6)


def test_forces_are_those_of_lammps(evaluation):
    expected = np.concatenate([frame.arrays["lammps_forces"] for frame in FRAMES])
    np.testing.assert_allclose(evaluation.forces, expected, atol=6e-6)


@pytest.mark.parametrize("system", range(len(FRAMES)))
def test_stress_is_that_of_lammps(evaluation, system):
    stress = full_3x3_to_voigt_6_stress(evaluation.stress[system])
    np.testing.assert_allclose(stress, FRAMES[system].info["lammps_stress"], atol=3e-7)
