"""The neighbour search against two independent codes: vesin (cell lists in C++) and ASE (numpy)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list as ase_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from vesin import NeighborList as VesinList

from amden.neighbors import neighbor_list, neighbor_plan
from amden.structure import Structures
from amden.testing import diamond, random_structures, supercell
from amden.testing.builders import rotation

seeds = st.integers(0, 2**32 - 1)


def ours(structures: Structures, cutoff: float, *, dense: bool | None = None) -> np.ndarray:
    plan = neighbor_plan(structures.cell, structures.n_atoms, cutoff=cutoff)
    plan = plan if dense is None else replace(plan, dense=dense)
    found = neighbor_list(structures, cutoff=cutoff, plan=plan)
    return in_order(found.source.numpy(), found.target.numpy(), found.shift.numpy())


def vesin(structures: Structures, cutoff: float) -> np.ndarray:
    search = VesinList(cutoff=cutoff, full_list=True)
    points, box = structures.positions.numpy(), structures.cell[0].numpy()
    return in_order(*search.compute(points=points, box=box, periodic=True, quantities="ijS"))


def ase(structures: Structures, cutoff: float) -> np.ndarray:
    numbers, positions, cell = (x.numpy() for x in (structures.species, structures.positions, structures.cell[0]))
    atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=True)
    return in_order(*ase_neighbor_list("ijS", atoms, cutoff))


def in_order(source: np.ndarray, target: np.ndarray, shift: np.ndarray) -> np.ndarray:
    rows = np.concatenate([np.stack([source, target], 1), shift], 1).astype(np.int64)
    return rows[np.lexsort(rows.T[::-1])]


def disturbed(seed: int, n: int) -> Structures:
    """Random atoms in a strained, turned cell, scattered over its images."""
    generator = torch.Generator().manual_seed(seed)
    batch = random_structures([n], seed=seed, skew=0.35)
    strain = torch.eye(3, dtype=torch.float64) + 0.1 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    change = strain @ rotation(generator)
    images = torch.randint(-4, 5, (n, 3), generator=generator).double()
    positions = (batch.positions + images @ batch.cell[0]) @ change
    return replace(batch, positions=positions, cell=batch.cell @ change)


@pytest.mark.parametrize("dense", [True, False])
@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(1, 80), cutoff=st.floats(0.8, 7.0))
def test_random_rotations_strains_and_wraps(dense, seed, n, cutoff):
    structures = disturbed(seed, n)
    found = ours(structures, cutoff, dense=dense)
    assert np.array_equal(found, vesin(structures, cutoff))
    assert np.array_equal(found, ase(structures, cutoff))


@pytest.mark.parametrize(("n", "cutoff"), [(2, 12.0), (256, 6.5), (800, 12.0), (5000, 4.0)])
def test_sizes_people_use(n, cutoff):
    structures = disturbed(1, n)
    assert np.array_equal(ours(structures, cutoff), vesin(structures, cutoff))


def test_100_000_atoms():
    crystal = supercell(diamond(), (25, 25, 20))
    noise = torch.randn(len(crystal.positions), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    warm = replace(crystal, positions=crystal.positions + 0.2 * noise)
    assert len(warm.positions) == 100_000
    assert np.array_equal(ours(warm, 2.9), vesin(warm, 2.9))
