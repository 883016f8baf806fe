"""Neighbours in periodic cells of any shape and size, on CPU and GPU.

Edges everywhere: r = positions[target] - positions[source] + shift · cell, |r| < cutoff, positions as given (wrapped or
not). An atom meets its own images in a cell smaller than the cutoff (target = source, shift ≠ 0).

`neighbor_list` serves analysis and checks, `neighbor_matrix` the networks; `neighbor_plan` is what both know of cells
and sizes beforehand, so that a loop over steps pays for it once. `plan` decides between the two searches: `dense` (all
pairs; no host synchronisation) and `binned` (cells lists; memory and time linear in atoms).
"""

from amden.neighbors.checks import check_cutoff, check_overlaps, shortest_distance
from amden.neighbors.edges import NeighborList, NeighborMatrix
from amden.neighbors.plan import NeighborPlan, expected_capacity, neighbor_plan
from amden.neighbors.search import neighbor_list, neighbor_matrix

__all__ = [
    "NeighborList",
    "NeighborMatrix",
    "NeighborPlan",
    "check_cutoff",
    "check_overlaps",
    "expected_capacity",
    "neighbor_list",
    "neighbor_matrix",
    "neighbor_plan",
    "shortest_distance",
]
