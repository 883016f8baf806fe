"""Distances no sound structure has: overlapping atoms, and a cutoff that finds nobody."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from amden import cell as lattice
from amden.neighbors.search import neighbor_list
from amden.structure import Structures

_PACKING = 2.0 ** (1.0 / 6.0)
"""No n points in a volume V are all farther apart than 2^(1/6) (V/n)^(1/3): the densest packing of spheres."""


def shortest_distance(structures: Structures) -> Float[Tensor, " systems"]:
    """Smallest distance in Å between two atoms of each system, periodic images included; infinite without atoms.

    >>> atom = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.0 * torch.eye(3)[None], torch.tensor([1]))
    >>> shortest_distance(atom).tolist()
    [2.0]
    """
    per_atom = lattice.volume(structures.cell).abs() / structures.n_atoms.clamp(min=1)
    scale = per_atom.pow(-1.0 / 3.0)
    scaled = replace(
        structures,
        positions=structures.positions * scale.to(structures.positions.dtype)[structures.system, None],
        cell=structures.cell * scale[:, None, None],
    )
    edges = neighbor_list(scaled, cutoff=_PACKING * 1.001)
    length = edges.vectors(scaled.positions, scaled.cell, scaled.system).norm(dim=1)
    infinite = length.new_full((len(structures),), torch.inf)
    shortest = infinite.scatter_reduce(0, structures.system[edges.source], length, "amin")
    return shortest / scale.to(shortest.dtype)


def check_cutoff(structures: Structures, *, cutoff: float, source: str = "structures") -> None:
    """Raise `ValueError` for the first structure in which `cutoff` (Å) finds no neighbour at all."""
    shortest = shortest_distance(structures)
    lonely = (shortest >= cutoff).nonzero()
    if len(lonely):
        i = int(lonely[0])
        raise ValueError(
            f"{source}: structure {i} has no neighbours: its shortest distance is {float(shortest[i]):.3f} Å, "
            f"`cutoff` is {cutoff} Å"
        )


def check_overlaps(structures: Structures, *, min_distance: float, source: str = "structures") -> None:
    """Raise `ValueError` for the first two atoms closer than `min_distance` Å, periodic images included."""
    edges = neighbor_list(structures, cutoff=min_distance)
    if not len(edges):
        return
    a, b = int(edges.source[0]), int(edges.target[0])
    i = int(structures.system[a])
    distance = float(edges.vectors(structures.positions, structures.cell, structures.system)[0].norm())
    first = int(structures.first[i])
    raise ValueError(
        f"{source}: structure {i} has overlapping atoms: {a - first} and {b - first} are {distance:.3f} Å apart, "
        f"less than {min_distance} Å"
    )
