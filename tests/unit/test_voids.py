"""The room between atoms: limits that are known without a computer."""

import numpy as np
import pytest
import torch

from amden.analysis.voids import voids
from amden.structure import Structures
from amden.testing import diamond, random_structures


def test_an_ideal_gas_has_exponential_voids():
    positions = 16.0 * torch.rand(20 * 200, 3, generator=torch.Generator().manual_seed(3))
    cells = 16.0 * torch.eye(3).repeat(20, 1, 1)
    gas = Structures(positions, torch.full((4000,), 14), cells, torch.full((20,), 200))
    found = voids(gas, r_max=4.0)
    density = (gas.n_atoms.double() / gas.volume.double()).numpy()
    expected = np.exp(-4.0 / 3.0 * np.pi * density[:, None] * found.edges**3)
    # points of one system see the same atoms: the spread between systems is the error
    error = (found.outside - expected).std(axis=0, ddof=1) / len(gas) ** 0.5
    assert np.abs(found.mean - expected.mean(axis=0)).max() < 4.0 * error.max()
    assert error.max() < 0.02


@pytest.mark.parametrize("a", [3.0, 5.0])
def test_spheres_of_a_simple_cube(a):
    cube = Structures(torch.full((1, 3), 0.3), torch.tensor([14]), a * torch.eye(3)[None], torch.tensor([1]))
    found = voids(cube, points_per_atom=30_000)
    inside = found.edges < a / 2
    volume = 4.0 / 3.0 * np.pi * found.edges[inside] ** 3 / a**3
    assert found.outside[0, inside] == pytest.approx(1.0 - volume, abs=0.003)
    assert found.largest[0] == pytest.approx(a * 3**0.5 / 2, abs=0.08)


def test_the_largest_hole_of_diamond_is_a_bond_wide():
    assert voids(diamond(a=5.43), points_per_atom=4000).largest[0] == pytest.approx(5.43 * 3**0.5 / 4, abs=0.06)


def test_a_cell_and_its_repetition_are_as_empty():
    one = random_structures([20], seed=5, skew=0.4).to(dtype=torch.float64)
    shifts = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(2)).double() @ one.cell[0]
    many = Structures(
        (one.positions[None] + shifts[:, None]).reshape(-1, 3), one.species.repeat(8), 2 * one.cell, 8 * one.n_atoms
    )
    a, b = voids(one, points_per_atom=2000), voids(many, points_per_atom=500)
    assert a.mean == pytest.approx(b.mean, abs=0.005)


def test_a_range_of_nothing():
    with pytest.raises(ValueError, match="must be positive"):
        voids(diamond(), r_max=0.0)
