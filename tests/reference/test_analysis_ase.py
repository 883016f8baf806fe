"""Observables of real silicon, in large, skewed and tiny cells, against ASE's own neighbour search and geometry."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.geometry import get_angles
from ase.geometry.rdf import get_rdf
from ase.neighborlist import neighbor_list

from amden.analysis.bonds import bond_angles, coordination
from amden.analysis.rdf import rdf
from amden.io import from_ase

FRAMES = ase.io.read(Path(__file__).parents[1] / "data" / "sw_si.extxyz", ":")


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
