"""The two questions one can ask: a list of edges of structures, or a matrix of neighbours for a network."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden import cell as lattice
from amden.neighbors.binned import binned_list
from amden.neighbors.dense import dense_list, dense_matrix
from amden.neighbors.edges import NeighborList, NeighborMatrix, edges_to_matrix
from amden.neighbors.plan import NeighborPlan, neighbor_plan, rounded_up
from amden.structure import Structures


def neighbor_list(structures: Structures, *, cutoff: float, plan: NeighborPlan | None = None) -> NeighborList:
    """All pairs of atoms and images closer than `cutoff` Å, both directions, sorted by source.

    A `plan` made before must be for the same cells, sizes and cutoff.

    >>> atom = Structures(torch.zeros(1, 3), torch.tensor([14]), torch.eye(3)[None], torch.tensor([1]))
    >>> len(neighbor_list(atom, cutoff=1.1))
    6
    """
    if plan is None:
        plan = neighbor_plan(structures.cell.to(structures.positions.dtype), structures.n_atoms, cutoff=cutoff)
    _check_plan(plan, cutoff)
    return dense_list(structures.positions, plan) if plan.dense else binned_list(structures.positions, plan)


def neighbor_matrix(
    positions: Float[Tensor, "atoms 3"],
    cell: Float[Tensor, "systems 3 3"],
    n_atoms: Int[Tensor, " systems"],
    *,
    cutoff: float,
    capacity: int | None = None,
    multiple: int = 8,
    plan: NeighborPlan | None = None,
) -> NeighborMatrix:
    """Neighbours closer than `cutoff` Å with a row an atom, nearest first.

    `capacity` fixes the length of the rows: then a dense plan needs no host synchronisation, and `overflow` tells
    whether neighbours were dropped. None counts, and rounds up to a `multiple`. A `plan` made before for the same
    cells, sizes and cutoff brings its own capacity.

    >>> pair = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    >>> found = neighbor_matrix(pair, 9.0 * torch.eye(3)[None], torch.tensor([2]), cutoff=3.0, capacity=2)
    >>> found.target.tolist(), found.n_neighbors.tolist()
    ([[1, 0], [0, 1]], [1, 1])
    """
    if plan is None:
        plan = neighbor_plan(cell.to(positions.dtype), n_atoms, cutoff=cutoff, capacity=capacity, multiple=multiple)
    _check_plan(plan, cutoff)
    if plan.dense:
        return dense_matrix(positions, plan)
    edges = binned_list(positions, plan)
    cells = plan.cell.to(positions.dtype)[plan.system[edges.source]]
    offset = lattice.cartesian(edges.shift.to(positions.dtype), cells)
    vectors = positions[edges.target] - positions[edges.source] + offset
    places = plan.capacity or rounded_up(int(torch.bincount(edges.source, minlength=1).max()), plan.multiple)
    return edges_to_matrix(edges, vectors, offset, n_atoms=len(positions), cutoff=plan.cutoff, capacity=places)


def _check_plan(plan: NeighborPlan, cutoff: float) -> None:
    if plan.cutoff != cutoff:
        raise ValueError(f"`plan` was made for a cutoff of {plan.cutoff} Å, not {cutoff} Å")
