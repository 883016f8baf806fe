"""What a relaxation must not depend on: the rest of the batch, the order of the atoms, the axes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from amden.simulate.potentials import StillingerWeber
from amden.simulate.relaxation import relax

SW = StillingerWeber()
EIGHT = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4.0
seeds = st.integers(0, 2**32 - 1)


def system(seed, n_atoms=8):
    """A skewed cell with atoms off their diamond sites, of which some may be missing."""
    rng = np.random.default_rng(seed)
    cell = 5.43 * (np.eye(3) + 0.06 * rng.uniform(-1.0, 1.0, (3, 3)))
    return EIGHT[:n_atoms] @ cell + 0.1 * rng.normal(size=(n_atoms, 3)), cell


def relaxed(positions, cell, **options):
    n_atoms = np.array([len(positions)])
    return relax(
        SW, positions, cell[None], n_atoms, device="cpu", force_tolerance=1e-4, stress_tolerance=1e-3, **options
    )


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(seeds, st.integers(3, 8)), min_size=2, max_size=5))
def test_a_system_is_the_same_in_any_batch_bit_by_bit(kinds):
    systems = [system(*kind) for kind in kinds]
    positions, cells = (np.concatenate([s[0] for s in systems]), np.stack([s[1] for s in systems]))
    n_atoms = np.array([len(s[0]) for s in systems])
    together = relax(SW, positions, cells, n_atoms, max_steps=50, device="cpu")
    ends = np.cumsum(n_atoms)
    for k, (own, cell) in enumerate(systems):
        alone = relax(SW, own, cell[None], n_atoms[k : k + 1], max_steps=50, device="cpu")
        np.testing.assert_array_equal(together.positions[ends[k] - n_atoms[k] : ends[k]], alone.positions)
        for name in ("cell", "energy", "max_force", "max_stress", "stress", "n_steps", "converged"):
            np.testing.assert_array_equal(getattr(together, name)[k], getattr(alone, name)[0], err_msg=name)


@settings(max_examples=10, deadline=None)
@given(seeds, st.permutations(range(8)))
def test_the_order_of_the_atoms_does_not_matter(seed, order):
    positions, cell = system(seed)
    found, permuted = relaxed(positions, cell), relaxed(positions[order], cell)
    assert found.converged.all()
    assert permuted.converged.all()
    np.testing.assert_allclose(permuted.energy, found.energy, atol=1e-6)
    np.testing.assert_allclose(permuted.positions, found.positions[order], atol=2e-3)


@settings(max_examples=10, deadline=None)
@given(seeds, seeds)
def test_axes_do_not_matter(seed, turn):
    positions, cell = system(seed)
    rotation = Rotation.from_rotvec(np.random.default_rng(turn).normal(size=3)).as_matrix()
    found, turned = relaxed(positions, cell), relaxed(positions @ rotation, cell @ rotation)
    np.testing.assert_allclose(turned.energy, found.energy, atol=1e-6)
    np.testing.assert_allclose(turned.cell[0], found.cell[0] @ rotation, atol=2e-3)
    np.testing.assert_allclose(turned.max_force, found.max_force, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(1, 12))
def test_enthalpy_never_rises(seed, n_steps):
    positions, cell = system(seed, n_atoms=7)
    enthalpies = []
    for k in (n_steps, n_steps + 1):
        found = relaxed(positions, cell, pressure=3.0, max_steps=k)
        enthalpies.append(found.energy[0] + 3.0 / 160.21766 * np.linalg.det(found.cell[0]))
    assert enthalpies[1] <= enthalpies[0]
