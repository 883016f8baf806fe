"""What stages that adapt to a cell do around the launches of the engine (`stages.Evaporation`, `stages.Adapted`).

Stages of the kind `Adapted` that follow one another are a leg, in which each cell goes from stage to stage on its own.

All they know between two launches is in the notes of the `Batch`, so that a snapshot has it: of atoms `bulk_positions`,
`bulk_velocities` and `moved`, of cells `bulk_cell`, `bulk_volume`, `samples`, `evaporation_temperature`, `stage` and
`at` (number of the stage that a cell is in, and its steps that are done) and `displacement`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from amden.simulate.batch import Batch, selected
from amden.simulate.engine import MDState, Record, Segment
from amden.simulate.engine.systems import transformed
from amden.simulate.evaporation import EXPANDED, evaporation_onset
from amden.simulate.stages import Adapted, Dynamics, Evaporation, Quench, typical_segment


def opened(stage: Evaporation, batch: Batch) -> Batch:
    """Cells with room for a gas; what they were is noted."""
    state, stretch = batch.state, np.array([[stage.stretch], [1.0], [1.0]])
    batch = batch.noting_atoms(bulk_positions=state.positions, bulk_velocities=state.velocities)
    batch = batch.noting(
        bulk_cell=state.cell,
        bulk_volume=np.abs(np.linalg.det(state.cell)),
        samples=np.zeros((len(batch), 0, 2)),
    )
    return replace(batch, state=replace(state, cell=state.cell * stretch))


def sampled(batch: Batch, record: Record) -> Batch:
    """With the mean temperature and pressure of a launch noted."""
    sample = np.stack([record.mean.temperature, record.mean.pressure], axis=1)[:, None]
    return batch.noting(samples=np.concatenate([batch.of_cells["samples"], sample], axis=1))


def closed(stage: Evaporation, batch: Batch) -> Batch:
    """The cells as they were, and the temperatures at which they evaporate; those without are lost."""
    samples = batch.of_cells["samples"]
    found = np.array([evaporation_onset(T, p).temperature for T, p in np.moveaxis(samples, 2, 1)])
    state = replace(
        batch.state,
        positions=batch.of_atoms["bulk_positions"],
        velocities=batch.of_atoms["bulk_velocities"],
        cell=batch.of_cells["bulk_cell"],
    )
    batch = replace(batch, state=state).noting(evaporation_temperature=found)
    batch = batch.dropping("bulk_positions", "bulk_velocities", "bulk_cell", "samples")
    cold, hot = stage.temperature
    reason = f"no clear onset of evaporation between {cold:g} and {hot:g} K"
    return batch.without({int(i): reason for i in np.flatnonzero(np.isnan(found))})


@dataclass(frozen=True)
class Leg:
    """Stages that follow one another, each as long as a cell of its own needs it."""

    stages: Sequence[Adapted]
    first: int
    """Number of the first of them in the protocol."""
    watched_later: bool = False
    """Whether the ways of atoms count in stages after them too."""

    @staticmethod
    def of(stages: Sequence[Dynamics | Quench], number: int) -> "Leg":
        """All of the kind from `number` on."""
        own: list[Adapted] = []
        for stage in stages[number:]:
            if not isinstance(stage, Adapted):
                break
            own.append(stage)
        later = stages[number + len(own) :]
        return Leg(own, number, any(isinstance(stage, Adapted) and stage.least_displacement for stage in later))

    @property
    def stop(self) -> int:
        """Number of the stage after them."""
        return self.first + len(self.stages)

    @property
    def last_watched(self) -> int:
        """Number of the last one up to whose end the ways of atoms count; -1 where there is none."""
        if self.watched_later:
            return self.stop - 1
        return max((self.first + i for i, stage in enumerate(self.stages) if stage.least_displacement), default=-1)

    def entered(self, batch: Batch) -> Batch:
        """With all cells at its beginning, if they are not on the way."""
        if "stage" in batch.of_cells:
            return batch
        n = len(batch)
        known = batch.of_cells.get("displacement", np.full(n, np.nan))
        return batch.noting(stage=np.full(n, self.first), at=np.zeros(n, np.int64), displacement=known)

    def left(self, batch: Batch) -> Batch:
        """Without what counts on the way only."""
        return batch.dropping("stage", "at", *([] if self.watched_later else ["moved"]))

    def busy(self, batch: Batch) -> Bool[np.ndarray, " alive"]:
        """The cells that are not at its end."""
        return batch.of_cells["stage"] < self.stop

    def segments(self, batch: Batch) -> list[Segment]:
        """Of the stage that each cell is in; of the last one where it is at the end."""
        stages = np.minimum(batch.of_cells["stage"] - self.first, len(self.stages) - 1).tolist()
        kelvin = batch.of_cells["evaporation_temperature"].tolist()
        return [self.stages[i].segment(Te) for i, Te in zip(stages, kelvin, strict=True)]

    def watched(self, batch: Batch) -> Bool[np.ndarray, " alive"]:
        """The cells in which the ways of atoms count."""
        return batch.of_cells["stage"] <= self.last_watched

    def advanced(self, batch: Batch, n_steps: int, symbols: Sequence[str]) -> Batch:
        """After a launch of so many steps, in which no cell went beyond its stage: those that are done with it are in
        the next one, without those that have evaporated or not moved far enough."""
        lengths = np.array([own.n_steps for own in self.segments(batch)])
        at = np.where(self.busy(batch), np.minimum(batch.of_cells["at"] + n_steps, lengths), 0)
        batch = batch.noting(at=at, length=lengths)
        batch = without_gas(batch)
        for i, stage in enumerate(self.stages):
            if stage.least_displacement and len(batch):
                batch = _displaced(stage, batch, batch.of_cells["stage"] == self.first + i, symbols)
        known = batch.of_cells
        done = self.busy(batch) & (known["at"] >= known["length"])
        stages, at = known["stage"] + done, np.where(done, 0, known["at"])
        return batch.noting(stage=stages, at=at).dropping("length")

    def share(self, batch: Batch) -> float:
        """How far the cells are, in the mean: of the steps that are told of these stages beforehand."""
        told = np.array([typical_segment(stage).n_steps for stage in self.stages])
        before = np.concatenate([[0], np.cumsum(told)])
        place = batch.of_cells["stage"] - self.first
        here = np.append(told, 1)[place]
        early = np.array([stage.until_displaced for stage in self.stages] + [False])[place]
        lengths = np.where(early, here, [own.n_steps for own in self.segments(batch)])
        done = before[place] + here * np.minimum(batch.of_cells["at"] / lengths, 1.0)
        return float(done.mean() / before[-1])


def followed(batch: Batch, after: MDState, ran: Bool[np.ndarray, " alive"]) -> Batch:
    """With the way noted that atoms of the cells that `ran` went in a launch, so short that none crosses half a cell.

    It is that within the cell: what comes of its own expansion is left out. An atom that is faster counts as slower.
    """
    step = _fractions(after) - _fractions(selected(batch.state, ran))
    step -= np.rint(step)
    way = transformed(step, after.cell, after.n_atoms).astype(np.float32)
    moved = batch.of_atoms.get("moved", np.zeros(batch.state.positions.shape, np.float32)).copy()
    moved[np.repeat(ran, batch.state.n_atoms)] += way
    return batch.noting_atoms(moved=moved)


def _fractions(state: MDState) -> Float64[np.ndarray, "atoms 3"]:
    return transformed(state.positions, np.linalg.inv(state.cell), state.n_atoms)


def displacements(batch: Batch, n_species: int) -> Float64[np.ndarray, "alive species"]:
    """Root mean square way of the atoms of each species in each cell, Å; infinite where there are none."""
    n_atoms = batch.state.n_atoms[: len(batch)]
    group = np.repeat(np.arange(len(batch)) * n_species, n_atoms) + batch.state.species[: n_atoms.sum()]
    squares = (batch.of_atoms["moved"].astype(np.float64) ** 2).sum(axis=1)
    counts = np.bincount(group, minlength=len(batch) * n_species)
    sums = np.bincount(group, weights=squares, minlength=len(batch) * n_species)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, np.sqrt(sums / counts), np.inf).reshape(len(batch), n_species)


def without_gas(batch: Batch) -> Batch:
    """Without cells that have expanded too far to be a melt."""
    growth = np.abs(np.linalg.det(batch.state.cell[: len(batch)])) / batch.of_cells["bulk_volume"]
    return batch.without(
        {
            int(i): f"evaporated: {growth[i]:.2f} times the volume of the melt before"
            for i in np.flatnonzero(growth > EXPANDED)
        }
    )


def _displaced(stage: Adapted, batch: Batch, here: Bool[np.ndarray, " alive"], symbols: Sequence[str]) -> Batch:
    """With those cells at the end that are in this stage and may leave it early; of those at its end it is noted how
    far the slowest element went, and those in which it is not far enough are left out."""
    way = displacements(batch, len(symbols))
    slowest, least = way.argmin(axis=1), way.min(axis=1)
    known = batch.of_cells
    early = here & (least >= stage.least_displacement) & stage.until_displaced
    at = np.where(early, known["length"], known["at"])
    over = here & (at >= known["length"])
    short = {
        int(
            i
        ): f"{symbols[slowest[i]]} has moved {least[i]:.1f} Å in the melt, less than {stage.least_displacement:g} Å"
        for i in np.flatnonzero(over & (least < stage.least_displacement))
    }
    return batch.noting(at=at, displacement=np.where(over, least, known["displacement"])).without(short)
