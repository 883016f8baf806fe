"""Rings of crystals, where every number is known, and of networks drawn by hand."""

import json

import numpy as np
import pytest
import torch
from ase.build import bulk, graphene
from ase.spacegroup import crystal

from amden.analysis.rings import DEFINITIONS, covalent_cutoffs, rings
from amden.io import from_ase
from amden.structure import Structures, concatenate
from amden.testing import diamond, supercell


def quartz() -> Structures:
    """α-quartz, after Levien, Prewitt and Weidner, Am. Mineral. 65, 920 (1980)."""
    sites = [(0.4697, 0.0, 2 / 3), (0.4135, 0.2669, 0.7858)]
    cell = [4.9137, 4.9137, 5.4047, 90, 90, 120]
    return from_ase([crystal(["Si", "O"], sites, spacegroup=154, cellpar=cell)])


def cristobalite() -> Structures:
    """Ideal β-cristobalite: diamond with an O in every bond."""
    sites = [(0.0, 0.0, 0.0), (1 / 8, 1 / 8, 1 / 8)]
    return from_ase([crystal(["Si", "O"], sites, spacegroup=227, cellpar=[7.16, 7.16, 7.16, 90, 90, 90])])


def planar(edges: list[tuple[float, float]], *, box: float = 30.0) -> Structures:
    """A molecule of silicon in the plane, bonds of 2.35 Å, in a large box."""
    positions = torch.tensor([[x, y, 0.0] for x, y in edges], dtype=torch.float64)
    cell = box * torch.eye(3, dtype=torch.float64)
    return Structures(positions, torch.full((len(edges),), 14), cell[None], torch.tensor([len(edges)]))


def polygon(n: int, *, bond: float = 2.35) -> list[tuple[float, float]]:
    radius = bond / (2 * np.sin(np.pi / n))
    return [(15 + radius * np.cos(2 * np.pi * k / n), 15 + radius * np.sin(2 * np.pi * k / n)) for k in range(n)]


@pytest.mark.parametrize("definition", ["guttman", "king", "primitive"])
def test_diamond_has_two_rings_of_six_an_atom(definition):
    """Twelve through every atom (vertex symbol 6₂·6₂·6₂·6₂·6₂·6₂); also in the cell of two atoms."""
    two = from_ase([bulk("Si", a=5.431)])
    for cell in (two, diamond()):
        found = rings(cell, definition=definition, max_nodes=9)
        np.testing.assert_array_equal(np.flatnonzero(found.counts[0]), [6])
        assert found.per_atom[0, 6] == 2.0
        assert found.n_open.tolist() == [0]


def test_one_closing_ring_a_bond_at_most():
    """Where six rings of equal size close each bond, one is taken; copies are dropped, so fewer rings than bonds."""
    found = rings(diamond(), definition="closing", max_nodes=9)
    assert found.per_system.tolist() == [6.0]
    assert 16 / 6 <= found.n_rings[0] <= 16


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_sizes_count_all_atoms_or_those_of_an_element(definition):
    by_atoms = rings(cristobalite(), definition=definition, max_nodes=14)
    by_silicon = rings(cristobalite(), definition=definition, max_nodes=14, counted="Si")
    by_oxygen = rings(cristobalite(), definition=definition, max_nodes=14, counted="O")
    assert by_atoms.per_system.tolist() == [12.0]
    assert by_silicon.per_system.tolist() == by_oxygen.per_system.tolist() == [6.0]
    assert by_silicon.n_counted.tolist() == [8]
    if definition != "closing":
        assert by_silicon.per_atom[0, 6] == 2.0


def test_quartz_has_rings_of_six_and_eight():
    """Shortest rings at the six angles of Si: 6·6·6₂·6₂·8₇·8₇ (O'Keeffe and Hyde's vertex symbol of quartz), so six
    through each Si of size 6, one ring an atom. The vertex symbol leaves out rings with shortcuts: King counts 9 of
    size 8 at two angles of each Si, 7 of them without."""
    found = {d: rings(quartz(), definition=d, counted="Si").per_atom[0] for d in DEFINITIONS}
    assert {d: np.flatnonzero(n).tolist() for d, n in found.items()} == {
        "closing": [6],
        "guttman": [6],
        "king": [6, 8],
        "primitive": [6, 8],
    }
    assert [found[d][6] for d in ("guttman", "king", "primitive")] == [1.0, 1.0, 1.0]
    assert (found["king"][8], found["primitive"][8]) == (7.0, 5.0)


def test_graphene_is_hexagons():
    sheet = graphene(vacuum=8.0)
    sheet.pbc = True
    for definition in ("guttman", "king", "primitive"):
        found = rings(from_ase([sheet]), definition=definition, cutoff=1.6)
        np.testing.assert_array_equal(found.counts, [[0, 0, 0, 0, 0, 0, 1]])


def test_the_cubic_lattice_with_one_atom_in_the_cell():
    """Three squares an atom; at the three straight angles the shortest ring has 6 atoms and is no primitive one."""
    cube = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.5 * torch.eye(3)[None], torch.tensor([1]))
    for definition in ("guttman", "primitive"):
        found = rings(cube, definition=definition, cutoff=2.6, max_nodes=5)
        np.testing.assert_array_equal(found.counts, [[0, 0, 0, 0, 3]])
    king = rings(cube, definition="king", cutoff=2.6, max_nodes=5)
    assert king.n_open.tolist() == [3]
    assert rings(cube, definition="king", cutoff=2.6, max_nodes=6).n_open.tolist() == [0]


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("n", [3, 4, 5, 12, 13])
def test_a_single_ring(definition, n):
    found = rings(planar(polygon(n)), definition=definition, cutoff=2.4, max_nodes=13)
    assert np.flatnonzero(found.counts[0]).tolist() == [n]
    assert found.n_rings.tolist() == [1]


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_ring_that_is_longer_than_the_bound_is_open(definition):
    found = rings(planar(polygon(8)), definition=definition, cutoff=2.4, max_nodes=7)
    assert found.n_rings.tolist() == [0]
    assert np.isnan(found.per_system).all()
    assert found.n_open.tolist() == [0 if definition == "primitive" else 8]
    assert found.rows()[0]["mean_size"] is None


def test_a_wheel():
    """Six triangles; around the hub, two bonds of the rim are closed by a ring of four, which the spoke cuts short."""
    wheel = planar([*polygon(6), (15.0, 15.0)])
    counts = {d: rings(wheel, definition=d, cutoff=2.4).counts[0].tolist() for d in DEFINITIONS}
    assert counts["primitive"] == counts["guttman"] == counts["closing"] == [0, 0, 0, 6]
    assert counts["king"][:5] == [0, 0, 0, 6, 6]


def test_a_chain_through_the_cell_is_no_ring():
    """It comes back to another image of the atom it left from."""
    chain = Structures(
        torch.zeros(1, 3), torch.tensor([14]), torch.diag(torch.tensor([2.3, 9.0, 9.0]))[None], torch.tensor([1])
    )
    for definition in DEFINITIONS:
        found = rings(supercell(chain, (3, 1, 1)), definition=definition, cutoff=2.4)
        assert found.n_rings.tolist() == [0]


def test_systems_of_a_batch_keep_to_themselves():
    batch = concatenate([quartz(), cristobalite(), quartz()])
    found = rings(batch, definition="king", counted="Si")
    np.testing.assert_array_equal(found.counts[0], found.counts[2])
    np.testing.assert_array_equal(
        found.counts[1, :7], rings(cristobalite(), definition="king", counted="Si").counts[0, :7]
    )
    assert found.mean == pytest.approx(np.mean(found.per_system))
    np.testing.assert_allclose(found.distribution, found.fractions.mean(0))
    np.testing.assert_allclose(found.fractions.sum(1), 1.0)


def test_ghosts_are_no_atoms():
    crystal = diamond()
    species = torch.cat([crystal.species, torch.zeros(1, dtype=torch.long)])
    positions = torch.cat([crystal.positions, torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64)])
    haunted = Structures(positions, species, crystal.cell, torch.tensor([9]))
    np.testing.assert_array_equal(
        rings(haunted, definition="king", max_nodes=8).counts, rings(crystal, definition="king", max_nodes=8).counts
    )


def test_rows_are_plain_numbers():
    rows = rings(quartz(), definition="primitive", counted="Si").rows()
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["definition"] == "primitive"
    assert (rows[0]["size_6"], rows[0]["size_8"], rows[0]["rings"], rows[0]["max_nodes"]) == (3, 15, 18, 24)
    assert rows[0]["mean_size"] == pytest.approx((3 * 6 + 15 * 8) / 18)


def test_covalent_cutoffs_are_those_of_the_paper():
    assert covalent_cutoffs(quartz()) == pytest.approx({"O-O": 1.716, "O-Si": 2.301, "Si-Si": 2.886})


def test_bad_input():
    with pytest.raises(ValueError, match=r"unknown `definition` 'kings': expected one of closing, guttman, king, prim"):
        rings(diamond(), definition="kings")
    with pytest.raises(ValueError, match=r"`max_nodes` must be from 3 to 64, got 2"):
        rings(diamond(), definition="king", max_nodes=2)
    with pytest.raises(ValueError, match=r"`counted` 'O' does not occur in the structures, which have Si"):
        rings(diamond(), definition="king", counted="O")
    many = 262145
    crowd = Structures(torch.zeros(many, 3), torch.full((many,), 14), torch.eye(3)[None], torch.tensor([many]))
    with pytest.raises(ValueError, match=r"`structures` must have at most 262144 atoms each, got 262145"):
        rings(crowd, definition="king")
    sheared = torch.tensor([[2.35, 0.0, 0.0], [0.0, 9.0, 0.0], [2.35 * 1200, 0.0, 4.6]], dtype=torch.float64)
    positions = torch.tensor([[0.0, 0.0, 2.3], [0.0, 0.0, 0.0]], dtype=torch.float64)
    column = Structures(positions, torch.tensor([14, 14]), sheared[None], torch.tensor([2]))
    with pytest.raises(ValueError, match=r"bonds over too many lattice vectors: choose shorter lattice vectors"):
        rings(column, definition="king", cutoff=2.4, max_nodes=64)
