"""A system's atoms sorted into the bins of a grid along its lattice vectors, for searches within a range.

A walk over the bins may leave the cell: the bin met there is that of the periodic image.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from amden.structure import Structures, validate


@dataclass(frozen=True)
class Grid:
    """One system with its atoms sorted into a grid along the lattice vectors; `points` to `start` suit the kernels."""

    system: int
    atoms: Int[np.ndarray, " atoms"]
    """Index in the batch of each sorted atom."""
    points: Float[np.ndarray, "atoms 3"]
    """Positions inside the cell."""
    places: Int[np.ndarray, " atoms"]
    """Bin of each atom, sorted."""
    kinds: Int[np.ndarray, " atoms"]
    cell: Float[np.ndarray, "3 3"]
    n_bins: Int[np.ndarray, "3"]
    stencil: Int[np.ndarray, "3"]
    """Bins to walk to either side so that all within the reach is met."""
    start: Int[np.ndarray, " edges"]
    """First sorted atom of each bin."""

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Arguments of the kernels."""
        return self.points, self.places, self.kinds, self.cell, self.n_bins, self.stencil, self.start


def kinds(structures: Structures) -> list[int]:
    """Atomic numbers that occur, in order: the axes `kinds` of the counts.

    >>> import torch
    >>> kinds(Structures(torch.zeros(2, 3), torch.tensor([14, 8]), torch.eye(3)[None], torch.tensor([2])))
    [8, 14]
    """
    return torch.nonzero(torch.bincount(structures.species))[:, 0].tolist()


def grids(structures: Structures, reach: float) -> Iterator[Grid]:
    """The systems, each in a grid for searches within `reach`."""
    validate(structures)
    positions = structures.positions.detach().cpu().double().numpy()
    cells = structures.cell.detach().cpu().double().numpy()
    kind: np.ndarray = np.searchsorted(kinds(structures), structures.species.cpu().numpy())
    inverses = np.linalg.inv(cells)
    heights = 1.0 / np.linalg.norm(inverses, axis=1)
    start = 0
    for system, n in enumerate(structures.n_atoms.tolist()):
        s = positions[start : start + n] @ inverses[system]
        s -= np.floor(s)
        n_bins = _bins(heights[system], reach, n)
        b = np.minimum((s * n_bins).astype(np.int64), n_bins - 1)
        place = (b[:, 0] * n_bins[1] + b[:, 1]) * n_bins[2] + b[:, 2]
        order = np.argsort(place, kind="stable")
        yield Grid(
            system=system,
            atoms=start + order,
            points=s[order] @ cells[system],
            places=place[order],
            kinds=kind[start + order],
            cell=cells[system],
            n_bins=n_bins,
            stencil=np.ceil(reach * n_bins / heights[system]).astype(np.int64),
            start=np.searchsorted(place[order], np.arange(n_bins.prod() + 1)),
        )
        start += n


def _bins(heights: Float[np.ndarray, "3"], reach: float, n_atoms: int) -> Int[np.ndarray, "3"]:
    """Bins along each lattice vector: about half of `reach` high, and not more than one an atom."""
    bins = np.maximum(2.0 * heights / reach, 1.0)
    return np.maximum(bins * min(1.0, (n_atoms / bins.prod()) ** (1.0 / 3.0)), 1.0).astype(np.int64)
