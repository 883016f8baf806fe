"""Cell lists: every atom looks into the bins about its own. Time and memory linear in atoms, sizes mixed at will."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden import cell as lattice
from amden.neighbors.edges import NeighborList
from amden.neighbors.plan import NeighborPlan
from amden.segment import system_index as repeated

BLOCK_CPU, BLOCK_GPU = 1 << 20, 1 << 25
"""Candidate pairs looked at together, about."""


def binned_list(positions: Float[Tensor, "atoms 3"], plan: NeighborPlan) -> NeighborList:
    """Edges of a batch by cell lists."""
    bins = _sorted(positions, plan)
    blocks = [_edges(bins, plan, slice(*ends)) for ends in pairwise(_marks(bins, plan))]
    return NeighborList(*(torch.cat([getattr(b, name) for b in blocks]) for name in ("source", "target", "shift")))


@dataclass(frozen=True, eq=False)
class _Bins:
    """Atoms sorted into the bins of their cells."""

    inside: Float[Tensor, "atoms 3"]
    """Wrapped positions."""
    wrap: Float[Tensor, "atoms 3"]
    """Lattice vectors taken off by wrapping."""
    low: Int[Tensor, "atoms 3"]
    """First bin to look into along each lattice vector; bins beyond the cell belong to its images."""
    span: Int[Tensor, "atoms 3"]
    """Number of bins to look into along each lattice vector."""
    order: Int[Tensor, " atoms"]
    """Atoms bin by bin."""
    base: Int[Tensor, " systems"]
    """First bin of each system."""
    start: Int[Tensor, " bins"]
    count: Int[Tensor, " bins"]


def _sorted(positions: Float[Tensor, "atoms 3"], plan: NeighborPlan) -> _Bins:
    s = lattice.cartesian(positions, plan.inverse.to(positions.dtype)[plan.system])
    wrap = torch.floor(s)
    bins = plan.bins[plan.system]
    place = (s - wrap) * bins
    reach = plan.reach.to(s.dtype)[plan.system]
    low = torch.floor(place - reach).long()
    per_system = plan.bins.prod(1)
    base = torch.cumsum(per_system, 0) - per_system
    number = base[plan.system] + _flat(torch.minimum(place.long(), bins - 1), bins)
    count = torch.bincount(number, minlength=int(per_system.sum()))
    return _Bins(
        inside=positions - lattice.cartesian(wrap, plan.cell.to(positions.dtype)[plan.system]),
        wrap=wrap,
        low=low,
        span=torch.floor(place + reach).long() - low + 1,
        order=torch.argsort(number, stable=True),
        base=base,
        start=torch.cumsum(count, 0) - count,
        count=count,
    )


def _marks(bins: _Bins, plan: NeighborPlan) -> list[int]:
    """Ends of runs of atoms with about a block's candidates each, were the atoms spread evenly over bins."""
    budget = BLOCK_CPU if plan.cell.device.type == "cpu" else BLOCK_GPU
    crowd = (plan.n_atoms / plan.bins.prod(1)).clamp(min=1.0)[plan.system]
    work = torch.cumsum((bins.span.prod(1) * crowd).double(), 0)
    n_blocks = int(work[-1] / budget) + 1 if len(work) else 1
    inner = torch.arange(1, n_blocks, device=work.device, dtype=work.dtype) * budget
    return [0, *torch.searchsorted(work, inner).tolist(), len(work)]


def _edges(bins: _Bins, plan: NeighborPlan, atoms: slice) -> NeighborList:
    """Edges from a run of atoms."""
    atom, local = _expanded(bins.span[atoms].prod(1))
    atom = atom + atoms.start
    system = plan.system[atom]
    n_bins = plan.bins[system]
    place = bins.low[atom] + _unflat(local, bins.span[atom])
    image = torch.div(place, n_bins, rounding_mode="floor")
    number = bins.base[system] + _flat(place - image * n_bins, n_bins)
    cell = plan.cell.to(bins.inside.dtype)[system]
    origin = bins.inside[atom] - lattice.cartesian(image.to(cell.dtype), cell)
    visit, within = _expanded(bins.count[number])
    target = bins.order[bins.start[number][visit] + within]
    near = (bins.inside[target] - origin[visit]).square().sum(-1) < plan.cutoff**2
    visit, target = visit[near], target[near]
    other = (target != atom[visit]) | (image[visit] != 0).any(1)
    visit, target = visit[other], target[other]
    source = atom[visit]
    return NeighborList(source, target, image[visit] + (bins.wrap[source] - bins.wrap[target]).long())


def _expanded(count: Int[Tensor, " n"]) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """Each index repeated `count` times, and the number of the repetition."""
    index = repeated(count)
    start = torch.cumsum(count, 0) - count
    return index, torch.arange(len(index), device=count.device) - start[index]


def _flat(place: Int[Tensor, "n 3"], bins: Int[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    return (place[:, 0] * bins[:, 1] + place[:, 1]) * bins[:, 2] + place[:, 2]


def _unflat(number: Int[Tensor, " n"], bins: Int[Tensor, "n 3"]) -> Int[Tensor, "n 3"]:
    rest = number // bins[:, 2]
    return torch.stack([rest // bins[:, 1], rest % bins[:, 1], number % bins[:, 2]], 1)
