import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amden import cell as lattice
from amden.testing import random_structures

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=50, deadline=None)


def random_cell(seed: int) -> torch.Tensor:
    return random_structures([1], seed=seed, spacing=5.0, skew=0.4).cell


def random_points(seed: int, n: int = 20) -> torch.Tensor:
    return 30.0 * torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3)))


@few
@given(seeds)
def test_volume_and_inverse_are_those_of_linear_algebra(seed):
    cell = random_cell(seed)
    assert lattice.volume(cell).item() == pytest.approx(np.linalg.det(cell[0].numpy()), rel=1e-10)
    assert torch.allclose(lattice.inverse(cell) @ cell, torch.eye(3, dtype=cell.dtype), atol=1e-12)


def test_volume_of_a_left_handed_cell_is_negative():
    assert lattice.volume(torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])).item() == -1.0


@few
@given(seeds)
def test_heights_are_volume_over_area(seed):
    a, b, c = random_cell(seed)[0].numpy()
    volume = abs(np.dot(a, np.cross(b, c)))
    areas = [np.linalg.norm(np.cross(b, c)), np.linalg.norm(np.cross(c, a)), np.linalg.norm(np.cross(a, b))]
    assert lattice.heights(torch.from_numpy(np.stack([a, b, c]))).numpy() == pytest.approx(volume / np.array(areas))


@few
@given(seeds)
def test_wrapping_moves_by_lattice_vectors_into_the_cell(seed):
    cell, points = random_cell(seed), random_points(seed)
    wrapped = lattice.wrap(points, cell)
    s = lattice.fractional(wrapped, cell)
    moved = lattice.fractional(points - wrapped, cell)
    assert s.min() > -1e-9
    assert s.max() < 1 + 1e-9
    assert torch.allclose(moved, moved.round(), atol=1e-9)


@few
@given(seeds)
def test_fractional_and_cartesian_are_inverse(seed):
    cell, points = random_cell(seed), random_points(seed)
    assert torch.allclose(lattice.cartesian(lattice.fractional(points, cell), cell), points)


@few
@given(seeds)
def test_minimum_image_is_the_shortest_within_half_a_height(seed):
    cell = random_cell(seed)
    vectors = random_points(seed)
    reduced = lattice.minimum_image(vectors, cell)
    shifts = torch.cartesian_prod(*[torch.arange(-3.0, 4.0, dtype=cell.dtype)] * 3)
    images = reduced[:, None] + (shifts @ cell[0])[None]
    shortest = images.norm(dim=-1).amin(1)
    certain = shortest < lattice.heights(cell).min() / 2
    assert torch.allclose(reduced.norm(dim=-1)[certain], shortest[certain])
    assert (lattice.fractional(reduced, cell).abs() <= 0.5 + 1e-9).all()


def test_small_strain_changes_the_volume_by_its_trace():
    cell = random_cell(1)
    strain = 1e-6 * torch.tensor([[1.0, 5, 7], [2, 3, 0], [4, 1, 2]], dtype=cell.dtype)
    change = lattice.volume(lattice.deform(cell, strain)) / lattice.volume(cell) - 1
    assert change.item() == pytest.approx(6e-6, rel=1e-4)


def test_deform_strains_every_lattice_vector():
    cell = random_cell(2)
    strain = torch.randn(3, 3, dtype=cell.dtype, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lattice.deform(cell, strain), cell + cell @ strain)


def test_products_keep_their_precision_under_autocast():
    cell, points = random_cell(3).float(), random_points(3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wrapped = lattice.wrap(points, cell)
    assert torch.equal(wrapped, lattice.wrap(points, cell))
