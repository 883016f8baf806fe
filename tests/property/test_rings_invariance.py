"""Rings do not change with the description of a structure: its origin, orientation, order, cell and repetition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amden.analysis.rings import DEFINITIONS, rings
from amden.structure import Structures
from amden.testing import random_structures, supercell
from amden.testing.builders import rotation

NETWORKS = {"n_atoms": st.lists(st.integers(1, 9), min_size=1, max_size=2), "seed": st.integers(0, 10**6)}
glasses = st.fixed_dictionaries({**NETWORKS, "species": st.sampled_from([(14,), (8, 14)]), "skew": st.just(0.1)})
seeds = st.integers(0, 10**6)
some = settings(max_examples=10, deadline=None)


def counts(structures: Structures, *, definitions: tuple[str, ...] = ("guttman", "king", "primitive")) -> np.ndarray:
    """Rings of up to 7 atoms, by the number of all atoms; the last column is what stays open."""
    every = [rings(structures, definition=d, cutoff=3.0, max_nodes=7) for d in definitions]
    return np.stack(
        [np.column_stack([np.pad(r.counts, ((0, 0), (0, 8 - r.counts.shape[1]))), r.n_open]) for r in every]
    )


@some
@given(glasses, seeds)
def test_rotation_translation_and_lattice_vectors(made, seed):
    glass = random_structures(**made)
    generator = torch.Generator().manual_seed(seed)
    turn = rotation(generator)
    images = torch.randint(-3, 4, glass.positions.shape, generator=generator).double()
    moved = glass.positions + torch.einsum("ai,aij->aj", images, glass.cell[glass.system]) + torch.rand(3)
    lower, upper = (
        torch.eye(3, dtype=torch.float64) + torch.tril(torch.randint(-1, 2, (3, 3), generator=generator), -1)
        for _ in range(2)
    )
    other = replace(glass, positions=moved @ turn, cell=lower @ upper.T @ glass.cell @ turn)
    np.testing.assert_array_equal(counts(glass), counts(other))


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
    np.testing.assert_array_equal(counts(glass), counts(shuffled))


@some
@given(glasses, st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3)))
def test_supercell(made, repeat):
    glass = random_structures(**made)
    np.testing.assert_array_equal(counts(glass) * np.prod(repeat), counts(supercell(glass, repeat)))


@some
@given(glasses)
def test_every_closing_ring_is_a_guttman_ring_and_these_are_king_and_primitive_rings(made):
    closing, guttman, king, primitive = counts(random_structures(**made), definitions=DEFINITIONS)
    assert (closing[:, :-1] <= guttman[:, :-1]).all()
    assert (guttman[:, :-1] <= king[:, :-1]).all()
    assert (guttman[:, :-1] <= primitive[:, :-1]).all()
    np.testing.assert_array_equal(closing[:, -1], guttman[:, -1])


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_longer_bound_only_adds_longer_rings(definition):
    glass = random_structures([27, 20], seed=4)
    near, far = (rings(glass, definition=definition, cutoff=2.9, max_nodes=n) for n in (6, 10))
    np.testing.assert_array_equal(near.counts, far.counts[:, : near.counts.shape[1]])
    assert (far.n_open <= near.n_open).all()
