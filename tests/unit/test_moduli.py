"""Stresses of relaxed atoms: batches of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from amden.analysis.elastic import one_sided_moduli
from amden.io import read_structures
from amden.simulate.moduli import relaxed_stress
from amden.simulate.potentials import bmp_shrm
from amden.structure import concatenate

QUARTZ = Path(__file__).parents[1] / "data" / "bmp_meg.extxyz"


def test_structures_of_one_batch_keep_their_own_unstrained_cells():
    """Two cells of nine atoms, one stretched by 4 % and shaken, whose pairs have other terms under strain."""
    potential, quartz = bmp_shrm(), replace(read_structures(QUARTZ, index="1:2"), properties={})
    shaken = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 3), scale=0.1))
    other = replace(quartz, positions=1.04 * quartz.positions + shaken, cell=1.04 * quartz.cell)

    def components(structures):
        stress = relaxed_stress(
            potential, force_tolerance=0.05, unstrained=structures.cell.double().numpy(), device="cpu"
        )
        found = one_sided_moduli(structures, stress=stress)
        assert found.converged.all()
        return found.components

    alone = np.concatenate([components(quartz), components(other)])
    np.testing.assert_allclose(components(concatenate([quartz, other])), alone, rtol=1e-12)
