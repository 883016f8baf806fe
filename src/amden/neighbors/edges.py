"""What a neighbour search returns: a list of edges, or a matrix with a row an atom."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from amden import cell as lattice


@dataclass(frozen=True, eq=False)
class NeighborList:
    """Edges of a batch, sorted by source: r = positions[target] - positions[source] + shift · cell[system]."""

    source: Int[Tensor, " edges"]
    target: Int[Tensor, " edges"]
    shift: Int[Tensor, "edges 3"]
    """Lattice vectors to add, counted from the positions as given."""

    def __len__(self) -> int:
        return len(self.source)

    def vectors(
        self,
        positions: Float[Tensor, "atoms 3"],
        cell: Float[Tensor, "systems 3 3"],
        system: Int[Tensor, " atoms"],
    ) -> Float[Tensor, "edges 3"]:
        """r of every edge in Å, differentiable by positions and cell."""
        moved = lattice.cartesian(self.shift.to(positions.dtype), cell.to(positions.dtype)[system[self.source]])
        return positions[self.target] - positions[self.source] + moved


@dataclass(frozen=True, eq=False)
class NeighborMatrix:
    """Neighbours with a row an atom, nearest first: r = positions[target] - positions[source] + offset.

    Squared distances closer than a millionth of the cutoff's (coarser where a cell needs many images) may be ordered by
    index instead.

    Padding entries point to the atom itself at twice the cutoff, where a cutoff function vanishes, so a plain sum over
    a row needs no mask.
    """

    target: Int[Tensor, "atoms neighbors"]
    offset: Float[Tensor, "atoms neighbors 3"]
    """shift · cell in Å."""
    n_neighbors: Int[Tensor, " atoms"]
    """Entries of a row that are no padding."""
    overflow: Bool[Tensor, ""]
    """True where an atom has more neighbours than the row has places; the nearest were kept."""


def edges_to_matrix(
    edges: NeighborList,
    vectors: Float[Tensor, "edges 3"],
    offset: Float[Tensor, "edges 3"],
    *,
    n_atoms: int,
    cutoff: float,
    capacity: int,
) -> NeighborMatrix:
    """The edges in rows of `capacity` places, nearest first; ties keep the order of the list."""
    nearest = torch.argsort(vectors.square().sum(-1), stable=True)
    order = nearest[torch.argsort(edges.source[nearest], stable=True)]
    source = edges.source[order]
    count = torch.bincount(source, minlength=n_atoms)
    rank = torch.arange(len(source), device=source.device) - (torch.cumsum(count, 0) - count)[source]
    kept = rank < capacity
    order, row, column = order[kept], source[kept], rank[kept]
    own = torch.arange(n_atoms, device=source.device)[:, None]
    target = own.repeat(1, capacity).index_put((row, column), edges.target[order])
    far = padding_offset(cutoff, offset).expand(n_atoms, capacity, 3)
    return NeighborMatrix(
        target=target,
        offset=far.index_put((row, column), offset[order]),
        n_neighbors=count.clamp(max=capacity),
        overflow=(count > capacity).any(),
    )


def padding_offset(cutoff: float, like: Float[Tensor, "*any"]) -> Float[Tensor, "3"]:
    """Offset of padding entries: (2 cutoff, 0, 0)."""
    return (torch.arange(3, device=like.device) == 0).to(like.dtype) * (2.0 * cutoff)
