"""A batch of runs of one protocol: random starts, stages in launches, the last frame of each cell.

Every cell is a function of the protocol and its own seed. Nothing here touches the disk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Final, Literal

import numpy as np
import torch

from amden.simulate import adaptation
from amden.simulate.batch import Batch, selected
from amden.simulate.engine import MDState, run, thermal_state
from amden.simulate.packing import ion_distances, random_ion_packing, random_packing
from amden.simulate.potentials import Potential
from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.protocol import Protocol
from amden.simulate.relaxation import relax
from amden.simulate.snapshot import Keeper, Snapshot
from amden.simulate.stages import Adapted, Evaporation, Quench, SoftStart, Stage, typical_segment
from amden.structure import Structures

Device = Literal["cpu", "cuda"]

LAUNCH: Final[Mapping[Device, int]] = {"cpu": 500, "cuda": 5000}
"""Steps of the engine in one go, about a second. Fixed, because the mean temperature is summed launch by launch."""
FAR: Final = 1000
"""At most so many of a long-ranged potential, whose steps cost several times as much."""
SAMPLED: Final = 500
"""At most so many while the pressure is sampled."""
WATCHED: Final = 1000
"""At most so many while the atoms' ways are followed: 2 ps, in which few of them go 9 Å, half of a cell."""

_ALMOST: Final = 0.99
"""Of a stage, told while there are cells that are not over when most are."""


@dataclass(frozen=True, eq=False)
class Runs:
    """What came out of a batch."""

    structures: Structures
    """Last frames of the cells that did not fail, with `potential_energy` (eV an atom), `density` (g/cm³) and
    `temperature` (K, mean over the second half of the last stage). Of a protocol that adapts also with
    `evaporation_temperature` and `T_high` (K, the highest of its stages) and `displacement` (Å, how far the atoms of
    the slowest element went in the melt, root mean square)."""
    kept: tuple[int, ...]
    """Place in the batch of each of them."""
    failures: Mapping[int, str]
    """Reason for each other place."""


def run_protocol(
    protocol: Protocol,
    seeds: Sequence[int],
    *,
    device: Device,
    numbers: Sequence[int] | None = None,
    on_launch: Callable[[int, int], None] = lambda steps, failed: None,
    keeper: Keeper | None = None,
) -> Runs:
    """One run of the protocol for each seed; `on_launch` is told the steps done so far and the cells lost.

    `numbers` are those of the cells in a campaign, which say their composition where there are many; 0, 1, … when left
    out. A `keeper` is offered the state after every launch, before it is told, and asked where to go on; an interrupt
    (Ctrl-C) makes it keep the newest. Where cells differ in their steps, those told are `Protocol.n_steps` at the end.

    >>> from dataclasses import replace
    >>> from amden.simulate.catalogue import find_protocol
    >>> from amden.simulate.stages import Stage
    >>> short = replace(find_protocol("si-melt"), n_atoms=64, stages=(Stage(0.02, (2500.0, 2500.0)),))
    >>> run_protocol(short, [1, 2], device="cpu").structures
    Structures(2 systems, 128 atoms, elements Si)
    """
    kept = keeper.load() if keeper else None
    batch = Batch.of(kept) if kept else Batch.begun(random_start(protocol, seeds, numbers))
    launches, at = (kept.launches, _At(kept.stage, kept.step, kept.told)) if kept else (0, _At(0, 0, 0))
    newest = None
    try:
        while at.stage < len(protocol.stages) and len(batch):
            launches, told = launches + 1, at.told
            batch, at = _launched(protocol, at, batch, device, occasion=launches)
            at = replace(at, told=max(told, at.told))  # cells that are lost may have been ahead of the others
            newest = Snapshot(launches, at.stage, at.step, at.told, batch.state, batch.measured, batch.failures)
            if keeper:
                keeper.offer(newest)
            on_launch(at.told, len(batch.failures))
    except KeyboardInterrupt:
        if keeper and newest:
            keeper.keep(newest)
        raise
    return Runs(_frames(protocol, batch), tuple(batch.places.tolist()), batch.failures)


def launch_steps(device: Device, potential: Potential) -> int:
    """Steps of the engine in one go, at most.

    >>> from amden.simulate.potentials import POTENTIALS
    >>> [launch_steps("cuda", POTENTIALS[name]) for name in ("tersoff-sio", "bmp-shrm")]
    [5000, 1000]
    """
    return min(LAUNCH[device], FAR) if isinstance(potential, LongRanged) else LAUNCH[device]


@dataclass(frozen=True)
class _At:
    """How far a batch is."""

    stage: int
    """Number of the stage to go on with, or of the first of a leg."""
    step: int
    """Steps of it that are done, where they are the same for all cells."""
    told: int
    """Steps done in all stages, as they are told."""


def _steps_before(protocol: Protocol, number: int) -> int:
    """Steps that are told of the stages before this one."""
    dynamics = [stage for stage in protocol.stages[:number] if not isinstance(stage, Quench)]
    return sum(typical_segment(stage).n_steps for stage in dynamics)


def _launched(protocol: Protocol, at: _At, batch: Batch, device: Device, *, occasion: int) -> tuple[Batch, _At]:
    """After a launch, or a relaxation: the batch, and where to go on."""
    stage, before = protocol.stages[at.stage], _steps_before(protocol, at.stage)
    after = _At(at.stage + 1, 0, _steps_before(protocol, at.stage + 1))
    if isinstance(stage, Quench):
        kelvin = protocol.temperature_after(at.stage)
        return _quenched(protocol, stage, batch, device, temperature=kelvin, occasion=occasion), after
    if isinstance(stage, Adapted):
        leg = adaptation.Leg.of(protocol.stages, at.stage)
        batch, share = _launched_leg(protocol, leg, batch, device)
        end = _steps_before(protocol, leg.stop)
        if share == 1.0:
            return batch, _At(leg.stop, 0, end)
        return batch, _At(at.stage, 0, before + round(share * (end - before)))
    batch, end = _launched_stage(protocol, stage, batch, device, first=at.step)
    return batch, after if end == stage.segment().n_steps else _At(at.stage, end, before + end)


def _launched_stage(
    protocol: Protocol, stage: Stage | SoftStart | Evaporation, batch: Batch, device: Device, *, first: int
) -> tuple[Batch, int]:
    """A launch from the step `first` of a stage on that is as long for all cells; how far it came."""
    segment = stage.segment()
    if isinstance(stage, Evaporation) and first == 0:
        batch = adaptation.opened(stage, batch)
    end = _next_mark(stage, segment.n_steps, first, launch_steps(device, protocol.interaction))
    batch = batch.forgetting() if first <= segment.n_steps // 2 else batch
    state, record = run(
        batch.state, protocol.interaction, segment, device=device, first_step=first, n_steps=end - first
    )
    if isinstance(stage, Evaporation):
        batch = adaptation.sampled(batch, record)
    batch = batch.after(state, record, ran=np.ones(len(batch), bool))
    if isinstance(stage, Evaporation) and end == segment.n_steps and len(batch):
        batch = adaptation.closed(stage, batch)
    return batch, end


def _next_mark(stage: Stage | SoftStart | Evaporation, n_steps: int, first: int, launch: int) -> int:
    """Where the launch that begins with step `first` ends: one begins in the middle of a stage, from where on means
    are taken."""
    launch = min(launch, SAMPLED) if isinstance(stage, Evaporation) else launch
    end = min(first + launch - first % launch, n_steps)
    middle = n_steps // 2
    return middle if first < middle < end else end


def _launched_leg(protocol: Protocol, leg: adaptation.Leg, batch: Batch, device: Device) -> tuple[Batch, float]:
    """A launch of all cells of a leg that are on the way, each in its own stage; how far they came, as a share."""
    batch = leg.entered(batch)
    busy, watched = leg.busy(batch), leg.watched(batch)
    segments, first = list(compress(leg.segments(batch), busy)), batch.of_cells["at"][busy]
    launch = launch_steps(device, protocol.interaction)
    launch = min(launch, WATCHED) if leg.last_watched >= 0 else launch
    longest = max(own.n_steps - done for own, done in zip(segments, first.tolist(), strict=True))
    state, record = run(
        selected(batch.state, busy),
        protocol.interaction,
        segments,
        device=device,
        first_step=first,
        n_steps=min(launch, longest),
    )
    if watched.any():
        batch = adaptation.followed(batch, selected(state, watched[busy]), watched)
    batch = batch.forgetting().after(state, record, ran=busy)
    batch = leg.advanced(batch, launch, protocol.interaction.symbols) if len(batch) else batch
    if len(batch) and leg.busy(batch).any():
        return batch, min(leg.share(batch), _ALMOST)
    return leg.left(batch), 1.0


def _quenched(
    protocol: Protocol, stage: Quench, batch: Batch, device: Device, *, temperature: float, occasion: int
) -> Batch:
    """To the nearest minimum, then new velocities of `temperature`."""
    state = batch.state
    found = relax(
        protocol.interaction,
        state.positions,
        state.cell,
        state.n_atoms,
        species=state.species.astype(np.int64),
        cell=stage.cell,
        force_tolerance=stage.force_tolerance,
        max_steps=stage.max_steps,
        device=device,
    )
    start = thermal_state(
        protocol.interaction,
        found.positions,
        cell=found.cell,
        n_atoms=state.n_atoms,
        seed=state.seed,
        temperature=temperature,
        species=state.species,
        occasion=occasion,
    )
    batch = replace(batch, state=replace(start, step=state.step)).noting(
        temperature=np.zeros(len(batch)),
        n_samples=np.ones(len(batch), np.int64),
        potential_energy=found.energy / start.n_atoms,
    )
    return batch.without({int(i): "its relaxation did not converge" for i in np.flatnonzero(~found.converged)})


def random_start(protocol: Protocol, seeds: Sequence[int], numbers: Sequence[int] | None = None) -> MDState:
    """Random packings in cubes with velocities of the first stage's temperature; `numbers` as in `run_protocol`."""
    numbers = range(len(seeds)) if numbers is None else numbers
    species = [protocol.species(seed, number) for seed, number in zip(seeds, numbers, strict=True)]
    packings = [_packing(protocol, own, seed) for own, seed in zip(species, seeds, strict=True)]
    return thermal_state(
        protocol.interaction,
        np.concatenate([positions for positions, _ in packings]),
        cell=np.stack([cell for _, cell in packings]),
        n_atoms=np.array([len(own) for own in species], np.int64),
        seed=np.asarray(seeds, np.int64),
        temperature=protocol.temperature_after(-1),
        species=np.concatenate(species),
    )


def _packing(protocol: Protocol, species: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    volume = protocol.volume_of(species)
    if protocol.min_distance is not None:
        return random_packing(len(species), volume=volume, min_distance=protocol.min_distance, seed=seed)
    distances = ion_distances(protocol.interaction.symbols)
    return random_ion_packing(species.astype(np.int64), volume=volume, min_distances=distances, seed=seed)


def _frames(protocol: Protocol, batch: Batch) -> Structures:
    n, state, known = len(batch), batch.state, batch.of_cells
    n_atoms = state.n_atoms[:n].astype(np.int64)
    atoms = int(n_atoms.sum())
    frames = Structures(
        torch.from_numpy(state.positions[:atoms].astype(np.float32)),
        torch.from_numpy(protocol.elements[state.species[:atoms]].astype(np.int64)),
        torch.from_numpy(state.cell[:n]),
        torch.from_numpy(n_atoms),
    )
    properties = {
        "potential_energy": torch.from_numpy(known["potential_energy"]),
        "density": frames.density,
        "temperature": torch.from_numpy(known["temperature"] / known["n_samples"]),
    }
    if protocol.adapts:
        found = known.get("evaporation_temperature", np.zeros(0))
        properties["evaporation_temperature"] = torch.from_numpy(found)
        highest = [protocol.highest_temperature(Te) for Te in found.tolist()]
        properties["T_high"] = torch.tensor(highest, dtype=torch.float64)
        if any(isinstance(stage, Adapted) and stage.least_displacement for stage in protocol.stages):
            properties["displacement"] = torch.from_numpy(known.get("displacement", np.zeros(0)))
    return replace(frames, properties=properties)
