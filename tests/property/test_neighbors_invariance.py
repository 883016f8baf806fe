"""A search knows no orientation, origin, order of atoms, choice of lattice vectors, or other systems."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amden.neighbors import NeighborList, neighbor_list, neighbor_matrix, neighbor_plan
from amden.structure import Structures, concatenate
from amden.testing import random_structures, supercell
from amden.testing.builders import rotation

BOTH = pytest.mark.parametrize("dense", [True, False])
seeds = st.integers(0, 2**32 - 1)
cutoffs = st.floats(1.0, 7.0)
sizes = st.integers(1, 40)
few = settings(max_examples=25, deadline=None)


def search(structures: Structures, cutoff: float, dense: bool) -> NeighborList:
    plan = neighbor_plan(structures.cell, structures.n_atoms, cutoff=cutoff)
    return neighbor_list(structures, cutoff=cutoff, plan=replace(plan, dense=dense))


def edges(structures: Structures, cutoff: float, dense: bool) -> np.ndarray:
    """Rows (source, target, shift) in order."""
    found = search(structures, cutoff, dense)
    rows = torch.cat([found.source[:, None], found.target[:, None], found.shift], 1).numpy()
    return rows[np.lexsort(rows.T[::-1])]


def distances(structures: Structures, cutoff: float, dense: bool) -> np.ndarray:
    """Sorted distances from each atom, in order of atoms."""
    found = search(structures, cutoff, dense)
    length = found.vectors(structures.positions, structures.cell, structures.system).norm(dim=1).numpy()
    return length[np.lexsort((length, found.source.numpy()))]


@BOTH
@few
@given(seed=seeds, n=sizes, cutoff=cutoffs, reflected=st.booleans())
def test_rotation_and_reflection_and_translation(dense, seed, n, cutoff, reflected):
    batch = random_structures([n], seed=seed)
    turn = rotation(torch.Generator().manual_seed(seed), reflected=reflected)
    moved = replace(batch, positions=batch.positions @ turn + turn[0], cell=batch.cell @ turn)
    assert np.array_equal(edges(moved, cutoff, dense), edges(batch, cutoff, dense))


@BOTH
@few
@given(seed=seeds, n=sizes, cutoff=cutoffs)
def test_lattice_vectors_added_to_atoms_are_taken_off_the_shift(dense, seed, n, cutoff):
    batch = random_structures([n], seed=seed)
    added = torch.randint(-5, 6, (n, 3), generator=torch.Generator().manual_seed(seed))
    moved = replace(batch, positions=batch.positions + added.double() @ batch.cell[0])
    rows = edges(moved, cutoff, dense)
    rows[:, 2:] += added.numpy()[rows[:, 1]] - added.numpy()[rows[:, 0]]
    assert np.array_equal(rows[np.lexsort(rows.T[::-1])], edges(batch, cutoff, dense))


@BOTH
@few
@given(seed=seeds, n=sizes, cutoff=cutoffs)
def test_order_of_atoms(dense, seed, n, cutoff):
    batch = random_structures([n], seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = replace(batch, positions=batch.positions[order])
    rows = edges(moved, cutoff, dense)
    rows[:, :2] = order.numpy()[rows[:, :2]]
    assert np.array_equal(rows[np.lexsort(rows.T[::-1])], edges(batch, cutoff, dense))


@BOTH
@few
@given(seed=seeds, n=st.integers(1, 20), cutoff=st.floats(1.0, 5.0), steps=st.integers(1, 3))
def test_other_lattice_vectors_of_the_same_lattice(dense, seed, n, cutoff, steps):
    """Adding lattice vectors to one another makes a cell as skewed as one likes, of the same crystal."""
    batch = random_structures([n], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    change = torch.eye(3, dtype=torch.float64)
    for _ in range(steps):
        i, j = torch.randperm(3, generator=generator)[:2].tolist()
        change[i] += (2 * torch.randint(2, (), generator=generator) - 1) * change[j]
    skewed = replace(batch, cell=change @ batch.cell)
    assert distances(skewed, cutoff, dense) == pytest.approx(distances(batch, cutoff, dense), abs=1e-9)


@BOTH
@few
@given(seed=seeds, n=st.integers(1, 12), cutoff=cutoffs, repeat=st.tuples(*[st.integers(1, 3)] * 3))
def test_supercell(dense, seed, n, cutoff, repeat):
    batch = random_structures([n], seed=seed)
    copies = repeat[0] * repeat[1] * repeat[2]
    once = distances(batch, cutoff, dense)
    assert distances(supercell(batch, repeat), cutoff, dense) == pytest.approx(np.tile(once, copies), abs=1e-9)


@BOTH
@few
@given(seed=seeds, n=sizes, cutoff=cutoffs)
def test_every_edge_has_its_reverse(dense, seed, n, cutoff):
    rows = edges(random_structures([n], seed=seed), cutoff, dense)
    back = np.concatenate([rows[:, [1, 0]], -rows[:, 2:]], 1)
    assert np.array_equal(back[np.lexsort(back.T[::-1])], rows)


@BOTH
@few
@given(seed=seeds, ns=st.lists(sizes, min_size=2, max_size=4), cutoff=cutoffs, equal=st.booleans())
def test_other_systems_of_the_batch_change_nothing(dense, seed, ns, cutoff, equal):
    ns = [ns[0]] * len(ns) if equal else ns
    parts = [random_structures([n], seed=seed + i, dtype=torch.float32) for i, n in enumerate(ns)]
    capacity = 200
    together = rows(concatenate(parts), cutoff, dense, capacity)
    first = 0
    for part in parts:
        n = len(part.positions)
        alone = rows(part, cutoff, dense, capacity)
        assert torch.equal(alone.target, together.target[first : first + n] - first)
        assert torch.equal(alone.offset, together.offset[first : first + n])
        first += n


def rows(structures: Structures, cutoff: float, dense: bool, capacity: int):
    plan = neighbor_plan(structures.cell, structures.n_atoms, cutoff=cutoff, capacity=capacity)
    return neighbor_matrix(
        structures.positions, structures.cell, structures.n_atoms, cutoff=cutoff, plan=replace(plan, dense=dense)
    )


@BOTH
@few
@given(seed=seeds, ns=st.lists(sizes, min_size=1, max_size=3), cutoff=cutoffs)
def test_list_and_matrix_hold_the_same_edges(dense, seed, ns, cutoff):
    batch = random_structures(ns, seed=seed)
    plan = replace(neighbor_plan(batch.cell, batch.n_atoms, cutoff=cutoff), dense=dense)
    found = neighbor_matrix(batch.positions, batch.cell, batch.n_atoms, cutoff=cutoff, plan=plan)
    vectors = batch.positions[found.target] - batch.positions[:, None] + found.offset
    length = vectors.norm(dim=-1)
    assert torch.equal((length < cutoff).sum(1), found.n_neighbors)
    in_rows = np.concatenate([np.sort(row[:n]) for row, n in zip(length.numpy(), found.n_neighbors, strict=True)])
    assert in_rows == pytest.approx(distances(batch, cutoff, dense), abs=1e-12)
