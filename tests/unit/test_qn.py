"""Bridging oxygens of networks whose every bond is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import iread

from amden.analysis.qn import qn
from amden.io import from_ase
from amden.neighbors import neighbor_list
from amden.structure import Structures, concatenate
from amden.testing import diamond

BOND = {"Si-O": 1.7}


def cristobalite(repeat: tuple[int, int, int] = (1, 1, 1)) -> Structures:
    """Silicon on the diamond lattice, an oxygen in the middle of each bond of 3.1 Å."""
    silicon = diamond(repeat, a=7.16)
    edges = neighbor_list(silicon, cutoff=3.2)
    half = silicon.positions[edges.source] + 0.5 * edges.vectors(silicon.positions, silicon.cell, silicon.system)
    s = torch.round(half @ torch.linalg.inv(silicon.cell[0]) * 10**6).long() % 10**6
    _, once = np.unique(s.numpy(), axis=0, return_index=True)
    oxygen = half[torch.as_tensor(np.sort(once))]
    positions = torch.cat([silicon.positions, oxygen])
    species = torch.tensor([14] * len(silicon.positions) + [8] * len(oxygen))
    return Structures(positions, species, silicon.cell, torch.tensor([len(positions)]))


def without(structures: Structures, atom: int) -> Structures:
    kept = torch.arange(len(structures.positions)) != atom
    n = structures.n_atoms - 1
    return replace(structures, positions=structures.positions[kept], species=structures.species[kept], n_atoms=n)


def test_a_full_network_is_q4():
    crystal = cristobalite()
    assert crystal.n_atoms.tolist() == [24]
    found = qn(crystal, cutoff=BOND)
    np.testing.assert_array_equal(found.distribution("Si"), [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(found.bridges, [[0, 0, 1]])
    assert found.cutoffs == {"Si-O": 1.7}
    assert found.non_bridging.tolist() == [0.0]


def test_a_bridge_taken_out_makes_two_q3():
    found = qn(without(cristobalite((2, 1, 1)), 20), cutoff=BOND)
    np.testing.assert_allclose(found.fractions["Si"], [[0, 0, 0, 2 / 16, 14 / 16]])
    assert found.per_system("Si")[0] == pytest.approx(4 - 2 / 16)


def test_a_silicon_taken_out_leaves_four_non_bridging_oxygens():
    found = qn(without(cristobalite((2, 1, 1)), 3), cutoff=BOND)
    np.testing.assert_allclose(found.fractions["Si"], [[0, 0, 0, 4 / 15, 11 / 15]])
    np.testing.assert_allclose(found.bridges, [[0, 4 / 32, 28 / 32]])
    assert found.non_bridging[0] == pytest.approx(4 / 32)
    assert found.rows()[0] == {
        "system": 0,
        "former": "Si",
        "bridge": "O",
        **{"Q0": 0.0, "Q1": 0.0, "Q2": 0.0, "Q3": 4 / 15, "Q4": 11 / 15},
        "non_bridging": 4 / 32,
    }


def test_formers_bridge_to_each_other_and_modifiers_do_not():
    crystal = cristobalite((2, 1, 1))
    mixed = replace(crystal, species=crystal.species.clone())
    mixed.species[0] = 15
    cutoff = {"Si-O": 1.7, "P-O": 1.7}
    both = qn(mixed, formers=("Si", "P"), cutoff=cutoff)
    assert both.distribution("P").tolist() == both.distribution("Si").tolist() == [0, 0, 0, 0, 1]
    alone = qn(mixed, formers=("Si",), cutoff=cutoff)  # then its oxygens end at phosphorus
    np.testing.assert_allclose(alone.fractions["Si"], [[0, 0, 0, 4 / 15, 11 / 15]])
    assert alone.cutoffs == {"Si-O": 1.7}


def test_an_oxygen_of_three_silicons_is_a_bridge():
    cell = 20.0 * torch.eye(3, dtype=torch.float64)
    corners = torch.tensor(
        [[1.6, 0, 0], [-0.8, 1.3856, 0], [-0.8, -1.3856, 0], [0, 0, 0], [8, 8, 8]], dtype=torch.float64
    )
    cluster = Structures(corners, torch.tensor([14, 14, 14, 8, 8]), cell[None], torch.tensor([5]))
    found = qn(cluster, cutoff=BOND)
    np.testing.assert_allclose(found.fractions["Si"], [[0, 1, 0, 0, 0]])
    np.testing.assert_allclose(found.bridges, [[0.5, 0, 0, 0.5]])


def test_systems_apart_together_and_repeated():
    one, other = cristobalite(), without(cristobalite((2, 1, 1)), 20)
    both = qn(concatenate([one, other, diamond(a=7.16)]), cutoff=BOND)
    np.testing.assert_array_equal(both.fractions["Si"][:1], qn(one, cutoff=BOND).fractions["Si"])
    np.testing.assert_array_equal(both.fractions["Si"][1:2], qn(other, cutoff=BOND).fractions["Si"])
    assert both.fractions["Si"][2].tolist() == [1, 0, 0, 0, 0]
    assert np.isnan(both.bridges[2]).all()
    assert both.rows()[2]["non_bridging"] is None
    np.testing.assert_array_equal(qn(cristobalite((2, 2, 2)), cutoff=BOND).fractions["Si"], [[0, 0, 0, 0, 1]])


def test_glass_by_its_own_first_minimum():
    path = Path(__file__).parents[1] / "data" / "tersoff_sio2.extxyz"
    silica = from_ase([a for a in iread(path, "1:3") if isinstance(a, Atoms)])
    found = qn(silica)
    assert 1.9 < found.cutoffs["Si-O"] < 2.6
    assert found.distribution("Si")[4] > 0.7
    assert found.bridges[:, 2].min() > 0.95


def test_bad_input():
    with pytest.raises(ValueError, match=r"`formers` 'P' does not occur in the structures, which have O, Si"):
        qn(cristobalite(), formers=("P",))
    with pytest.raises(ValueError, match=r"`bridge` 'S' does not occur in the structures, which have O, Si"):
        qn(cristobalite(), bridge="S")
    with pytest.raises(ValueError, match=r"`cutoff` must be positive, got .'Si-Si': 3.0"):
        qn(cristobalite(), cutoff={"Si-Si": 3.0})
