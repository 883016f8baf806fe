"""Masses, densities and charges of structures whose atoms are counted by hand."""

import numpy as np
import pytest
import torch

from amden.analysis.composition import charge, composition
from amden.structure import Structures
from amden.testing import diamond


def of(*species: list[int], edge: float = 5.0) -> Structures:
    n = torch.tensor([len(s) for s in species])
    numbers = torch.tensor([z for s in species for z in s])
    cell = edge * torch.eye(3, dtype=torch.float64).repeat(len(species), 1, 1)
    return Structures(torch.rand(len(numbers), 3).double(), numbers, cell, n)


def test_counts_mass_and_density():
    found = composition(of([14, 8, 8, 0], [14, 14], edge=4.0))
    assert {name: n.tolist() for name, n in found.counts.items()} == {"O": [2, 0], "Si": [1, 2]}
    np.testing.assert_allclose(found.mass, [28.085 + 2 * 15.999, 2 * 28.085], rtol=1e-6)
    np.testing.assert_allclose(found.density, found.mass * 1.66053906660 / 64, rtol=1e-6)
    np.testing.assert_allclose(found.number_density, [3 / 64, 2 / 64])
    np.testing.assert_allclose(found.fractions["O"], [2 / 3, 0])
    assert found.rows()[0]["n_O"] == 2
    assert composition(diamond()).density[0] == pytest.approx(2.329, abs=1e-3)  # crystalline silicon


def test_charge_of_balanced_and_unbalanced():
    found = charge(of([14, 8, 8], [14, 8], [11, 11, 8, 0], [15, 15, 8, 8, 8, 8, 8]))
    assert found.total.tolist() == [0, 2, 0, 0]
    np.testing.assert_allclose(found.per_atom, [0, 1, 0, 0])
    assert found.balanced == 0.75
    assert found.mean_absolute == 0.25
    assert found.formal == {"O": -2, "Na": 1, "Si": 4, "P": 5}


def test_charges_may_be_said():
    halves = charge(of([14, 8, 8, 8]), charges={"Si": 2, "O": -1})  # the paper's
    assert halves.total.tolist() == [-1]
    assert charge(of([26, 8]), charges={"Fe": 2}).total.tolist() == [0]
    with pytest.raises(ValueError, match=r"no formal charge is known for 'Fe': say it, as in `charges=.'Fe': 2.`"):
        charge(of([26, 8]))
