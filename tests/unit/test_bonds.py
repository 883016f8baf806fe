"""Coordination and bond angles of crystals and of chance."""

import numpy as np
import pytest
import torch

from amden.analysis.bonds import bond_angles, coordination, partial_bond_angles, partial_coordination
from amden.structure import Structures, concatenate
from amden.testing import diamond, random_structures, supercell

TETRAHEDRAL = np.degrees(np.arccos(-1 / 3))


def caesium_chloride(a: float = 4.0) -> Structures:
    sites = torch.tensor([[0.0, 0.0, 0.0], [a / 2, a / 2, a / 2]], dtype=torch.float64)
    return Structures(sites, torch.tensor([55, 17]), a * torch.eye(3, dtype=torch.float64)[None], torch.tensor([2]))


def test_diamond_is_tetrahedral():
    crystal = diamond((2, 2, 2))
    found = coordination(crystal)
    assert found.mean == 4.0
    np.testing.assert_array_equal(found.distribution, [0, 0, 0, 0, 1])
    angles = bond_angles(crystal, bin_width=0.5)
    peak = np.flatnonzero(angles.density)
    assert len(peak) == 1
    assert angles.edges[peak[0]] <= TETRAHEDRAL < angles.edges[peak[0] + 1]
    assert angles.mean == pytest.approx(TETRAHEDRAL, abs=0.25)


def test_fcc_has_twelve_neighbours_and_four_angles():
    a = 4.05
    primitive = a / 2 * torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    one = Structures(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([13]), primitive[None], torch.tensor([1]))
    assert coordination(one, cutoff=3.0).mean == 12.0
    angles = bond_angles(one, cutoff=3.0, bin_width=4.0)
    pairs = angles.density * 4.0 * 66  # 12 · 11 / 2 pairs of bonds
    np.testing.assert_allclose(pairs[pairs > 0], [24, 12, 24, 6])  # 60°, 90°, 120°, 180°


def test_uncorrelated_bonds_follow_the_sine():
    cell = 12.0 * torch.eye(3, dtype=torch.float64)
    s = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gas = Structures(s @ cell, torch.full((4000,), 14), cell[None], torch.tensor([4000]))
    angles = bond_angles(gas, cutoff=2.0, bin_width=10.0)
    expected = -np.diff(np.cos(np.radians(angles.edges))) / 2 / 10.0
    np.testing.assert_allclose(angles.density, expected, rtol=0.05, atol=2e-5)
    assert coordination(gas, cutoff=2.0).mean == pytest.approx(3999 / 12**3 * 4 / 3 * np.pi * 8, rel=0.02)


def test_densities_are_densities():
    found = bond_angles(random_structures([40, 70], seed=1), cutoff=3.2)
    np.testing.assert_allclose(found.per_system.sum(1) * 2.0, 1.0)
    np.testing.assert_allclose(coordination(random_structures([40]), cutoff=3.2).fractions.sum(1), 1.0)


def test_a_cutoff_by_pair_bonds_only_that_pair():
    crystal = caesium_chloride()
    assert coordination(crystal, cutoff={"Cs-Cl": 3.6}).mean == 8.0
    assert coordination(crystal, cutoff={"Cs-Cl": 3.6, "Cs-Cs": 4.1}, centre="Cs").mean == 8.0 + 6.0
    assert coordination(crystal, cutoff={"Cs-Cs": 4.1}, centre="Cl").mean == 0.0
    assert coordination(crystal, cutoff=4.1, centre="Cl").mean == 14.0


def test_angles_by_the_atom_in_the_centre():
    crystal = caesium_chloride()
    straight = bond_angles(crystal, cutoff={"Cs-Cs": 4.1, "Cl-Cs": 3.6}, centre="Cl", bin_width=4.0)
    cube = bond_angles(crystal, cutoff={"Cs-Cl": 3.6}, bin_width=4.0)
    np.testing.assert_allclose(straight.density, cube.density)  # around Cl there are only the 8 corners
    pairs = cube.density * 4.0 * 28
    np.testing.assert_allclose(pairs[pairs > 0], [12, 12, 4])  # 70.5°, 109.5°, 180°


def test_systems_weigh_the_same_whatever_their_size():
    cubic = Structures(
        torch.zeros(1, 3, dtype=torch.float64),
        torch.tensor([14]),
        2.5 * torch.eye(3, dtype=torch.float64)[None],
        torch.tensor([1]),
    )
    both = concatenate([diamond((2, 2, 2)), cubic])
    found = coordination(both)
    np.testing.assert_array_equal(found.per_system, [4.0, 6.0])
    assert found.mean == 5.0
    np.testing.assert_array_equal(found.distribution, [0, 0, 0, 0, 0.5, 0, 0.5])


def test_a_system_without_angles_is_not_a_number_and_does_not_count():
    lonely = supercell(diamond(a=12.0), (1, 1, 1))
    both = bond_angles(concatenate([diamond(), lonely]))
    assert np.isnan(both.per_system[1]).all()
    np.testing.assert_array_equal(both.density, bond_angles(diamond()).density)


def test_more_neighbours_than_there_is_room_for_at_first():
    one = Structures(
        torch.zeros(1, 3, dtype=torch.float64),
        torch.tensor([14]),
        torch.eye(3, dtype=torch.float64)[None],
        torch.tensor([1]),
    )
    lattice = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3), -1).reshape(-1, 3)
    inside = int((np.linalg.norm(lattice, axis=1) < 8.2).sum()) - 1
    assert inside > 2000
    assert coordination(one, cutoff=8.2).mean == inside


def test_coordination_by_pair_adds_up():
    glass = random_structures([60, 40], species=(8, 14, 15), seed=2)
    pairs = partial_coordination(glass, cutoff=3.3)
    assert len(pairs) == 9
    total = sum(pairs[f"Si-{b}"].per_system for b in ("O", "Si", "P"))
    np.testing.assert_allclose(total, coordination(glass, cutoff=3.3, centre="Si").per_system)
    assert set(partial_coordination(concatenate([diamond(), caesium_chloride()]))) == {
        "Si-Si",
        "Cl-Cl",
        "Cl-Cs",
        "Cs-Cl",
        "Cs-Cs",
    }


def test_angles_by_triple_are_those_of_the_centre_taken_apart():
    glass = random_structures([80], species=(8, 14, 15), seed=2)
    triples = partial_bond_angles(glass, cutoff=3.3, bin_width=5.0)
    assert len(triples) == 18
    bonds = {b: partial_coordination(glass, cutoff=3.3)[f"Si-{b}"].fractions[0] for b in ("O", "Si", "P")}
    of_silicon = bond_angles(glass, cutoff=3.3, bin_width=5.0, centre="Si").density
    same = {b: np.sum(f * np.arange(len(f)) * (np.arange(len(f)) - 1) / 2) for b, f in bonds.items()}
    pairs = coordination(glass, cutoff=3.3, centre="Si").fractions[0]
    every = np.sum(pairs * np.arange(len(pairs)) * (np.arange(len(pairs)) - 1) / 2)
    mixed = of_silicon * every - sum(n * triples[f"{b}-Si-{b}"].density for b, n in same.items())
    # What is left are the angles with two different ends, a mixture of the three.
    ends = np.stack([triples[t].density for t in ("O-Si-Si", "O-Si-P", "Si-Si-P")], axis=1)
    weights, residual, *_ = np.linalg.lstsq(ends, mixed, rcond=None)
    assert residual < 1e-20
    assert weights.sum() == pytest.approx(every - sum(same.values()))


def test_triples_of_a_crystal():
    found = partial_bond_angles(caesium_chloride(), cutoff={"Cs-Cl": 3.6, "Cs-Cs": 4.1})
    assert set(found) == {"Cs-Cl-Cs", "Cl-Cs-Cl", "Cs-Cs-Cs", "Cl-Cs-Cs"}
    straight = found["Cs-Cs-Cs"]  # 6 neighbours along the axes: 12 right angles, 3 straight lines
    np.testing.assert_allclose(straight.density[straight.density > 0] * 2.0, [0.8, 0.2])
    assert straight.spread == pytest.approx(0.4 * 88.0)


def test_bad_input():
    with pytest.raises(ValueError, match=r"`cutoff` must be positive, got -1.0"):
        coordination(diamond(), cutoff=-1.0)
    with pytest.raises(ValueError, match=r"`cutoff` finds no bond angle: no atom has two neighbours within 1.0 Å"):
        bond_angles(diamond(), cutoff=1.0)
    with pytest.raises(ValueError, match=r"`bin_width` must divide 180 degrees, got 7.0"):
        bond_angles(diamond(), bin_width=7.0)
    with pytest.raises(ValueError, match=r"`centre` 'O' does not occur in the structures, which have Si"):
        coordination(diamond(), centre="O")
    with pytest.raises(ValueError, match=r"`cutoff` names no pair of the elements present: .* for Si"):
        coordination(diamond(), cutoff={"Si-O": 2.2})
    with pytest.raises(ValueError, match=r"unknown element 'Sj'"):
        coordination(diamond(), cutoff={"Si-Sj": 2.2})
