"""A batch of runs of one protocol: random starts, stages in launches, the last frame of each cell.

Every cell is a function of the protocol and its own seed. Nothing here touches the disk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from amden.simulate.engine import FAILURES, MDState, Record, Segment, run, thermal_state
from amden.simulate.packing import random_packing
from amden.simulate.protocol import Protocol, Quench
from amden.simulate.relaxation import relax
from amden.simulate.snapshot import Keeper, Snapshot
from amden.structure import Structures

Device = Literal["cpu", "cuda"]

LAUNCH: Final[Mapping[Device, int]] = {"cpu": 500, "cuda": 5000}
"""Steps of the engine in one go, about a second. Fixed, because the mean temperature is summed launch by launch."""


@dataclass(frozen=True, eq=False)
class Runs:
    """What came out of a batch."""

    structures: Structures
    """Last frames of the cells that did not fail, with `potential_energy` (eV an atom), `density` (g/cm³) and
    `temperature` (K, mean over the second half of the last stage)."""
    kept: tuple[int, ...]
    """Place in the batch of each of them."""
    failures: Mapping[int, str]
    """Reason for each other place."""


def run_protocol(
    protocol: Protocol,
    seeds: Sequence[int],
    *,
    device: Device,
    on_launch: Callable[[int, int], None] = lambda steps, failed: None,
    keeper: Keeper | None = None,
) -> Runs:
    """One run of the protocol for each seed; `on_launch` is told the steps done so far and the cells lost.

    A `keeper` is offered the state after every launch, and asked where to go on.

    >>> from dataclasses import replace
    >>> from amden.simulate.protocol import Stage, find_protocol
    >>> short = replace(find_protocol("si-melt"), n_atoms=64, stages=(Stage(0.02, (2500.0, 2500.0)),))
    >>> run_protocol(short, [1, 2], device="cpu").structures
    Structures(2 systems, 128 atoms, elements Si)
    """
    kept = keeper.load() if keeper else None
    state = kept.state if kept else random_start(protocol, seeds)
    alive = _Alive.of(kept) if kept else _Alive.all(len(seeds))
    done = 0
    for launches, (number, first, end) in enumerate(_launches(protocol, LAUNCH[device]), start=1):
        if not len(alive.places):
            break
        done += end - first
        if kept and launches <= kept.launches:
            continue
        stage = protocol.stages[number]
        if isinstance(stage, Quench):
            temperature = protocol.temperature_after(number)
            state, alive = _quenched(protocol, stage, state, alive, device, temperature=temperature, occasion=launches)
        else:
            state, alive = _advanced(protocol, stage.segment(), state, alive, device, first=first, end=end)
        on_launch(done, len(alive.failures))
        if keeper:
            keeper.offer(Snapshot(launches, state, alive.measured, alive.failures))
    return Runs(_frames(protocol, state, alive), tuple(alive.places.tolist()), alive.failures)


def _launches(protocol: Protocol, launch: int) -> Iterator[tuple[int, int, int]]:
    """Number of its stage, first step and end of each launch; one begins in the middle of a stage, from where on means
    are taken. A quench is one launch without steps."""
    for number, stage in enumerate(protocol.stages):
        if isinstance(stage, Quench):
            yield number, 0, 0
        else:
            n_steps = stage.segment().n_steps
            marks = sorted({*range(0, n_steps, launch), n_steps // 2, n_steps})
            yield from ((number, first, end) for first, end in pairwise(marks))


def _advanced(
    protocol: Protocol, segment: Segment, state: MDState, alive: "_Alive", device: Device, *, first: int, end: int
) -> "tuple[MDState, _Alive]":
    """A launch of molecular dynamics."""
    alive = alive.forgetting() if first <= segment.n_steps // 2 else alive
    state, record = run(state, protocol.interaction, segment, device=device, first_step=first, n_steps=end - first)
    return _selected(state, ~record.failed), alive.after(record)


def _quenched(
    protocol: Protocol,
    stage: Quench,
    state: MDState,
    alive: "_Alive",
    device: Device,
    *,
    temperature: float,
    occasion: int,
) -> "tuple[MDState, _Alive]":
    """To the nearest minimum, then new velocities of `temperature`."""
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
    state = _selected(replace(start, step=state.step), found.converged)
    return state, alive.at_rest(found.energy / start.n_atoms, found.converged)


@dataclass(frozen=True, eq=False)
class _Alive:
    """The cells still running, and what was measured of them since the middle of the stage."""

    places: Int64[np.ndarray, " alive"]
    temperature: Float64[np.ndarray, " alive"]
    """Sum over samples."""
    n_samples: Int64[np.ndarray, " alive"]
    potential_energy: Float64[np.ndarray, " alive"]
    failures: Mapping[int, str]

    @staticmethod
    def all(n: int) -> "_Alive":
        return _Alive(np.arange(n), np.zeros(n), np.zeros(n, np.int64), np.zeros(n), {})

    @staticmethod
    def of(kept: Snapshot) -> "_Alive":
        return _Alive(**kept.measured, failures=kept.failures)

    @property
    def measured(self) -> dict[str, np.ndarray]:
        return {name: values for name, values in vars(self).items() if name != "failures"}

    def forgetting(self) -> "_Alive":
        return replace(self, temperature=np.zeros_like(self.temperature), n_samples=np.zeros_like(self.n_samples))

    def at_rest(self, potential_energy: Float64[np.ndarray, " alive"], ok: Bool[np.ndarray, " alive"]) -> "_Alive":
        """After a relaxation."""
        lost = {int(i): "its relaxation did not converge" for i in self.places[~ok]}
        return _Alive(
            places=self.places[ok],
            temperature=np.zeros(int(ok.sum())),
            n_samples=np.ones(int(ok.sum()), np.int64),
            potential_energy=potential_energy[ok],
            failures={**self.failures, **lost},
        )

    def after(self, record: Record) -> "_Alive":
        ok = ~record.failed
        lost = {int(i): FAILURES[int(f)] for i, f in zip(self.places, record.failure, strict=True) if f}
        with np.errstate(invalid="ignore"):
            temperature = self.temperature + record.mean.temperature * record.n_samples
        return _Alive(
            places=self.places[ok],
            temperature=temperature[ok],
            n_samples=(self.n_samples + record.n_samples)[ok],
            potential_energy=record.final.potential_energy[ok],
            failures={**self.failures, **lost},
        )


def random_start(protocol: Protocol, seeds: Sequence[int]) -> MDState:
    """Random packings in cubes with velocities of the first stage's temperature."""
    sizes = protocol.sizes(seeds)
    packings = [
        random_packing(n, volume=protocol.volume_of(n), min_distance=protocol.min_distance, seed=seed)
        for n, seed in zip(sizes.tolist(), seeds, strict=True)
    ]
    return thermal_state(
        protocol.interaction,
        np.concatenate([positions for positions, _ in packings]),
        cell=np.stack([cell for _, cell in packings]),
        n_atoms=sizes,
        seed=np.asarray(seeds, np.int64),
        temperature=protocol.temperature_after(-1),
        species=np.concatenate([protocol.species_of(n) for n in sizes.tolist()]),
    )


def _selected(state: MDState, chosen: Bool[np.ndarray, " systems"]) -> MDState:
    """The chosen systems of a state; a failed one would be refused by the next launch."""
    if chosen.all() or not chosen.any():
        return state
    atoms = np.repeat(chosen, state.n_atoms)
    return MDState(
        positions=state.positions[atoms],
        velocities=state.velocities[atoms],
        cell=state.cell[chosen],
        species=state.species[atoms],
        n_atoms=state.n_atoms[chosen],
        seed=state.seed[chosen],
        step=state.step[chosen],
    )


def _frames(protocol: Protocol, state: MDState, alive: _Alive) -> Structures:
    n = len(alive.places)
    n_atoms = state.n_atoms[:n].astype(np.int64)
    atoms = int(n_atoms.sum())
    frames = Structures(
        torch.from_numpy(state.positions[:atoms].astype(np.float32)),
        torch.from_numpy(protocol.elements[state.species[:atoms]].astype(np.int64)),
        torch.from_numpy(state.cell[:n]),
        torch.from_numpy(n_atoms),
    )
    properties = {
        "potential_energy": torch.from_numpy(alive.potential_energy),
        "density": frames.density,
        "temperature": torch.from_numpy(alive.temperature / alive.n_samples),
    }
    return replace(frames, properties=properties)
