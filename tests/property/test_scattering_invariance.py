"""S(q) and Qⁿ do not change with the description of a structure: its origin, orientation, order, cell, repetition."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amden.analysis.faber_ziman import StructureFactor
from amden.analysis.qn import qn
from amden.analysis.scattering import structure_factor
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


def found(structures: Structures) -> StructureFactor:
    return structure_factor(structures, q_max=6.0, bin_width=0.5, most=10**9)


def assert_same(a: Structures, b: Structures) -> None:
    one, other = found(a), found(b)
    np.testing.assert_array_equal(one.n_vectors, other.n_vectors)
    assert one.partials.keys() == other.partials.keys()
    for pair, s in one.partials.items():
        np.testing.assert_allclose(s, other.partials[pair], atol=1e-8)


@some
@given(glasses, seeds)
def test_rotation(made, seed):
    glass = random_structures(**made)
    turn = rotation(torch.Generator().manual_seed(seed), reflected=False)
    assert_same(glass, replace(glass, positions=glass.positions @ turn, cell=glass.cell @ turn))


@some
@given(glasses, seeds)
def test_translation_and_lattice_vectors(made, seed):
    glass = random_structures(**made)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-3, 4, glass.positions.shape, generator=generator).double()
    moved = glass.positions + torch.einsum("ai,aij->aj", images, glass.cell[glass.system]) + 100.0 * torch.rand(3)
    assert_same(glass, replace(glass, positions=moved))


@some
@given(glasses, seeds)
def test_order_of_atoms(made, seed):
    glass = random_structures(**made)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [
            first + torch.randperm(n, generator=generator)
            for first, n in zip(glass.first.tolist(), glass.n_atoms.tolist(), strict=True)
        ]
    )
    assert_same(glass, replace(glass, positions=glass.positions[order], species=glass.species[order]))


@some
@given(glasses, seeds)
def test_choice_of_lattice_vectors(made, seed):
    glass = random_structures(**made)
    generator = torch.Generator().manual_seed(seed)
    lower, upper = (
        torch.eye(3, dtype=torch.float64) + torch.tril(torch.randint(-2, 3, (3, 3), generator=generator), -1)
        for _ in range(2)
    )
    assert_same(glass, replace(glass, cell=lower @ upper.T @ glass.cell))


@some
@given(glasses, st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)))
def test_supercell(made, repeat):
    """The vectors that are new in the larger cell scatter nothing; the others scatter an atom as much, copies times."""
    glass = random_structures(**made)
    copies = int(np.prod(repeat))
    one, many = found(glass), found(supercell(glass, repeat))
    scattered = [f.n_vectors * np.nan_to_num(f.total("atoms")) for f in (one, many)]
    np.testing.assert_allclose(copies * scattered[0], scattered[1], atol=1e-7)


@some
@given(glasses, st.floats(0.5, 2.0))
def test_scale(made, scale):
    """Twice as large is the same at half the q, bin by bin."""
    glass = random_structures(**made)
    larger = replace(glass, positions=scale * glass.positions, cell=scale * glass.cell)
    a, b = (
        structure_factor(s, q_max=16 * w, bin_width=w, most=10**9) for s, w in ((glass, 0.4), (larger, 0.4 / scale))
    )
    if (a.n_vectors == b.n_vectors).all():  # else a vector lies on the border of two bins
        np.testing.assert_allclose(a.total("atoms"), b.total("atoms"), atol=1e-8)


@some
@given(glasses, seeds)
def test_bridges(made, seed):
    """The network is the same turned, moved, in another order and repeated."""
    glass = random_structures(**made | {"species": (8, 14, 14), "n_atoms": [9, 14]})
    generator = torch.Generator().manual_seed(seed)
    turn = rotation(generator, reflected=False)
    order = torch.cat([torch.randperm(9, generator=generator), 9 + torch.randperm(14, generator=generator)])
    other = replace(
        glass, positions=(glass.positions @ turn + 7.0)[order], species=glass.species[order], cell=glass.cell @ turn
    )
    if not {8, 14} <= set(glass.species.tolist()):
        return
    first = qn(glass, cutoff={"Si-O": 2.9})
    for changed in (other, supercell(glass, (2, 1, 1))):
        again = qn(changed, cutoff={"Si-O": 2.9})
        np.testing.assert_allclose(first.fractions["Si"], again.fractions["Si"])
        np.testing.assert_allclose(first.bridges, again.bridges)
