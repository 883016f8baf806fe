"""The numbers that describe an environment, against their definition and under what must not change them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre

from amden.analysis.environments import DEGREES, FIRST, REACH, SHELLS, SPACING, environments
from amden.neighbors import neighbor_list
from amden.structure import Structures
from amden.testing import random_structures, supercell
from amden.testing.builders import rotation

GLASS = random_structures([30], species=(8, 14), spacing=2.0, seed=3)


def found(structures: Structures) -> np.ndarray:
    return environments(structures, elements=[8, 14])


def test_spectra_are_sums_of_legendre_polynomials_over_pairs_of_neighbours():
    spectra = found(GLASS).reshape(30, 2, SHELLS, DEGREES)
    edges = neighbor_list(GLASS, cutoff=REACH)
    vectors = edges.vectors(GLASS.positions, GLASS.cell, GLASS.system).numpy()
    source, element = edges.source.numpy(), GLASS.species.numpy()[edges.target.numpy()]
    r = np.linalg.norm(vectors, axis=1)
    place = np.maximum((r - FIRST) / SPACING, 0.0)
    for atom in (0, 11, 29):
        for k, z in enumerate((8, 14)):
            own = (source == atom) & (element == z)
            cosines = (vectors[own] / r[own, None]) @ (vectors[own] / r[own, None]).T
            for n in range(SHELLS):
                t = np.minimum(np.abs(place[own] - n), 1.0)
                g = 1.0 - t * t * (3.0 - 2.0 * t)
                squares = [(np.outer(g, g) * eval_legendre(l, cosines)).sum() for l in range(DEGREES)]
                np.testing.assert_allclose(spectra[atom, k, n] ** 2, squares, atol=1e-4)


@pytest.mark.parametrize("reflected", [False, True])
def test_a_turned_or_mirrored_structure_is_the_same(reflected):
    turn = rotation(torch.Generator().manual_seed(1), reflected=reflected).double()
    turned = replace(GLASS, positions=GLASS.positions @ turn, cell=GLASS.cell @ turn)
    if reflected:  # the same lattice, right-handed
        turned = replace(turned, cell=turned.cell[:, [1, 0, 2]])
    np.testing.assert_allclose(found(turned), found(GLASS), atol=1e-4)


def test_moving_renumbering_and_repeating_change_nothing():
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    moved = replace(GLASS, positions=(GLASS.positions + 17.3)[order], species=GLASS.species[order])
    np.testing.assert_allclose(found(moved), found(GLASS)[order], atol=1e-4)
    np.testing.assert_allclose(found(supercell(GLASS, (2, 1, 1))), np.tile(found(GLASS), (2, 1)), atol=1e-4)


def test_elements_that_a_set_lacks_have_no_neighbours():
    silicon = random_structures([20], species=(14,))
    spectra = found(silicon).reshape(20, 2, SHELLS, DEGREES)
    assert not spectra[:, 0].any()
    np.testing.assert_allclose(spectra[:, 1].reshape(20, -1), environments(silicon, elements=[14]))
