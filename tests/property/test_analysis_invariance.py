"""Counts do not change with the description of a structure: its origin, orientation, order, cell and repetition."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amden.analysis.grid import kinds
from amden.analysis.histogram import bond_counts, distance_counts
from amden.structure import Structures
from amden.testing import random_structures, supercell
from amden.testing.builders import rotation

glasses = st.fixed_dictionaries(
    {
        "n_atoms": st.lists(st.integers(1, 12), min_size=1, max_size=2),
        "seed": st.integers(0, 10**6),
        "species": st.sampled_from([(14,), (8, 14)]),
        "skew": st.sampled_from([0.03, 0.2]),
    }
)
seeds = st.integers(0, 10**6)
some = settings(max_examples=12, deadline=None)


def counts(structures: Structures, *, copies: int = 1) -> tuple[np.ndarray, ...]:
    """Distances, bonds by number, and angles, an atom of the cell."""
    n = len(kinds(structures))
    bonds, angles = bond_counts(structures, cutoffs=np.full((n, n), 3.3), n_bins=60)
    of_systems = np.split(bonds, torch.cumsum(structures.n_atoms, 0)[:-1].tolist())
    numbers = np.stack([np.apply_along_axis(np.bincount, 0, b, minlength=60) for b in of_systems])
    distances = distance_counts(structures, r_max=6.0, n_bins=40)
    return tuple(a / copies for a in (distances, numbers, angles))


def assert_same(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@some
@given(glasses, seeds)
def test_rotation_and_reflection(made, seed):
    glass = random_structures(**made)
    turn = rotation(torch.Generator().manual_seed(seed), reflected=False)
    turned = replace(glass, positions=glass.positions @ turn, cell=glass.cell @ turn)
    assert_same(counts(glass), counts(turned))


@some
@given(glasses, seeds)
def test_translation_and_lattice_vectors(made, seed):
    glass = random_structures(**made)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-3, 4, glass.positions.shape, generator=generator).double()
    moved = glass.positions + torch.einsum("ai,aij->aj", images, glass.cell[glass.system]) + 100.0 * torch.rand(3)
    assert_same(counts(glass), counts(replace(glass, positions=moved)))


@some
@given(glasses, seeds)
def test_order_of_atoms(made, seed):
    glass = random_structures(**made)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [
            f + torch.randperm(n, generator=generator)
            for f, n in zip(glass.first.tolist(), glass.n_atoms.tolist(), strict=True)
        ]
    )
    shuffled = replace(glass, positions=glass.positions[order], species=glass.species[order])
    assert_same(counts(glass), counts(shuffled))


@some
@given(glasses, seeds)
def test_choice_of_lattice_vectors(made, seed):
    """Another basis of the same lattice, often much more skewed."""
    glass = random_structures(**made)
    generator = torch.Generator().manual_seed(seed)
    lower, upper = (
        torch.eye(3, dtype=torch.float64) + torch.tril(torch.randint(-2, 3, (3, 3), generator=generator), -1)
        for _ in range(2)
    )
    assert_same(counts(glass), counts(replace(glass, cell=lower @ upper.T @ glass.cell)))


@some
@given(glasses, st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)))
def test_supercell(made, repeat):
    glass = random_structures(**made)
    larger = supercell(glass, repeat)
    assert_same(counts(glass), counts(larger, copies=int(np.prod(repeat))))


@some
@given(glasses)
def test_batch(made):
    glass = random_structures(**made)
    apart = [counts(glass.select([i])) for i in range(len(glass)) if len(kinds(glass.select([i]))) == len(kinds(glass))]
    if len(apart) == len(glass):
        assert_same(counts(glass), tuple(np.concatenate(parts) for parts in zip(*apart, strict=True)))
