"""The score model: a noise predictor around the EGNN (eq. 12, 15), a `Denoiser` for the samplers."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from amden import cell as lattice
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.neighbors import NeighborPlan, neighbor_matrix, neighbor_plan
from amden.neighbors.edges import padding_offset
from amden.nn.classes import class_noise, scales
from amden.nn.egnn import EGNN, EGNNConfig
from amden.nn.embedding import NodeFeatures, PropertyScale
from amden.segment import centred


@dataclass(frozen=True)
class ScoreConfig:
    """A score model: what it knows and how large it is."""

    __pydantic_config__ = {"extra": "forbid"}

    vocabulary: Vocabulary
    """Elements, and whether ghosts are among them."""
    properties: Mapping[str, PropertyScale] = field(default_factory=dict)
    """Properties it can be conditioned on, with the scale of the training set."""
    egnn: EGNNConfig = field(default_factory=EGNNConfig)
    property_width: int = 8
    """Width of a property embedding d_emb."""
    energy: bool = False
    """Whether the noise is the gradient of a noise energy (`amden.nn.energy`) or predicted as it is."""
    ghost_density: float | None = None
    """Number density in atoms/Å³ up to which ghosts fill a system; None without ghosts."""


SORTED_FROM: Final = 4096
"""Atoms from which on a processor is given those of a neighbourhood together: what it gathers for one atom is then in
the cache for the next. 20,000 atoms in one cell take two thirds of the time."""


class Room(NamedTuple):
    """Shapes that the network's inputs are padded to, so that one compiled network serves batches of any sizes."""

    systems: int
    atoms: int


class Inputs(NamedTuple):
    """What the network sees of a batch: tensors alone, so that it knows nothing of cells."""

    t: Float[Tensor, " systems"]
    positions: Float[Tensor, "atoms 3"]
    elements: Float[Tensor, "atoms classes"]
    conditions: Mapping[str, Float[Tensor, "systems *shape"]]
    """NaN where a system has no target."""
    system: Int[Tensor, " atoms"]
    target: Int[Tensor, "atoms neighbors"]
    """Neighbours; padding is the atom itself, beyond the cutoff."""
    offset: Float[Tensor, "atoms neighbors 3"]
    """Lattice vectors to add to positions of neighbours."""

    def ordered(self, order: Int[Tensor, " atoms"]) -> "Inputs":
        """The same with the atoms in another order; neighbours of an atom keep theirs."""
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        return self._replace(
            positions=self.positions[order],
            elements=self.elements[order],
            system=self.system[order],
            target=place[self.target[order]],
            offset=self.offset[order],
        )

    def padded(self, room: Room, *, cutoff: float) -> "Inputs":
        """The same with systems of no atoms, and atoms of the first system that have no neighbours.

        Errors: `ValueError` where there is no such room.
        """
        systems, atoms = room.systems - len(self.t), room.atoms - len(self.positions)
        if systems < 0 or atoms < 0:
            raise ValueError(f"{len(self.t)} systems of {len(self.positions)} atoms do not fit into {room}")
        slots = self.target.shape[1]
        own = torch.arange(len(self.positions), room.atoms, device=self.target.device)[:, None].expand(-1, slots)
        far = padding_offset(cutoff, self.offset).expand(atoms, slots, 3)
        return Inputs(
            t=pad(self.t, (0, systems), value=0.5),
            positions=pad(self.positions, (0, 0, 0, atoms)),
            elements=pad(self.elements, (0, 0, 0, atoms)),
            conditions={
                name: pad(values, (0, 0) * (values.ndim - 1) + (0, systems), value=torch.nan)
                for name, values in self.conditions.items()
            },
            system=pad(self.system, (0, atoms)),
            target=torch.cat([self.target, own]),
            offset=torch.cat([self.offset, far]),
        )


class ScoreNetwork(nn.Module):
    """Predicted noise on bare tensors: what is compiled."""

    def __init__(self, config: ScoreConfig) -> None:
        super().__init__()
        width = config.vocabulary.width
        self.features = NodeFeatures(config.properties, element_width=width, property_width=config.property_width)
        self.egnn = EGNN(config.egnn, features=self.features.width)
        self.elements = nn.Linear(config.egnn.hidden, width) if width else None

    def forward(
        self, inputs: Inputs, chunk: int | None = None
    ) -> tuple[Float[Tensor, "atoms 3"], Float[Tensor, "atoms classes"]]:
        """ε_X = X - X^(L,0) of the first channel (eq. 15), and logits of the classes from the node features."""
        t, positions, elements, conditions, system, target, offset = inputs
        features = self.features(t, elements, conditions, system)
        h, u = self.egnn(features, positions, target, offset, chunk=chunk)
        logits = elements if self.elements is None else self.elements(h).to(positions.dtype)
        return -u[:, 0], logits


class ScoreModel(nn.Module):
    """Noise predictor of a noisy sample; equivariant, local, periodic."""

    def __init__(self, config: ScoreConfig, diffusion: Diffusion | None = None) -> None:
        super().__init__()
        self.config, self.diffusion = config, diffusion or Diffusion()
        self.network: nn.Module = self._network()
        self._plan: tuple[Tensor, Tensor, NeighborPlan] | None = None

    def _network(self) -> nn.Module:
        return ScoreNetwork(self.config)

    @property
    def egnn(self) -> EGNN:
        """The layers of the network."""
        found = self.network.egnn
        assert isinstance(found, EGNN)
        return found

    def forward(
        self,
        sample: Sample,
        t: Float[Tensor, " systems"],
        *,
        plan: NeighborPlan | None = None,
        chunk: int | None = None,
        room: Room | None = None,
    ) -> Noise:
        """Predicted noise, without drift of the mean position of a system.

        `plan` is what is known of the cells and sizes beforehand; without one it is made, and kept while the sample's
        cell stays the same tensor. `chunk` bounds memory: that many atoms at a time. With a `room` the network sees
        shapes of that size, whatever the sample's.
        """
        positions, logits = self._seen(sample, t, plan, chunk, room)
        elements = sample.elements
        if self.config.vocabulary.width:
            elements = class_noise(logits, elements, scales(self.diffusion.elements, t, sample.system))
        return Noise(centred(positions, sample.system, n_systems=len(sample)), elements)

    def with_network(self, network: nn.Module) -> "ScoreModel":
        """The same model around another module of the same signature, one wrapped for several devices for instance."""
        other = copy(self)
        other._modules = {"network": network}
        return other

    def _seen(
        self, sample: Sample, t: Tensor, plan: NeighborPlan | None, chunk: int | None, room: Room | None
    ) -> tuple[Tensor, ...]:
        """What the network says of the sample and its neighbours, for each atom."""
        with torch.no_grad():
            neighbors = neighbor_matrix(
                sample.positions.detach(),
                sample.cell,
                sample.n_atoms,
                cutoff=self.config.egnn.cutoff,
                plan=plan or self._planned(sample),
            )
        conditions = {name: sample.conditions[name] for name in self.config.properties if name in sample.conditions}
        inputs = Inputs(
            t, sample.positions, sample.elements, conditions, sample.system, neighbors.target, neighbors.offset
        )
        if chunk is not None and room is None and len(sample.positions) >= SORTED_FROM:
            order = _nearby(sample, self.config.egnn.cutoff)
            return _put_back(self.network(inputs.ordered(order), chunk), order)
        if room is None:
            return self.network(inputs, chunk)
        found = self.network(inputs.padded(room, cutoff=self.config.egnn.cutoff), chunk)
        return tuple(values[: len(sample.positions)] for values in found)

    def _planned(self, sample: Sample) -> NeighborPlan:
        known = self._plan
        if known is None or known[0] is not sample.cell or known[1] is not sample.n_atoms:
            plan = neighbor_plan(sample.cell, sample.n_atoms, cutoff=self.config.egnn.cutoff)
            known = self._plan = (sample.cell, sample.n_atoms, plan)
        return known[2]


def _nearby(sample: Sample, cutoff: float) -> Int[Tensor, " atoms"]:
    """An order of the atoms in which those of a box about as wide as the cutoff come together, system by system."""
    n = max(int((float(torch.linalg.det(sample.cell).abs().max()) ** (1 / 3)) / cutoff), 1)
    place = torch.remainder(lattice.fractional(sample.positions.detach(), sample.cell[sample.system]), 1.0)
    box = (place * n).long().clamp(max=n - 1)
    return (((sample.system * n + box[:, 0]) * n + box[:, 1]) * n + box[:, 2]).argsort(stable=True)


def _put_back(found: tuple[Tensor, ...], order: Tensor) -> tuple[Tensor, ...]:
    """What the network says of atoms in that order, in their own order."""
    return tuple(torch.empty_like(values).index_copy(0, order, values) for values in found)
