"""Engines that run a cell at a time: what they return of it, and how the cells of a batch become `Runs`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64

from amden.simulate.engine import MDState
from amden.simulate.protocol import Protocol
from amden.simulate.runs import Runs, random_start
from amden.structure import Structures


class CellFailed(Exception):  # noqa: N818
    """A cell is no longer physical, or did not converge; the message is the reason to be recorded."""


@dataclass(frozen=True)
class Finished:
    """The last frame of a cell, and what was measured."""

    positions: Float64[np.ndarray, "atoms 3"]
    """Å."""
    cell: Float64[np.ndarray, "3 3"]
    """Å."""
    potential_energy: float
    """eV."""
    temperature: float
    """K, mean over the second half of the last stage."""


def run_one_by_one(
    run: Callable[[MDState], Finished],
    protocol: Protocol,
    seeds: Sequence[int],
    on_launch: Callable[[int, int], None],
    numbers: Sequence[int] | None = None,
) -> Runs:
    """A cell for each seed, from the random start that `run_protocol` would give it.

    `run` gets that start, raises `CellFailed` to set a cell aside, and keeps the order of the atoms. `on_launch` is
    told the mean number of steps done by the cells of the batch; `numbers` as in `run_protocol`.
    """
    done: dict[int, tuple[MDState, Finished]] = {}
    failures: dict[int, str] = {}
    for place, seed in enumerate(seeds):
        start = random_start(protocol, [seed], [numbers[place] if numbers else place])
        try:
            done[place] = start, run(start)
        except CellFailed as failure:
            failures[place] = str(failure)
        on_launch(protocol.n_steps * (place + 1) // len(seeds), len(failures))
    return Runs(_frames(protocol, list(done.values())), tuple(done), failures)


def _frames(protocol: Protocol, cells: Sequence[tuple[MDState, Finished]]) -> Structures:
    n_atoms = torch.tensor([len(found.positions) for _, found in cells], dtype=torch.int64)
    positions = np.concatenate([np.zeros((0, 3)), *(found.positions for _, found in cells)])
    species = np.concatenate([np.zeros(0, np.uint8), *(start.species for start, _ in cells)])
    frames = Structures(
        torch.from_numpy(positions.astype(np.float32)),
        torch.from_numpy(protocol.elements[species].astype(np.int64)),
        torch.from_numpy(np.array([found.cell for _, found in cells], np.float64).reshape(-1, 3, 3)),
        n_atoms,
    )
    energy = torch.tensor([found.potential_energy for _, found in cells], dtype=torch.float64)
    properties = {
        "potential_energy": energy / n_atoms,
        "density": frames.density,
        "temperature": torch.tensor([found.temperature for _, found in cells], dtype=torch.float64),
    }
    return replace(frames, properties=properties)
