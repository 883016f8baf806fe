"""Observables of real silicon and silica, in skewed and tiny cells, against ASE's own neighbour search and geometry."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.geometry import get_angles
from ase.geometry.rdf import get_rdf
from ase.neighborlist import neighbor_list

from amden.analysis.bonds import bond_angles, coordination, partial_bond_angles, partial_coordination
from amden.analysis.qn import qn
from amden.analysis.rdf import partial_rdf, rdf
from amden.io import from_ase

DATA = Path(__file__).parents[1] / "data"
FRAMES = ase.io.read(DATA / "sw_si.extxyz", ":")
SILICA = ase.io.read(DATA / "tersoff_sio2.extxyz", ":")


@pytest.mark.parametrize("atoms", FRAMES, ids=lambda a: str(a.info["note"]).replace(" ", "-"))
def test_distances_bonds_and_angles(atoms):
    structures = from_ase([atoms])
    distances = neighbor_list("d", atoms, 7.0)
    found = rdf(structures)
    counts = found.g * 4 * np.pi / 3 * np.diff(found.edges**3) * found.number_density * len(atoms)
    expected, _ = np.histogram(distances, found.edges)
    # Distances on the border of a bin, as crystals have them, may fall to either side.
    on_border = np.abs(distances[:, None] - found.edges[None, 1:-1]).min(1) < 1e-9
    assert np.abs(counts - expected).max() <= on_border.sum() + 1e-6
    assert np.abs(np.cumsum(counts - expected)[-1]) < 1e-6

    i, vectors = neighbor_list("iD", atoms, 2.9)
    assert coordination(structures).mean == pytest.approx(len(i) / len(atoms))
    pairs = [(vectors[i == a][m], vectors[i == a][n]) for a in range(len(atoms)) for m, n in _pairs(np.sum(i == a))]
    first, second = (np.array(v) for v in zip(*pairs, strict=True))
    angles = get_angles(first, second)
    found = bond_angles(structures)
    expected, _ = np.histogram(angles, found.edges)
    np.testing.assert_allclose(found.density * 2.0 * len(angles), expected, atol=1e-6)


def _pairs(n):
    return [(a, b) for a in range(n) for b in range(a)]


@pytest.mark.parametrize("atoms", [a for a in FRAMES if len(a) == 256 and a.cell.orthorhombic][:2])
def test_g_of_r(atoms):
    expected, r = get_rdf(atoms, 7.0, 140)
    found = rdf(from_ase([atoms]))
    np.testing.assert_allclose(r, found.r, atol=1e-12)
    np.testing.assert_allclose(found.g, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("atoms", SILICA, ids=lambda a: str(a.info["note"]).split(",")[0].replace(" ", "-"))
def test_silica_by_pair_and_triple(atoms):
    structures, cutoff = from_ase([atoms]), {"Si-O": 2.2, "O-O": 2.9}
    i, j, vectors = neighbor_list("ijD", atoms, {("Si", "O"): 2.2, ("O", "O"): 2.9})
    names = np.array(atoms.get_chemical_symbols())
    found = partial_coordination(structures, cutoff=cutoff)
    for pair, numbers in found.items():
        a, b = pair.split("-")
        assert numbers.mean == pytest.approx(np.sum((names[i] == a) & (names[j] == b)) / np.sum(names == a))
    angles = {}
    for a in range(len(atoms)):
        bonds = np.flatnonzero(i == a)
        for m, n in _pairs(len(bonds)):
            ends = sorted(names[j[bonds[[m, n]]]])
            angle = get_angles(vectors[bonds[[m]]], vectors[bonds[[n]]])[0]
            angles.setdefault(f"{ends[0]}-{names[a]}-{ends[1]}", []).append(angle)
    triples = partial_bond_angles(structures, cutoff=cutoff)
    assert triples.keys() == angles.keys()
    for triple, expected in angles.items():
        counts, _ = np.histogram(expected, triples[triple].edges)
        np.testing.assert_allclose(triples[triple].density * 2.0 * len(expected), counts, atol=1e-6)
    bridging = np.bincount(j[(names[i] == "Si") & (names[j] == "O")], minlength=len(atoms)) >= 2
    n_bridging = np.bincount(i[(names[i] == "Si") & bridging[j]], minlength=len(atoms))[names == "Si"]
    expected = np.bincount(n_bridging, minlength=5) / np.sum(names == "Si")
    np.testing.assert_allclose(qn(structures, cutoff={"Si-O": 2.2}).fractions["Si"][0], expected)


def test_partial_g_of_r_of_silica():
    atoms = SILICA[3]
    found = partial_rdf(from_ase([atoms]))
    i, j, d = neighbor_list("ijd", atoms, 7.0)
    names = np.array(atoms.get_chemical_symbols())
    for pair, g in found.items():
        a, b = pair.split("-")
        counts, _ = np.histogram(d[(names[i] == a) & (names[j] == b)], g.edges)
        np.testing.assert_allclose(g.running_coordination, np.cumsum(counts) / np.sum(names == a), rtol=1e-12)
