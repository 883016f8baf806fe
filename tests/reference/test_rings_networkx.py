"""Rings against the definitions, written down with networkx, and against matscipy.

The infinite network is a piece of it large enough: atoms with offsets as the nodes of a graph.
"""

from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii
from ase.io import read
from ase.neighborlist import neighbor_list
from matscipy.rings import ring_statistics

from amden.analysis.rings import rings
from amden.io import from_ase, to_ase
from amden.testing import random_structures

SILICA = read(Path(__file__).parents[1] / "data" / "tersoff_sio2.extxyz", ":3")
"""Molten, relaxed, and at 300 K, 90 to 117 atoms (`tests/data/README.md`)."""
LONGEST = 7
"""Atoms of the largest rings that are searched for the slow way."""

Node = tuple[int, tuple[int, int, int]]


def network(atoms: Atoms, cutoff: float, reach: int) -> nx.Graph:
    """All images within `reach` bonds of the home cell."""
    near: dict[int, list] = {i: [] for i in range(len(atoms))}
    for i, j, shift in zip(*neighbor_list("ijS", atoms, cutoff), strict=True):
        near[int(i)].append((int(j), shift))
    graph, front = nx.Graph(), {(i, (0, 0, 0)) for i in near}
    graph.add_nodes_from(front)
    for _ in range(reach):
        bonds = [((i, o), (j, tuple(int(x) for x in np.add(o, shift)))) for i, o in front for j, shift in near[i]]
        front = {b for _, b in bonds} - set(graph)
        graph.add_edges_from(bonds)
    return graph


def image(ring: list[Node]) -> frozenset:
    """The bonds of a ring, moved so that all images of the ring have the same."""
    origin = min(ring)[1]
    home = [(i, tuple(np.subtract(o, origin).tolist())) for i, o in ring]
    return frozenset(frozenset(bond) for bond in pairwise([*home, home[0]]))


def shortest(graph: nx.Graph, a: Node, b: Node, beyond: int) -> list[list[Node]]:
    """All shortest paths, if the ring of them and `beyond` further nodes is not too long."""
    paths = list(nx.all_shortest_paths(graph, a, b)) if nx.has_path(graph, a, b) else []
    return paths if paths and len(paths[0]) + beyond <= LONGEST else []


def guttman(graph: nx.Graph, home: list[Node]) -> set[frozenset]:
    found = set()
    for a in home:
        for b in list(graph[a]):
            graph.remove_edge(a, b)
            found |= {image(path) for path in shortest(graph, a, b, 0)}
            graph.add_edge(a, b)
    return found


def king(graph: nx.Graph, home: list[Node]) -> set[frozenset]:
    found = set()
    for c in home:
        around = list(graph[c])
        graph.remove_node(c)
        for a, b in combinations(around, 2):
            found |= {image([c, *path]) for path in shortest(graph, a, b, 1)}
        graph.add_edges_from((c, a) for a in around)
    return found


def primitive(graph: nx.Graph, home: list[Node]) -> set[frozenset]:
    """All cycles whose every two nodes are as far apart in the network as along the cycle."""
    found = set()

    def grow(path: list[Node]) -> None:
        for node in graph[path[-1]]:
            if node == path[0] and len(path) > 2:
                gaps = {(i, j): min(j - i, len(path) - j + i) for i, j in combinations(range(len(path)), 2)}
                if all(far(path[i], path[j]) == gap for (i, j), gap in gaps.items()):
                    found.add(image(path))
            elif node not in path and len(path) < LONGEST and far(path[0], node) <= LONGEST - len(path):
                grow([*path, node])

    distance = {}

    def far(a: Node, b: Node) -> int:
        if a not in distance:
            distance[a] = nx.single_source_shortest_path_length(graph, a, cutoff=LONGEST)
        return distance[a].get(b, LONGEST + 1)

    for a in home:
        grow([a])
    return found


@pytest.mark.parametrize(("seed", "n", "cutoff"), [(0, 1, 3.1), (1, 5, 3.6), (2, 7, 3.4), (3, 8, 2.9), (4, 8, 2.7)])
def test_rings_of_small_cells_are_those_of_the_definitions(seed, n, cutoff):
    """Cells so small that atoms meet their own images, and rings several images of an atom."""
    structures = random_structures([n], seed=seed)
    atoms = to_ase(structures)[0]
    graph = network(atoms, cutoff, LONGEST // 2 + 1)
    home = [(i, (0, 0, 0)) for i in range(len(atoms))]
    for search in (guttman, king, primitive):
        expected = Counter(len(ring) for ring in search(graph, home))
        found = rings(structures, definition=search.__name__, cutoff=cutoff, max_nodes=LONGEST)
        assert {size: n for size, n in enumerate(found.counts[0].tolist()) if n} == expected
    assert sum(expected.values()) > 2


def by_the_paper(atoms: Atoms) -> list[int]:
    """Numbers of Si of the closing rings, literally: networkx on 2 × 2 × 2 cells, one path a bond.

    Rings that wrap the cell are dropped, and of rings of the same atoms all but one.
    """
    cell = atoms.repeat(2)
    bonds = neighbor_list("ijS", cell, list(1.3 * covalent_radii[cell.numbers]))
    shift = {(int(i), int(j)): s for i, j, s in zip(*bonds, strict=True)}
    graph = nx.Graph(list(shift))
    found = set()
    for a, b in graph.edges:
        others = nx.subgraph_view(graph, filter_edge=lambda *bond, own={a, b}: set(bond) != own)
        path = nx.shortest_path(others, a, b)
        if not np.sum([shift[bond] for bond in pairwise([*path, path[0]])], axis=0).any():
            found.add(frozenset(path))
    return [int((cell.numbers[list(ring)] == 14).sum()) for ring in found]


def test_closing_rings_are_those_of_the_paper():
    """Exactly where no bond has two shortest rings; else in the mean over orders of the atoms, which decide.

    The scatter with the order is 0.02 a cell: with four orders of three cells the standard error is below 0.01.
    """
    generator = np.random.default_rng(0)
    shuffled = [atoms[generator.permutation(len(atoms))] for atoms in SILICA for _ in range(4)]
    found = rings(from_ase(shuffled), definition="closing", counted="Si")
    literal = [by_the_paper(atoms) for atoms in shuffled]
    assert found.per_system.mean() == pytest.approx(np.mean([np.mean(sizes) for sizes in literal]), abs=0.02)
    for counts, sizes in zip(found.counts, literal, strict=True):
        np.testing.assert_array_equal(counts[:4], np.bincount(sizes)[:4] / 8)


@pytest.mark.parametrize("atoms", SILICA)
def test_primitive_rings_are_the_shortest_path_rings_of_matscipy(atoms):
    """In cells large enough for matscipy, which counts rings of a repeated cell."""
    cutoffs = {"Si-O": 2.2, "Si-Si": 0.0, "O-O": 0.0}
    repeated = atoms.repeat(3)
    expected = np.array(ring_statistics(repeated, {("Si", "O"): 2.2}, maxlength=17)) / 27
    found = rings(from_ase([atoms]), definition="primitive", cutoff=cutoffs, max_nodes=16)
    np.testing.assert_array_equal(np.trim_zeros(found.counts[0], "b"), np.trim_zeros(expected, "b"))


def test_primitive_rings_of_a_dense_network_are_those_of_matscipy():
    glass = random_structures([27, 27], seed=5)
    found = rings(glass, definition="primitive", cutoff=3.0, max_nodes=7)
    for counts, atoms in zip(found.counts, to_ase(glass), strict=True):
        expected = np.array(ring_statistics(atoms.repeat(3), 3.0, maxlength=8)) / 27
        np.testing.assert_array_equal(np.trim_zeros(counts, "b"), np.trim_zeros(expected, "b"))
        assert expected.sum() > 20
