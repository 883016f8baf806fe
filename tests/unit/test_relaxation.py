"""Relaxation with a calculator whose minimum is known by other means."""

from functools import partial

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.optimize import minimize_scalar

from amden.analysis.relaxation import potential_energies, relax
from amden.io import from_ase, to_ase
from amden.structure import Structures, concatenate


@pytest.fixture(scope="module")
def disturbed() -> Structures:
    """Two strained copper cells with displaced atoms."""
    structures = []
    for seed, a in enumerate((3.5, 3.7)):
        crystal = from_ase([bulk("Cu", a=a, cubic=True)])
        noise = 0.1 * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        structures.append(Structures(crystal.positions + noise, crystal.species, crystal.cell, crystal.n_atoms))
    return concatenate(structures)


def energy_of_fcc(a: float) -> float:
    crystal = bulk("Cu", a=a, cubic=True)
    crystal.calc = EMT()
    return crystal.get_potential_energy()


def test_atoms_and_cell_come_to_the_minimum(disturbed):
    done = []
    found = relax(disturbed, calculator=EMT, fmax=1e-3, workers=1, progress=done.append)
    best = minimize_scalar(energy_of_fcc, bounds=(3.4, 3.8), method="bounded", options={"xatol": 1e-6})
    np.testing.assert_allclose(found.energy, best.fun, atol=1e-4)
    np.testing.assert_allclose(found.structures.volume, best.x**3, rtol=1e-3)
    assert found.converged.all()
    assert done == [1, 2]
    np.testing.assert_allclose(potential_energies(found.structures, calculator=EMT), found.energy, atol=1e-6)


def test_the_structures_given_are_left_as_they_were(disturbed):
    before = disturbed.positions.clone()
    relax(disturbed, calculator=EMT, fmax=0.05, workers=1)
    assert torch.equal(disturbed.positions, before)


def test_processes_change_nothing(disturbed):
    alone = relax(disturbed, calculator=EMT, fmax=0.05, workers=1)
    shared = relax(disturbed, calculator=EMT, fmax=0.05, workers=2)
    np.testing.assert_array_equal(alone.energy, shared.energy)
    assert torch.equal(alone.structures.positions, shared.structures.positions)


def test_what_did_not_converge_is_told(disturbed):
    found = relax(disturbed, calculator=EMT, fmax=1e-6, max_steps=1, workers=1)
    assert not found.converged.any()
    assert (found.energy < potential_energies(disturbed, calculator=EMT)).all()


def test_energies_are_those_of_the_calculator(disturbed):
    images = to_ase(disturbed)
    for atoms in images:
        atoms.calc = EMT()
    expected = [atoms.get_potential_energy() for atoms in images]
    np.testing.assert_allclose(potential_energies(disturbed, calculator=partial(EMT)), expected)


def test_bad_input(disturbed):
    with pytest.raises(ValueError, match=r"`fmax` and `max_steps` must be positive, got 0.0 and 5000"):
        relax(disturbed, calculator=EMT, fmax=0.0)
