"""What a training step is given: systems as samples with fresh ghosts, and the plan of their neighbours.

Sizes and cells of the whole set are known to the host, so that batches, ghosts and plans are laid out there and sent;
nothing waits for a GPU. A network that is compiled for one shape pads its inputs to the room of `Shapes`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Int
from torch import Tensor

from amden import cell as lattice
from amden.dataset import Batches
from amden.diffusion.corruption import filled_size
from amden.diffusion.denoiser import Sample
from amden.diffusion.vocabulary import Vocabulary
from amden.elements import GHOST
from amden.neighbors import NeighborPlan, expected_capacity, neighbor_matrix, neighbor_plan
from amden.nn.score import Room
from amden.segment import first_atom, system_index
from amden.structure import Structures, sent

MEASURED: Final = 100
"""Structures in which neighbours are counted."""


@dataclass(frozen=True)
class Shapes:
    """What stays the same in all batches, so that a network is compiled once."""

    cutoff: float
    """Of the neighbours, in Å."""
    capacity: int
    """Neighbours an atom. At 3.5 deviations about one row in 5,000 of a noisy sample loses its farthest, whose weight
    all but vanishes at the cutoff anyway."""
    room: Room | None
    """What the network's inputs are padded to; None where all structures have one size."""

    @staticmethod
    def of(
        structures: Structures,
        *,
        cutoff: float,
        batch_size: int,
        max_atoms: int | None = None,
        ghost_density: float | None = None,
    ) -> "Shapes":
        """Shapes that hold any batch of these structures with their ghosts; their neighbours too where they are denser
        in places, as slabs are, by some of them."""
        sizes, cell = _sizes(structures, ghost_density), structures.cell.cpu()
        some = structures.select(torch.linspace(0, len(structures) - 1, min(len(structures), MEASURED)).round().long())
        found = neighbor_matrix(some.positions, some.cell, some.n_atoms, cutoff=cutoff).n_neighbors
        capacity = max(expected_capacity(cell, sizes, cutoff=cutoff, deviations=3.5), int(found.max()))
        if int(sizes.min()) == int(sizes.max()):
            return Shapes(cutoff, capacity, None)
        most = int(sizes.sort(descending=True).values[:batch_size].sum())
        return Shapes(cutoff, capacity, Room(batch_size, most if max_atoms is None else min(max_atoms, most)))


class Feed:
    """Samples drawn from a set of structures; the set goes to the device once."""

    def __init__(
        self,
        structures: Structures,
        vocabulary: Vocabulary,
        *,
        device: torch.device,
        batch_size: int,
        max_atoms: int | None = None,
        seed: int = 0,
        properties: Sequence[str] = (),
        ghost_density: float | None = None,
        shapes: Shapes | None = None,
    ) -> None:
        """`ghost_density` (atoms/Å³) is what ghosts fill up to; with `shapes` each sample comes with the plan of a
        neighbour search.

        Errors: `ValueError` for `max_atoms` smaller than the largest structure with its ghosts.
        """
        self._cell, self._n_atoms, self._device = structures.cell.cpu(), structures.n_atoms.cpu(), device
        self._first, self._sizes = first_atom(self._n_atoms), _sizes(structures, ghost_density)
        self._ghosts, self._shapes = ghost_density is not None, shapes
        largest = int(self._sizes.max())
        if max_atoms is not None and max_atoms < largest:
            raise ValueError(
                f"`max_atoms` must hold the largest structure with its ghosts, {largest} atoms, got {max_atoms}"
            )
        self.batches = Batches(self._sizes, batch_size, seed=seed, max_atoms=max_atoms)
        positions, species = structures.positions, structures.species
        if self._ghosts:  # the last row stands for all of them
            positions = torch.cat([positions, positions.new_zeros(1, 3)])
            species = torch.cat([species, species.new_full((1,), GHOST)])
        self._positions = positions.to(device)
        self._elements = vocabulary.encode(species).to(positions.dtype).to(device)
        self._cells = structures.cell.to(positions.dtype).to(device)
        self._conditions = {name: structures.properties[name].to(positions.dtype).to(device) for name in properties}

    def sample(self, chosen: Int[Tensor, " batch"], generator: torch.Generator) -> tuple[Sample, NeighborPlan | None]:
        """The structures of these indices (on the host) with ghosts at random places."""
        n_atoms = self._sizes[chosen]
        system = system_index(n_atoms)
        index = torch.arange(len(system)) - first_atom(n_atoms)[system]
        ghost = index >= self._n_atoms[chosen][system]
        atoms = sent(torch.where(ghost, len(self._positions) - 1, self._first[chosen][system] + index), self._device)
        systems = sent(chosen, self._device)
        positions, cell = self._positions[atoms], self._cells[systems]
        plan = None if self._shapes is None else self._planned(chosen, n_atoms)
        if self._ghosts:
            s = torch.rand(positions.shape, generator=generator, device=self._device, dtype=positions.dtype)
            anywhere = lattice.cartesian(s, cell[sent(system, self._device)])
            positions = torch.where(sent(ghost, self._device)[:, None], anywhere, positions)
        conditions = {name: values[systems] for name, values in self._conditions.items()}
        return Sample(positions, self._elements[atoms], cell, sent(n_atoms, self._device), conditions), plan

    def in_order(self, generator: torch.Generator) -> Iterator[tuple[Sample, NeighborPlan | None]]:
        """The samples of one epoch in the order of the set; of structures of one size, for which a network is compiled
        without padding, only whole batches."""
        padded = self._shapes is None or self._shapes.room is not None
        return (self.sample(chosen, generator) for chosen in self.batches.in_order(whole=padded))

    def _planned(self, chosen: Int[Tensor, " batch"], n_atoms: Int[Tensor, " batch"]) -> NeighborPlan:
        assert self._shapes is not None
        cell = self._cell[chosen].to(self._positions.dtype)
        cutoff, capacity = self._shapes.cutoff, self._shapes.capacity
        return neighbor_plan(cell, n_atoms, cutoff=cutoff, capacity=capacity, dense=True).to(self._device)


def _sizes(structures: Structures, ghost_density: float | None) -> Int[Tensor, " systems"]:
    """Atoms of each structure with its ghosts, on the CPU."""
    n_atoms = structures.n_atoms.cpu()
    return n_atoms if ghost_density is None else filled_size(structures.cell.cpu(), n_atoms, ghost_density)
