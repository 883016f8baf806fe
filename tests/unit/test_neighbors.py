from dataclasses import replace

import pytest
import torch

from amden.neighbors import (
    check_cutoff,
    check_overlaps,
    expected_capacity,
    neighbor_list,
    neighbor_matrix,
    neighbor_plan,
    shortest_distance,
)
from amden.structure import Structures, concatenate
from amden.testing import diamond, random_structures

A = 5.431
SHELLS = {(3**0.5 / 4) * A: 4, (2**0.5 / 2) * A: 12, (11**0.5 / 4) * A: 12, A: 6}
"""Distances and occupations of the neighbour shells of diamond."""

PRIMITIVE = Structures(
    torch.tensor([[0.0, 0, 0], [A / 4, A / 4, A / 4]], dtype=torch.float64),
    torch.tensor([14, 14]),
    A / 2 * torch.tensor([[[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]], dtype=torch.float64),
    torch.tensor([2]),
)


def matrix(structures: Structures, *, dense: bool = True, **options):
    cell, n_atoms = structures.cell, structures.n_atoms
    capacity = options.pop("capacity", None)
    plan = replace(neighbor_plan(cell, n_atoms, cutoff=options["cutoff"], capacity=capacity), dense=dense)
    return neighbor_matrix(structures.positions, cell, n_atoms, plan=plan, **options)


def row_vectors(structures: Structures, found) -> torch.Tensor:
    return structures.positions[found.target] - structures.positions[:, None] + found.offset


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("crystal", [PRIMITIVE, diamond(), diamond((3, 1, 2))], ids=["primitive", "cubic", "large"])
def test_shells_of_diamond_in_any_cell(crystal, dense):
    found = matrix(crystal, dense=dense, cutoff=5.5)
    assert (found.n_neighbors == 34).all()
    distances = row_vectors(crystal, found).norm(dim=-1)[:, :34]
    expected = torch.cat([torch.full((n,), d, dtype=torch.float64) for d, n in SHELLS.items()])
    assert torch.allclose(distances, expected.expand_as(distances))
    assert found.target.shape == (len(crystal.positions), 40)


def test_one_atom_sees_its_own_images():
    atom = Structures(torch.zeros(1, 3), torch.tensor([14]), torch.eye(3)[None], torch.tensor([1]))
    edges = neighbor_list(atom, cutoff=1.5)
    assert len(edges) == 6 + 12
    assert (edges.source == edges.target).all()
    assert (edges.shift != 0).any(1).all()


@pytest.mark.parametrize("dense", [True, False])
def test_padding_points_to_the_atom_itself_beyond_the_cutoff(dense):
    batch = random_structures([5, 30, 1], dtype=torch.float32)
    found = matrix(batch, dense=dense, cutoff=3.0, capacity=40)
    vectors = row_vectors(batch, found)
    for i, n in enumerate(found.n_neighbors.tolist()):
        assert (found.target[i, n:] == i).all()
        assert torch.equal(vectors[i, n:], torch.tensor([6.0, 0, 0]).expand(40 - n, 3))
        assert (vectors[i, :n].norm(dim=-1) < 3.0).all()
    assert found.target.shape == (36, 40)
    assert not found.overflow


@pytest.mark.parametrize("dense", [True, False])
def test_full_rows_keep_the_nearest_and_say_so(dense):
    batch = random_structures([40, 25])
    whole = matrix(batch, dense=dense, cutoff=4.0)
    short = matrix(batch, dense=dense, cutoff=4.0, capacity=6)
    assert whole.n_neighbors.max() > 6
    assert short.overflow
    assert not whole.overflow
    assert short.n_neighbors.max() == 6
    nearest = row_vectors(batch, whole).norm(dim=-1)[:, :6].clamp(max=4.0)
    assert torch.allclose(row_vectors(batch, short).norm(dim=-1).clamp(max=4.0), nearest, atol=1e-4)


@pytest.mark.parametrize("dense", [True, False])
def test_rows_are_nearest_first_and_counted_up_to_a_multiple(dense):
    batch = random_structures([40, 25, 3])
    found = matrix(batch, dense=dense, cutoff=5.0)
    distances = row_vectors(batch, found).norm(dim=-1)
    assert (distances.diff(dim=1) > -1e-3).all()
    assert found.target.shape[1] % 8 == 0
    assert found.target.shape[1] - found.n_neighbors.max() < 8


@pytest.mark.parametrize("n_atoms", [[600, 300, 2], [200] * 8])
def test_more_pairs_than_one_block_holds(n_atoms):
    """Blocks of rows and of systems: both searches and both results say the same."""
    batch = random_structures(n_atoms, skew=0.1)
    plan = neighbor_plan(batch.cell, batch.n_atoms, cutoff=4.0)
    counts = [
        torch.bincount(neighbor_list(batch, cutoff=4.0, plan=replace(plan, dense=dense)).source)
        for dense in (True, False)
    ]
    assert torch.equal(*counts)
    assert torch.equal(matrix(batch, cutoff=4.0).n_neighbors, counts[0])


def test_list_gives_differentiable_vectors():
    batch = random_structures([6])
    edges = neighbor_list(batch, cutoff=5.0)
    positions, cell = batch.positions.clone().requires_grad_(), batch.cell.clone().requires_grad_()
    total = edges.vectors(positions, cell, batch.system).square().sum()
    gradient, strain_gradient = torch.autograd.grad(total, (positions, cell))
    vectors = edges.vectors(batch.positions, batch.cell, batch.system)
    expected = torch.zeros_like(gradient).index_add(0, edges.source, -4 * vectors)
    assert torch.allclose(gradient, expected)
    assert torch.allclose(strain_gradient[0], 2 * edges.shift.double().T @ vectors)


def test_a_plan_serves_every_step():
    batch = random_structures([20, 20])
    plan = neighbor_plan(batch.cell, batch.n_atoms, cutoff=4.0, capacity=64)
    for step in range(3):
        positions = batch.positions + step
        found = neighbor_matrix(positions, batch.cell, batch.n_atoms, cutoff=4.0, plan=plan)
        fresh = neighbor_matrix(positions, batch.cell, batch.n_atoms, cutoff=4.0, capacity=64)
        assert torch.equal(found.target, fresh.target)
        assert torch.equal(found.offset, fresh.offset)


def test_autocast_does_not_touch_geometry():
    batch = random_structures([20, 25], dtype=torch.float32)
    plain = neighbor_matrix(batch.positions, batch.cell, batch.n_atoms, cutoff=4.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = neighbor_matrix(batch.positions, batch.cell, batch.n_atoms, cutoff=4.0)
    assert torch.equal(plain.target, cast.target)
    assert torch.equal(plain.offset, cast.offset)


def test_capacity_for_random_positions_is_seldom_too_small():
    cell, n_atoms = 17.0 * torch.eye(3)[None], torch.tensor([256])
    capacity = expected_capacity(cell, n_atoms, cutoff=6.5)
    positions = 17.0 * torch.rand(40 * 256, 3, generator=torch.Generator().manual_seed(0))
    found = neighbor_matrix(positions, cell.repeat(40, 1, 1), n_atoms.repeat(40), cutoff=6.5, capacity=capacity)
    assert not found.overflow
    assert found.n_neighbors.float().mean() == pytest.approx(255 / 17**3 * 4 / 3 * torch.pi * 6.5**3, rel=0.01)


@pytest.mark.parametrize("dense", [True, False])
def test_systems_without_atoms_or_neighbours(dense):
    ghosts = random_structures([4, 4])
    batch = replace(ghosts, species=ghosts.species * ghosts.system).without_ghosts()
    found = matrix(batch, dense=dense, cutoff=0.01)
    assert found.n_neighbors.tolist() == [0] * 4
    assert len(neighbor_list(batch.select([]), cutoff=3.0)) == 0
    assert neighbor_matrix(
        *(getattr(batch.select([]), k) for k in ("positions", "cell", "n_atoms")), cutoff=3.0
    ).target.shape == (0, 8)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan"), float("inf")])
def test_cutoff_that_is_no_length(cutoff):
    with pytest.raises(ValueError, match="`cutoff` must be positive and finite, got"):
        neighbor_list(diamond(), cutoff=cutoff)


@pytest.mark.parametrize("name", ["capacity", "multiple"])
def test_row_length_that_is_none(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        neighbor_plan(diamond().cell, torch.tensor([8]), cutoff=3.0, **{name: 0})


def test_plan_of_another_cutoff():
    crystal = diamond()
    plan = neighbor_plan(crystal.cell, crystal.n_atoms, cutoff=3.0)
    with pytest.raises(ValueError, match=r"`plan` was made for a cutoff of 3.0 Å, not 4.0 Å"):
        neighbor_list(crystal, cutoff=4.0, plan=plan)


@pytest.mark.parametrize("height", [0.0, float("nan")])
def test_cell_without_volume(height):
    flat = replace(diamond(), cell=torch.diag(torch.tensor([5.0, 5.0, height], dtype=torch.float64))[None])
    both = concatenate([diamond(), flat])
    with pytest.raises(ValueError, match="structure 1 has a cell with vanishing volume"):
        neighbor_list(both, cutoff=3.0)


def test_cell_too_thin_to_search():
    thin = replace(diamond(), cell=torch.diag(torch.tensor([5.0, 5.0, 1e-7], dtype=torch.float64))[None])
    with pytest.raises(ValueError, match=r"structure 0 has a cell only 1e-07 Å thin: too many images inside `cutoff`"):
        neighbor_list(thin, cutoff=3.0)


def test_shortest_distance_of_each_system():
    loose = Structures(
        torch.tensor([[0.5, 0, 0], [19.0, 0, 0]]).double(),
        torch.tensor([14, 14]),
        torch.diag(torch.tensor([20.0, 50, 80]).double())[None],
        torch.tensor([2]),
    )
    batch = concatenate([diamond(), loose, PRIMITIVE.select([0])])
    assert shortest_distance(batch).tolist() == pytest.approx([A * 3**0.5 / 4, 1.5, A * 3**0.5 / 4])


def test_shortest_distance_of_the_densest_packing():
    """Face-centred cubic: the bound on the shortest distance that the search relies on is reached."""
    edge = 4.0
    fcc = edge / 2 * torch.tensor([[[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]])
    atom = Structures(torch.zeros(1, 3), torch.tensor([14]), fcc, torch.tensor([1]))
    assert shortest_distance(atom).tolist() == pytest.approx([edge / 2**0.5])


def test_cutoff_that_finds_nobody():
    batch = concatenate([diamond(a=4.0), diamond()])
    check_cutoff(batch, cutoff=2.4)
    message = r"si.extxyz: structure 1 has no neighbours: its shortest distance is 2.352 Å, `cutoff` is 2.0 Å"
    with pytest.raises(ValueError, match=message):
        check_cutoff(batch, cutoff=2.0, source="si.extxyz")


def test_overlapping_atoms_are_named_across_the_boundary():
    crystal = diamond()
    positions = crystal.positions.clone()
    positions[5] = positions[2] + torch.tensor([A - 0.3, 0.0, A])
    broken = concatenate([crystal, replace(crystal, positions=positions)])
    check_overlaps(broken, min_distance=0.2)
    message = r"si.extxyz: structure 1 has overlapping atoms: 2 and 5 are 0.300 Å apart, less than 0.5 Å"
    with pytest.raises(ValueError, match=message):
        check_overlaps(broken, min_distance=0.5, source="si.extxyz")


def test_an_atom_overlapping_its_own_image():
    atom = Structures(
        torch.zeros(1, 3), torch.tensor([14]), torch.diag(torch.tensor([0.4, 9, 9]))[None], torch.tensor([1])
    )
    with pytest.raises(ValueError, match=r"0 and 0 are 0.400 Å apart"):
        check_overlaps(atom, min_distance=0.5)


@pytest.mark.parametrize("width", [4.0, 5.0, 7.9])
def test_one_side_of_images_is_enough_where_cells_are_thicker_than_the_cutoff(width):
    """Eight images find what twenty-seven find, for atoms on planes of symmetry too."""
    generator = torch.Generator().manual_seed(0)
    strain = 0.1 * torch.rand((2, 3, 3), generator=generator)
    cell = width * 1.2 * (torch.eye(3) + strain)
    s = torch.rand((60, 3), generator=generator)
    s[:8] = 0.5 * torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]])
    n_atoms = torch.tensor([30, 30])
    positions = torch.einsum("ai,aij->aj", s, cell[torch.arange(2).repeat_interleave(30)]).double()
    plan = neighbor_plan(cell.double(), n_atoms, cutoff=4.0, dense=True)
    assert plan.one_sided
    assert len(plan.images) == (8 if width < 7 else 1)
    whole = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
    both = replace(plan, images=whole, one_sided=False)
    few, many = (neighbor_matrix(positions, plan.cell, n_atoms, cutoff=4.0, plan=p) for p in (plan, both))
    assert torch.equal(few.n_neighbors, many.n_neighbors)

    def distances(found):
        r = positions[found.target] - positions[:, None] + found.offset
        return r.square().sum(-1).sort(1).values

    torch.testing.assert_close(distances(few), distances(many))
