"""What stages that adapt to a cell do around the launches of the engine (`stages.Evaporation`, `stages.Adapted`).

All they know between two launches is in the notes of the `Batch`, so that a snapshot has it: of atoms `bulk_positions`,
`bulk_velocities` and `moved`, of cells `bulk_cell`, `bulk_volume`, `samples`, `evaporation_temperature`, `over` and
`displacement`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64

from amden.simulate.batch import Batch, selected
from amden.simulate.engine import MDState, Record, Segment
from amden.simulate.engine.systems import transformed
from amden.simulate.evaporation import EXPANDED, evaporation_onset
from amden.simulate.stages import Adapted, Evaporation


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


def own_segments(stage: Adapted, batch: Batch) -> list[Segment]:
    """Of each cell."""
    return [stage.segment(Te) for Te in batch.of_cells["evaporation_temperature"].tolist()]


def busy(batch: Batch, segments: Sequence[Segment], first: int) -> Bool[np.ndarray, " alive"]:
    """The cells that have more than the `first` steps to do and are not over."""
    return (np.array([own.n_steps for own in segments]) > first) & ~_over(batch)


def _over(batch: Batch) -> Bool[np.ndarray, " alive"]:
    return batch.of_cells.get("over", np.zeros(len(batch), bool))


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


def ended_early(stage: Adapted, batch: Batch, n_species: int) -> Batch:
    """With those cells over whose atoms have all moved far enough."""
    far = displacements(batch, n_species).min(axis=1) >= stage.least_displacement
    return batch.noting(over=_over(batch) | far)


def displaced(stage: Adapted, batch: Batch, symbols: Sequence[str]) -> Batch:
    """Without cells in which the atoms of some element have not moved far enough; how far the slowest went is noted."""
    way = displacements(batch, len(symbols))
    slowest, least = way.argmin(axis=1), way.min(axis=1)
    short = {
        int(
            i
        ): f"{symbols[slowest[i]]} has moved {least[i]:.1f} Å in the melt, less than {stage.least_displacement:g} Å"
        for i in np.flatnonzero(least < stage.least_displacement)
    }
    return batch.noting(displacement=least).without(short)
