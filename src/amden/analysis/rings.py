"""Rings of bonds, by four definitions; every one counts rings of the infinite periodic network, each image once.

closing
    One shortest path that closes each bond, as in the paper (after Guttman, J. Non-Cryst. Solids 116, 145 (1990)).
    Where several are equally short, the one that networkx would find: this depends on the order of the atoms, and with
    it the mean size scatters by 0.02 in cells of 100 atoms of silica. Another choice, as when bonds are taken out of
    the graph and put back last, shifts it by as much. The paper's size is `per_system` with `counted="Si"`.
guttman
    All shortest paths that close each bond: the same without the chance.
king
    All shortest paths between each two neighbours of an atom that avoid the atom (King, Nature 213, 1112 (1967)).
primitive
    All rings without a shortcut: no path between two of its atoms is shorter than those along the ring (Franzblau,
    Phys. Rev. B 44, 4925 (1991), who calls them shortest-path rings; Yuan and Cormack, Comput. Mater. Sci. 24, 343
    (2002)). Not all of them are strong in the sense of Goetzke and Klein, J. Non-Cryst. Solids 127, 215 (1991).

Every closing ring is a Guttman ring, and every Guttman ring is both a King ring and primitive.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from amden.analysis.bonds import Cutoff, cutoff_matrix
from amden.analysis.grid import kinds
from amden.analysis.rings_network import HALF, MOST_ATOMS, bonds, patch
from amden.analysis.rings_primitive import distances, primitive
from amden.analysis.rings_shortest import closing, guttman, king
from amden.elements import COVALENT_RADII, atomic_number, symbol
from amden.neighbors import neighbor_list
from amden.segment import segment_sum
from amden.structure import Structures, validate

DEFINITIONS = ("closing", "guttman", "king", "primitive")

MOST_NODES = 64
"""The longest rings that can be searched for."""

CHUNK = 50_000
"""Atoms whose bonds are listed at a time."""


@dataclass(frozen=True)
class Rings:
    """How many rings there are of each size."""

    definition: str
    counted: str | None
    """Element whose atoms make the size of a ring, such as Si in silica; None counts all atoms."""
    max_nodes: int
    """Rings of more atoms, of whatever element, were not searched for."""
    counts: Int[np.ndarray, "systems sizes"]
    """Rings of size 0, 1, 2 … in each system."""
    n_open: Int[np.ndarray, " systems"]
    """Bonds (closing, Guttman) or pairs of bonds (King) that no ring of up to `max_nodes` atoms closes."""
    n_counted: Int[np.ndarray, " systems"]
    """Atoms of the counted element in each system."""

    @property
    def sizes(self) -> Int[np.ndarray, " sizes"]:
        """The sizes 0, 1, 2 …"""
        return np.arange(self.counts.shape[1])

    @property
    def n_rings(self) -> Int[np.ndarray, " systems"]:
        """Number of rings of each system."""
        return self.counts.sum(axis=1)

    @property
    def per_system(self) -> Float[np.ndarray, " systems"]:
        """Mean size of the rings of each system; NaN for a system without rings."""
        return _ratio(self.counts @ self.sizes, self.n_rings)

    @property
    def fractions(self) -> Float[np.ndarray, "systems sizes"]:
        """Fraction of the rings of each system with each size; NaN for a system without rings."""
        return _ratio(self.counts, self.n_rings[:, None])

    @property
    def per_atom(self) -> Float[np.ndarray, "systems sizes"]:
        """Rings of each size, for each atom of the counted element; NaN for a system without such atoms."""
        return _ratio(self.counts, self.n_counted[:, None])

    @property
    def distribution(self) -> Float[np.ndarray, " sizes"]:
        """Fraction of the rings with each size: mean over the systems with rings, each of the same weight."""
        return self.fractions[self.n_rings > 0].sum(axis=0) / max(np.count_nonzero(self.n_rings), 1)

    @property
    def mean(self) -> float:
        """Mean size: mean over the systems with rings, each of the same weight; NaN if none has any."""
        return float(self.per_system[self.n_rings > 0].mean()) if self.n_rings.any() else np.nan

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary a system of plain numbers, for a CSV or JSON file; the mean is None without rings."""
        return [
            {
                "system": s,
                "definition": self.definition,
                "counted": self.counted or "all",
                "max_nodes": self.max_nodes,
                "mean_size": float(mean) if np.isfinite(mean) else None,
                "rings": int(counts.sum()),
                "open": int(self.n_open[s]),
                **{f"size_{size}": int(n) for size, n in enumerate(counts)},
            }
            for s, (mean, counts) in enumerate(zip(self.per_system, self.counts, strict=True))
        ]


def covalent_cutoffs(structures: Structures, *, factor: float = 1.3) -> dict[str, float]:
    """Bond lengths by pair of elements in Å: `factor` times the sum of the covalent radii, 1.3 as in the paper's rings.

    >>> quartz = Structures(torch.zeros(2, 3), torch.tensor([14, 8]), torch.eye(3)[None], torch.tensor([2]))
    >>> {pair: round(length, 3) for pair, length in covalent_cutoffs(quartz).items()}
    {'O-O': 1.716, 'O-Si': 2.301, 'Si-Si': 2.886}
    """
    present = [z for z in kinds(structures) if z > 0]
    return {
        f"{symbol(a)}-{symbol(b)}": factor * float(COVALENT_RADII[a] + COVALENT_RADII[b])
        for i, a in enumerate(present)
        for b in present[i:]
    }


def rings(
    structures: Structures,
    *,
    definition: str,
    cutoff: Cutoff | None = None,
    counted: str | None = None,
    max_nodes: int = 24,
) -> Rings:
    """Rings of up to `max_nodes` atoms by one of the definitions above, ghosts removed, systems in parallel threads.

    `cutoff` is as in `bonds`; None takes `covalent_cutoffs`. The size of a ring is the number of its atoms of the
    element `counted`, of all its atoms where that is None.

    Errors: `ValueError` for an unknown definition, an element that does not occur, or `max_nodes` outside 3 … 64.

    >>> from amden.testing import diamond
    >>> found = rings(diamond(), definition="king", max_nodes=8)
    >>> found.per_system.tolist(), found.per_atom[0, 6].item()
    ([6.0], 2.0)
    """
    search = _SEARCHES.get(definition)
    if search is None:
        raise ValueError(f"unknown `definition` {definition!r}: expected one of {', '.join(_SEARCHES)}")
    if not 3 <= max_nodes <= MOST_NODES:
        raise ValueError(f"`max_nodes` must be from 3 to {MOST_NODES}, got {max_nodes}")
    structures = structures.without_ghosts()
    validate(structures)
    if len(structures) and int(structures.n_atoms.max()) > MOST_ATOMS:
        raise ValueError(f"`structures` must have at most {MOST_ATOMS} atoms each, got {int(structures.n_atoms.max())}")
    if counted is not None and atomic_number(counted) not in kinds(structures):
        present = ", ".join(symbol(z) for z in kinds(structures))
        raise ValueError(f"`counted` {counted!r} does not occur in the structures, which have {present}")
    cutoffs = cutoff_matrix(structures, covalent_cutoffs(structures) if cutoff is None else cutoff)
    weight = np.ones(len(structures.species), np.int64)
    if counted is not None:
        weight = (structures.species.cpu().numpy() == atomic_number(counted)).astype(np.int64)

    def run(network: _Network) -> tuple[np.ndarray, int]:
        return _count(network, search, max_nodes)

    results: list[tuple[np.ndarray, int]] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for networks in _networks(
            structures, cutoffs, weight
        ):  # torch's threads and these must not be in each other's way
            results += pool.map(run, networks)
    width = max((len(counts) for counts, _ in results), default=1)
    return Rings(
        definition=definition,
        counted=counted,
        max_nodes=max_nodes,
        counts=np.array([np.pad(counts, (0, width - len(counts))) for counts, _ in results]).reshape(-1, width),
        n_open=np.array([n_open for _, n_open in results], dtype=np.int64),
        n_counted=np.bincount(structures.system.cpu().numpy(), weights=weight, minlength=len(structures)).astype(int),
    )


def mean_ring_size(structures: Structures) -> Float[torch.Tensor, " systems"]:
    """The paper's: closing rings by their silicon atoms, by all atoms where there is no silicon or nothing else.

    NaN for a system without a ring that has an atom that counts.

    >>> from amden.testing import diamond
    >>> mean_ring_size(diamond()).tolist()
    [6.0]
    """
    silicon = (structures.species == atomic_number("Si")).double()
    n_silicon = segment_sum(silicon, structures.system, n_systems=len(structures))
    by_silicon = (n_silicon > 0) & (n_silicon < structures.n_atoms)
    sizes = torch.full((len(structures),), torch.nan, dtype=torch.float64)
    for counted, chosen in (("Si", by_silicon), (None, ~by_silicon)):
        if chosen.any():
            found = rings(structures.select(chosen.nonzero()[:, 0]), definition="closing", counted=counted)
            sizes[chosen] = torch.from_numpy(found.per_system.astype(np.float64))
    return sizes.masked_fill(sizes == 0.0, torch.nan)


def _ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


@dataclass(frozen=True)
class _Network:
    """Bonds of one system: k = start[i] … start[i + 1] - 1 lead from atom i to atoms target[k] in cells shift[k]."""

    start: Int[np.ndarray, " edges"]
    target: Int[np.ndarray, " bonds"]
    shift: Int[np.ndarray, "bonds 3"]
    counted: Int[np.ndarray, " atoms"]


def _networks(structures: Structures, cutoffs: np.ndarray, counted: np.ndarray) -> Iterator[list[_Network]]:
    """The systems' bonds, for each atom in the order of the atoms they lead to, shorter before longer; by `CHUNK`."""
    chunk = (torch.cumsum(structures.n_atoms, 0) - 1) // CHUNK
    for number in chunk.unique().tolist():
        part = structures.select(torch.nonzero(chunk == number)[:, 0]).to("cpu", dtype=torch.float64).wrapped()
        kind = torch.as_tensor(np.searchsorted(kinds(structures), part.species.numpy()))
        edges = neighbor_list(part, cutoff=float(cutoffs.max()))
        length = edges.vectors(part.positions, part.cell, part.system).norm(dim=-1)
        bonded = length < torch.as_tensor(cutoffs)[kind[edges.source], kind[edges.target]]
        source, target, shift = (x[bonded].numpy() for x in (edges.source, edges.target, edges.shift))
        order = np.lexsort((length[bonded].numpy(), target, source))
        source, target, shift = source[order], target[order], shift[order]
        start = np.searchsorted(source, np.arange(len(part.positions) + 1))
        networks = []
        for a, n in zip(part.first.tolist(), part.n_atoms.tolist(), strict=True):
            own = slice(start[a], start[a + n])
            networks.append(_Network(start[a : a + n + 1] - start[a], target[own] - a, shift[own], counted[a : a + n]))
        counted = counted[len(part.positions) :]
        yield networks


def _patch(network: _Network, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The vertices within `depth` bonds, and the table of their numbers."""
    if np.abs(network.shift).max(initial=0) * depth >= HALF:
        raise ValueError("`structures` have bonds over too many lattice vectors: choose shorter lattice vectors")
    room = 1 << max(10, len(network.start).bit_length())
    while True:
        room *= 2
        vertices, keys, ids = np.empty((room, 4), np.int32), np.empty(2 * room, np.int64), np.empty(2 * room, np.int32)
        size = patch(network.start, network.target, network.shift, depth, vertices, keys, ids)
        if size >= 0:
            return vertices[:size], keys, ids


def _count(network: _Network, search: Callable[..., tuple[int, int]], max_nodes: int) -> tuple[np.ndarray, int]:
    """Distinct rings by size, and what no ring closes."""
    n, depth = len(network.start) - 1, max_nodes // 2
    vertices, keys, ids = _patch(network, depth)
    first = np.empty(len(vertices) + 1, np.int32)
    degree = np.diff(network.start)
    near = np.empty(int(degree[vertices[:, 0]].sum()), np.int32)
    bonds(network.start, network.target, network.shift, vertices, keys, ids, first, near)
    extra = ()
    if search is primitive:
        extra = (keys, ids, distances(n, depth, first, near))
    room = 16 * n
    while True:
        found, sizes = np.empty(room, np.uint64), np.empty(room, np.int64)
        count, n_open = search(n, max_nodes, network.counted, vertices, first, near, *extra, found, sizes)
        if count <= room:
            _, once = np.unique(found[:count], return_index=True)
            return np.bincount(sizes[once], minlength=1), n_open
        room = count


_SEARCHES: dict[str, Callable[..., tuple[int, int]]] = {
    "closing": closing,
    "guttman": guttman,
    "king": king,
    "primitive": primitive,
}
