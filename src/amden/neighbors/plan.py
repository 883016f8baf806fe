"""What a neighbour search knows before it sees positions: images, bins, padding, and which of the searches is cheaper.

A plan costs one look at the cells from the host. Cells and sizes do not change during denoising, so one plan serves
every step and the steps themselves need no synchronisation.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from amden import cell as lattice
from amden.segment import first_atom, system_index
from amden.structure import sent

MAX_IMAGES = 1_000_000
"""More images of one cell than this inside the cutoff are taken for a mistake in the cell."""

DENSE_ADVANTAGE = 8.0
"""Candidates the dense search looks at in the time of one bin or candidate of the binned search."""


@dataclass(frozen=True, eq=False)
class NeighborPlan:
    """Static facts of a batch, made by `neighbor_plan`."""

    cutoff: float
    """In Å."""
    capacity: int | None
    """Places of a matrix row; None counts the neighbours, with one host synchronisation a search."""
    multiple: int
    """A counted capacity is rounded up to a multiple of this."""
    cell: Float[Tensor, "systems 3 3"]
    inverse: Float[Tensor, "systems 3 3"]
    """s = r · inverse."""
    triangle: Float[Tensor, "systems 3 3"]
    """Lower-triangular L with L Lᵀ = cell · cellᵀ: |r| = |s L|."""
    n_atoms: Int[Tensor, " systems"]
    system: Int[Tensor, " atoms"]
    first: Int[Tensor, " systems"]
    largest: int
    """Atoms of the largest system."""
    equal: bool
    """All systems have the same number of atoms."""
    images: Int[Tensor, "images 3"]
    """Images of the dense search about the minimum image, each of which lies at fractional difference d in (-½, ½)."""
    one_sided: bool
    """Where all cells are thicker than the cutoff, only the image on the other side can be near: `images` then counts
    steps against the sign of d and has 8 rows at most instead of 27."""
    bins: Int[Tensor, "systems 3"]
    """Bins of the binned search along each lattice vector."""
    reach: Float[Tensor, "systems 3"]
    """Cutoff in widths of a bin."""
    dense: bool
    """Search all pairs rather than bins."""

    @property
    def own(self) -> int:
        """Row of `images` that is the minimum image itself."""
        return 0 if self.one_sided else len(self.images) // 2

    @property
    def slots(self) -> Int[Tensor, " atoms"]:
        """Row of each atom when every system is padded to the largest."""
        atoms = torch.arange(len(self.system), device=self.system.device)
        return atoms + (self.system * self.largest - self.first[self.system])

    @property
    def real(self) -> Bool[Tensor, "systems largest"]:
        """False where the padding is."""
        return torch.arange(self.largest, device=self.n_atoms.device) < self.n_atoms[:, None]

    def to(self, device: torch.device) -> "NeighborPlan":
        """The plan on another device; a GPU is not waited for, so a plan is best made on the host and sent."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: sent(v, device) for k, v in values.items() if isinstance(v, Tensor)})


def neighbor_plan(
    cell: Float[Tensor, "systems 3 3"],
    n_atoms: Int[Tensor, " systems"],
    *,
    cutoff: float,
    capacity: int | None = None,
    multiple: int = 8,
    dense: bool | None = None,
) -> NeighborPlan:
    """Plan of a search in these cells; `capacity` fixes the row length of a matrix.

    `dense` chooses between all pairs and bins, None by their cost; only all pairs with a fixed capacity never wait for
    a GPU.

    Errors: `ValueError` for a cutoff that is not positive, a cell without volume, or one so thin that more than a
    million of its images lie inside the cutoff.

    >>> plan = neighbor_plan(17.0 * torch.eye(3)[None], torch.tensor([256]), cutoff=6.5)
    >>> plan.dense, len(plan.images)
    (True, 1)
    """
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"`cutoff` must be positive and finite, got {cutoff}")
    if capacity is not None and capacity < 1:
        raise ValueError(f"`capacity` must be at least 1, got {capacity}")
    if multiple < 1:
        raise ValueError(f"`multiple` must be at least 1, got {multiple}")
    heights = _heights(cell)
    sizes = n_atoms.detach().cpu()
    images = _image_reach(heights, cutoff)
    bins, reach = _bins(heights, sizes, cutoff)
    largest = int(sizes.max()) if len(sizes) else 0
    one_sided = bool((images <= 1).all()) and bool((heights >= cutoff).all())
    sides = [torch.arange(0 if one_sided else -n, n + 1) for n in images.tolist()]
    n_images = math.prod(map(len, sides))
    looked_at = sizes * torch.prod(2 * reach + 1, 1) * (1 + sizes / torch.prod(bins, 1))
    cheap = 0 < len(sizes) * largest**2 * n_images <= DENSE_ADVANTAGE * float(looked_at.sum())
    precise = cell.double()
    return NeighborPlan(
        cutoff=cutoff,
        capacity=capacity,
        multiple=multiple,
        cell=cell,
        inverse=lattice.inverse(precise).to(cell.dtype),
        triangle=torch.linalg.cholesky(precise @ precise.mT).to(cell.dtype),
        n_atoms=n_atoms,
        system=system_index(n_atoms, total=int(sizes.sum())),
        first=first_atom(n_atoms),
        largest=largest,
        equal=bool((sizes == largest).all()),
        images=torch.cartesian_prod(*sides).to(cell.device),
        one_sided=one_sided,
        bins=bins.to(cell.device),
        reach=reach.to(cell),
        dense=cheap if dense is None else dense,
    )


def expected_capacity(
    cell: Float[Tensor, "systems 3 3"],
    n_atoms: Int[Tensor, " systems"],
    *,
    cutoff: float,
    deviations: float = 5.0,
    multiple: int = 8,
) -> int:
    """Row length that random positions hardly overflow: Poisson mean and five deviations, about one row in a million.

    >>> expected_capacity(17.0 * torch.eye(3)[None], torch.tensor([256]), cutoff=6.5)
    104
    """
    density = n_atoms.to(cell.dtype) / lattice.volume(cell).abs()
    mean = float(density.max()) * 4.0 / 3.0 * math.pi * cutoff**3
    return rounded_up(math.ceil(mean + deviations * math.sqrt(mean) + 1.0), multiple)


def rounded_up(n: int, multiple: int) -> int:
    """The smallest positive multiple not below `n`."""
    return -(-max(n, 1) // multiple) * multiple


def _heights(cell: Float[Tensor, "systems 3 3"]) -> Float[Tensor, "systems 3"]:
    """Heights on the host in float64; `ValueError` for a cell without volume."""
    cell = cell.detach().double().cpu()
    edges = cell.norm(dim=-1).prod(-1)
    bad = ~(lattice.volume(cell).abs() > 1e-9 * edges)
    if bad.any():
        raise ValueError(f"structure {int(bad.nonzero()[0])} has a cell with vanishing volume")
    return lattice.heights(cell)


def _image_reach(heights: Float[Tensor, "systems 3"], cutoff: float) -> Int[Tensor, "3"]:
    """Images to look at on either side of the minimum image (|s_i| ≤ ½): |m_i| < cutoff / h_i + ½."""
    reach = torch.ceil(cutoff / heights - 0.5 - 1e-6).clamp(min=0)
    n_images = torch.prod(2 * reach + 1, 1)
    if (n_images > MAX_IMAGES).any():
        i = int((n_images > MAX_IMAGES).nonzero()[0])
        thin = float(heights[i].min())
        raise ValueError(f"structure {i} has a cell only {thin:.3g} Å thin: too many images inside `cutoff` {cutoff} Å")
    return reach.amax(0).long() if len(reach) else torch.zeros(3, dtype=torch.long)


def _bins(
    heights: Float[Tensor, "systems 3"], sizes: Int[Tensor, " systems"], cutoff: float
) -> tuple[Int[Tensor, "systems 3"], Float[Tensor, "systems 3"]]:
    """Bins no thinner than the cutoff and not more than atoms, and the cutoff in widths of a bin."""
    fitting = torch.floor(heights / cutoff).clamp(min=1)
    crowding = (sizes.clamp(min=1) / fitting.prod(1)).clamp(max=1.0) ** (1 / 3)
    bins = torch.floor(fitting * crowding[:, None] * (1 + 1e-9)).clamp(min=1)
    return bins.long(), cutoff * bins / heights * (1 + 1e-6)
