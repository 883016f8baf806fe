"""All pairs of atoms and images, in blocks of bounded memory: for small cells and for GPUs.

A candidate of atom i is (atom j, image m) of its own system. Fractional differences are reduced to |d| ≤ ½ first, so
one image suffices where the cell is thicker than twice the cutoff. A matrix of given capacity needs no host
synchronisation: its shapes are those of the plan.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from amden import cell as lattice
from amden.neighbors.edges import NeighborList, NeighborMatrix, padding_offset
from amden.neighbors.plan import NeighborPlan, rounded_up

BLOCK_CPU, BLOCK_GPU = 1 << 18, 1 << 25
"""Candidates of one block: what stays in cache, what stays in memory."""

_NONE = 2**31 - 1


def dense_list(positions: Float[Tensor, "atoms 3"], plan: NeighborPlan) -> NeighborList:
    """Edges of a batch by search of all pairs."""
    s = _padded(positions, plan)
    n_images = len(plan.images)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for systems, rows in _blocks(plan):
        near = _squares(s, plan, systems, rows) < plan.cutoff**2
        b, i, candidate = near.nonzero().unbind(1)
        b, i, j = b + systems.start, i + rows.start, candidate // n_images
        shift = _shift(s[b, j] - s[b, i], candidate % n_images, plan)
        found.append((plan.first[b] + i, plan.first[b] + j, shift.long()))
    if not found:
        none = plan.system.new_zeros(0)
        return NeighborList(none, none, plan.images.new_zeros(0, 3))
    return NeighborList(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def dense_matrix(positions: Float[Tensor, "atoms 3"], plan: NeighborPlan) -> NeighborMatrix:
    """Rows of the nearest neighbours by search of all pairs."""
    s = _padded(positions, plan)
    blocks = [_nearest(_squares(s, plan, *block), plan) for block in _blocks(plan)]
    capacity = plan.capacity or max(keys.shape[-1] for keys, _ in blocks)
    keys = torch.cat([pad(k, (0, capacity - k.shape[-1]), value=_NONE).flatten(0, 1) for k, _ in blocks])
    count = torch.cat([c.flatten() for _, c in blocks])
    if not plan.equal:
        keys, count = keys[plan.slots], count[plan.slots]
    target, offset = _decoded(keys, s.reshape(-1, 3), plan)
    return NeighborMatrix(target, offset, count.clamp(max=capacity), (count > capacity).any())


def _decoded(
    keys: Int[Tensor, "atoms places"], s: Float[Tensor, "slots 3"], plan: NeighborPlan
) -> tuple[Int[Tensor, "atoms places"], Float[Tensor, "atoms places 3"]]:
    """Target and offset of each key."""
    padding = keys == _NONE
    candidate = torch.where(padding, 0, keys & ((1 << _candidate_bits(plan)) - 1))
    j, image = candidate // len(plan.images), candidate % len(plan.images)
    own = torch.arange(len(keys), device=keys.device)[:, None]
    slot = own if plan.equal else plan.slots[:, None]
    shift = _shift(s[plan.system[:, None] * plan.largest + j] - s[slot], image, plan)
    offset = lattice.cartesian(shift, plan.cell.to(s.dtype)[plan.system, None])
    target = torch.where(padding, own, plan.first[plan.system][:, None] + j)
    return target, torch.where(padding[..., None], padding_offset(plan.cutoff, s), offset)


def _padded(positions: Float[Tensor, "atoms 3"], plan: NeighborPlan) -> Float[Tensor, "systems largest 3"]:
    """Fractional coordinates, every system padded to the largest."""
    if not plan.equal:
        positions = positions.new_zeros(len(plan.n_atoms) * plan.largest, 3).index_copy(0, plan.slots, positions)
    padded = positions.reshape(len(plan.n_atoms), plan.largest, 3)
    return lattice.cartesian(padded, plan.inverse.to(positions.dtype)[:, None])


def _blocks(plan: NeighborPlan) -> Iterator[tuple[slice, slice]]:
    """Slices of systems and rows: several whole systems, or some rows of one."""
    n_systems, n = len(plan.n_atoms), plan.largest
    budget = BLOCK_CPU if plan.cell.device.type == "cpu" else BLOCK_GPU
    rows = max(1, min(n, budget // max(1, n * len(plan.images))))
    systems = max(1, budget // max(1, n * n * len(plan.images)))
    for b in range(0, n_systems, systems):
        for i in range(0, n, rows):
            yield slice(b, min(b + systems, n_systems)), slice(i, min(i + rows, n))


def _squares(
    s: Float[Tensor, "systems largest 3"], plan: NeighborPlan, systems: slice, rows: slice
) -> Float[Tensor, "block rows candidates"]:
    """Squared distances in Å² to every candidate; infinite to itself and to padding."""
    s = s[systems]
    differences = [(c := s[:, None, :, a] - s[:, rows, None, a]) - torch.round(c) for a in range(3)]
    if len(plan.images) > 1:
        images = plan.images.to(s.dtype)
        steps = [_other_side(d)[..., None] if plan.one_sided else 1.0 for d in differences]
        differences = [
            d[..., None] + step * images[:, a] for a, (d, step) in enumerate(zip(differences, steps, strict=True))
        ]
    else:
        differences = [d[..., None] for d in differences]
    L = plan.triangle.to(s.dtype)[systems, :, :, None, None, None]
    square = torch.zeros_like(differences[0])
    for column in range(3):
        component = differences[column] * L[:, column, column]
        for row in range(column + 1, 3):
            component = torch.addcmul(component, differences[row], L[:, row, column])
        square = torch.addcmul(square, component, component)
    square[:, :, rows, plan.own].diagonal(dim1=1, dim2=2).fill_(torch.inf)
    if not plan.equal:
        square.masked_fill_(~plan.real[systems, None, :, None], torch.inf)
        square.masked_fill_(~plan.real[systems, rows, None, None], torch.inf)
    return square.flatten(2)


def _other_side(difference: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The step to the image on the other side: +1 for a negative difference, else -1."""
    return 1.0 - 2.0 * (difference >= 0).to(difference.dtype)


def _shift(
    difference: Float[Tensor, "*any 3"], image: Int[Tensor, "*any"], plan: NeighborPlan
) -> Float[Tensor, "*any 3"]:
    """Lattice vectors to add to a fractional difference so that it becomes that of the image."""
    wrap = torch.round(difference)
    if len(plan.images) == 1:
        return -wrap
    images = plan.images.to(difference.dtype)[image]
    return (images * _other_side(difference - wrap) if plan.one_sided else images) - wrap


def _candidate_bits(plan: NeighborPlan) -> int:
    return (plan.largest * len(plan.images) - 1).bit_length()


def _nearest(
    square: Float[Tensor, "block rows candidates"], plan: NeighborPlan
) -> tuple[Int[Tensor, "block rows places"], Int[Tensor, "block rows"]]:
    """Keys of the nearest candidates in order, and the number of neighbours.

    A key holds the squared distance in its high bits and the candidate in its low bits: keys are unique, so their order
    does not depend on the algorithm of `topk`, on the device or on the batch.
    """
    bits = _candidate_bits(plan)
    near = square < plan.cutoff**2
    count = near.sum(-1)
    level = (square * ((2 ** (31 - bits) - 2) / plan.cutoff**2)).to(torch.int32)
    candidate = torch.arange(square.shape[-1], dtype=torch.int32, device=square.device)
    keys = torch.where(near, (level << bits) | candidate, _NONE)
    places = plan.capacity or rounded_up(int(count.max()), plan.multiple)
    held = min(places, keys.shape[-1])
    nearest = keys.topk(held, dim=-1, largest=False, sorted=True).values
    return pad(nearest, (0, places - held), value=_NONE), count
