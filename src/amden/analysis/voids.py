"""The room between the atoms: how far points of a structure are from the nearest atom."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, no_type_check

import numpy as np
import torch
from jaxtyping import Float

from amden.analysis.grid import Grid, grids
from amden.compiler import kept
from amden.structure import Structures

_PLASTIC: Final = 1.2207440846057596
"""Root of x⁴ = x + 1: its inverse powers make the points of a Kronecker sequence in three dimensions even."""


@dataclass(frozen=True)
class Voids:
    """Distances to the nearest atom of points spread evenly over every system of a set."""

    edges: Float[np.ndarray, " edges"]
    """Distances in Å."""
    outside: Float[np.ndarray, "systems edges"]
    """Fraction of the volume farther than each distance from every atom: 1 at no distance."""
    largest: Float[np.ndarray, " systems"]
    """Radius in Å of the largest sphere around one of the points that holds no atom."""

    @property
    def mean(self) -> Float[np.ndarray, " edges"]:
        """Mean fraction over the systems."""
        return self.outside.mean(axis=0)


def voids(structures: Structures, *, r_max: float = 6.0, bin_width: float = 0.1, points_per_atom: int = 40) -> Voids:
    """The fraction of the volume that is farther than r from every atom, and the largest void.

    In an ideal gas of density ρ the fraction is exp(-4πρ r³/3), around spheres that do not overlap 1 - 4πρ r³/3. It is
    known to the number of points, which are the same in fractions of the cell for systems of the same size. Voids
    beyond `r_max` (Å) count as `r_max`. Errors: `ValueError` for a range or numbers that are not positive.

    >>> import torch
    >>> cube = Structures(torch.zeros(1, 3), torch.tensor([14]), 3.0 * torch.eye(3)[None], torch.tensor([1]))
    >>> found = voids(cube, points_per_atom=20_000)
    >>> abs(found.mean[10] - (1.0 - 4.0 * np.pi / 81.0)) < 0.01, round(float(found.largest[0] / 3**0.5), 1)  # of 1 Å
    (np.True_, 1.5)
    """
    n_bins = round(r_max / bin_width) if bin_width > 0 else 0
    if n_bins < 1 or points_per_atom < 1:
        raise ValueError(
            f"`r_max`, `bin_width` and `points_per_atom` must be positive, got {r_max}, {bin_width}, {points_per_atom}"
        )
    edges = np.linspace(0.0, n_bins * bin_width, n_bins + 1)

    def measured(grid: Grid) -> tuple[np.ndarray, float]:
        distances = _to_nearest(grid, points_per_atom * len(grid.points), float(edges[-1]))
        counts = np.histogram(distances, edges)[0]
        return 1.0 - np.concatenate([[0.0], np.cumsum(counts) / len(distances)]), float(distances.max())

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = list(pool.map(measured, grids(structures, float(edges[-1]))))
    return Voids(edges, np.array([outside for outside, _ in found]), np.array([largest for _, largest in found]))


def _to_nearest(grid: Grid, n: int, reach: float) -> Float[np.ndarray, " points"]:
    """Distance in Å of evenly spread points from the nearest atom, at most `reach`."""
    steps = _PLASTIC ** -np.arange(1.0, 4.0)
    fractions = (0.5 + np.arange(n)[:, None] * steps) % 1.0
    found = np.empty(n)
    _nearest(fractions, grid.points, grid.cell, grid.n_bins, grid.stencil, grid.start, reach, found)
    return found


@kept()
@no_type_check
def _nearest(fractions, points, cell, n_bins, stencil, start, reach, found):
    """Distances from points, given as fractions of the cell, to the nearest image of an atom."""
    for k in range(len(fractions)):
        a, b, c = fractions[k, 0], fractions[k, 1], fractions[k, 2]
        x = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
        y = a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
        z = a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
        bx, by, bz = int(a * n_bins[0]), int(b * n_bins[1]), int(c * n_bins[2])
        least = reach * reach
        for ax in range(bx - stencil[0], bx + stencil[0] + 1):
            wx, mx = divmod(ax, n_bins[0])
            for ay in range(by - stencil[1], by + stencil[1] + 1):
                wy, my = divmod(ay, n_bins[1])
                for az in range(bz - stencil[2], bz + stencil[2] + 1):
                    wz, mz = divmod(az, n_bins[2])
                    place = (mx * n_bins[1] + my) * n_bins[2] + mz
                    sx = wx * cell[0, 0] + wy * cell[1, 0] + wz * cell[2, 0] - x
                    sy = wx * cell[0, 1] + wy * cell[1, 1] + wz * cell[2, 1] - y
                    sz = wx * cell[0, 2] + wy * cell[1, 2] + wz * cell[2, 2] - z
                    for j in range(start[place], start[place + 1]):
                        dx, dy, dz = points[j, 0] + sx, points[j, 1] + sy, points[j, 2] + sz
                        least = min(least, dx * dx + dy * dy + dz * dz)
        found[k] = least**0.5
