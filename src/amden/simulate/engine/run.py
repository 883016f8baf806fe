"""The face of the engine: checks, units and the way to the device and back."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64, UInt8

from amden.elements import MASSES, atomic_number
from amden.random import Streams
from amden.simulate.engine.coupling import N_OBSERVABLES, N_SAMPLES, RECORD
from amden.simulate.engine.state import MDState, Observables, Record, Segment
from amden.simulate.engine.systems import Plans, Systems
from amden.simulate.potentials.pair_sums import image_cutoff
from amden.simulate.potentials.potential import Potential
from amden.units import AMU_A2_PER_PS2, EV_PER_A3_IN_GPA, KB

_VELOCITY_DRAW = 1 << 62
"""The first draw of `Streams` that thermal velocities are made of."""


def run(
    state: MDState,
    potential: Potential,
    segment: Segment | Sequence[Segment],
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    first_step: int | Int[np.ndarray, " systems"] = 0,
    n_steps: int | None = None,
) -> tuple[MDState, Record]:
    """Runs `n_steps` of a segment from its `first_step` on; all the rest of it when left out.

    Systems may have a segment each, and a first step each: one whose steps are done stops, and measures the state it is
    left in.

    A segment run in slices gives the same state, bit by bit, as in one call. One call is one launch on CUDA, so slices
    keep launches short and let progress be shown. Each system depends on its own seed and not on its batch.

    >>> import numpy as np
    >>> from amden.simulate.potentials import StillingerWeber
    >>> silicon, cell = StillingerWeber(), 8.0 * np.eye(3)[None]
    >>> dimer = np.array([[0.0, 0.0, 0.0], [2.4, 0.0, 0.0]])
    >>> one, seed = np.array([2]), np.array([7])
    >>> state = thermal_state(silicon, dimer, cell=cell, n_atoms=one, seed=seed, temperature=300.0)
    >>> state, record = run(state, silicon, Segment(n_steps=20))
    >>> int(state.step[0]), bool(record.failed[0]), bool(record.deviation.total_energy[0] < 1e-4)
    (20, False, True)
    """
    segments = [segment] * state.n_systems if isinstance(segment, Segment) else list(segment)
    steps = _steps(state, segments, first_step, n_steps)
    _check(state, potential)
    systems = _prepare(state, potential, segments)
    plans = Plans(steps, np.stack([segment_plan(own) for own in segments]))
    if device == "cpu":
        from amden.simulate.engine.cpu import advance
    elif device == "cuda":
        from amden.simulate.engine.cuda import advance
    else:
        raise ValueError(f"`device` must be 'cpu' or 'cuda', got {device!r}")
    failure = advance(systems, potential, plans)
    new = replace(
        state,
        positions=systems.positions(),
        velocities=systems.velocities,
        cell=systems.cell,
        step=state.step + np.where(failure == 0, steps[:, 0], 0),
    )
    return new, _record(systems.record, failure)


def _steps(
    state: MDState, segments: Sequence[Segment], first_step: int | Int[np.ndarray, " systems"], n_steps: int | None
) -> Int64[np.ndarray, "systems 4"]:
    """Of each system: those to do, interval of thermostat and barostat, the first, length of the segment (`Plans`)."""
    if len(segments) != state.n_systems:
        raise ValueError(f"`segment` must be one, or one for each of {state.n_systems} systems, got {len(segments)}")
    lengths, first = np.array([own.n_steps for own in segments]), np.broadcast_to(first_step, len(segments))
    left = lengths - first
    most = max(int(left.max()), 0)
    n_steps = most if n_steps is None else n_steps
    if first.min() < 0 or not 0 <= n_steps <= most:
        raise ValueError(
            f"`first_step` and `n_steps` must lie within the {lengths.max()} steps of the segment, "
            f"got {first.min()} and {n_steps}"
        )
    interval = [own.interval for own in segments]
    return np.stack([np.clip(left, 0, n_steps), interval, first, lengths], axis=1).astype(np.int64)


def thermal_state(
    potential: Potential,
    positions: Float64[np.ndarray, "atoms 3"],
    *,
    cell: Float64[np.ndarray, "systems 3 3"],
    n_atoms: Int[np.ndarray, " systems"],
    seed: Int[np.ndarray, " systems"],
    temperature: float,
    species: UInt8[np.ndarray, " atoms"] | None = None,
    occasion: int = 0,
) -> MDState:
    """A state at step 0 with Maxwell-Boltzmann velocities of `temperature` (K) and no total momentum.

    Nothing is rescaled: the kinetic energy of a system fluctuates as that of 3n - 3 degrees of freedom does. On another
    `occasion` the same seeds give other velocities.
    """
    if not temperature >= 0.0:
        raise ValueError(f"`temperature` must not be negative, got {temperature}")
    species = np.zeros(len(positions), np.uint8) if species is None else species
    seed = np.asarray(seed, np.int64)
    state = MDState(
        positions=np.array(positions, np.float64),
        velocities=np.zeros((len(positions), 3), np.float32),
        cell=np.array(cell, np.float64),
        species=species,
        n_atoms=n_atoms,
        seed=seed,
        step=np.zeros(len(seed), np.int64),
    )
    _check(state, potential)
    masses = _masses(potential)[species][:, None]
    streams = Streams.of(torch.from_numpy(seed), torch.from_numpy(np.asarray(n_atoms, np.int64)))
    normal = streams.normal((3,), draw=_VELOCITY_DRAW + occasion).numpy().astype(np.float64)
    velocities = normal * np.sqrt(KB * temperature / (AMU_A2_PER_PS2 * masses))
    momentum = np.add.reduceat(masses * velocities, state.offsets)
    drift = momentum / np.add.reduceat(masses, state.offsets)
    velocities -= np.repeat(drift, n_atoms, axis=0)
    return replace(state, velocities=velocities.astype(np.float32))


def _masses(potential: Potential) -> Float64[np.ndarray, " species"]:
    return MASSES[[atomic_number(symbol) for symbol in potential.symbols]]


def _check(state: MDState, potential: Potential) -> None:
    for name in ("positions", "velocities", "cell"):
        if not np.isfinite(getattr(state, name)).all():
            raise ValueError(f"`{name}` must be finite, got nan or inf")
    if len(state.species) and state.species.max() >= len(potential.symbols):
        raise ValueError(f"`species` must be below {len(potential.symbols)}, got {state.species.max()}")
    volumes = np.abs(np.linalg.det(state.cell))
    if volumes.min() < 1e-6:
        raise ValueError(f"`cell` must enclose a volume, got {volumes.min()} Å³ in system {volumes.argmin()}")
    heights = (1.0 / np.linalg.norm(np.linalg.inv(state.cell), axis=1)).min(axis=1)
    least = 2.0 * image_cutoff(potential)
    if heights.min() < least:
        raise ValueError(
            f"`cell` must be at least twice the cutoff high ({least:.3f} Å), "
            f"got {heights.min():.3f} Å in system {heights.argmin()}"
        )


def _prepare(state: MDState, potential: Potential, segments: Sequence[Segment]) -> Systems:
    timestep = np.repeat([own.timestep for own in segments], state.n_atoms)
    kicks = 0.5 * timestep / (_masses(potential) * AMU_A2_PER_PS2)[state.species]
    return Systems.of(state, kicks.astype(np.float32), record_size=RECORD)


def segment_plan(segment: Segment) -> Float64[np.ndarray, " numbers"]:
    """The segment in the numbers and the order of `coupling`."""
    start, end = segment.temperature or (0.0, 0.0)
    return np.array(
        [
            start,
            end,
            math.nan if segment.pressure is None else segment.pressure / EV_PER_A3_IN_GPA,
            segment.timestep,
            segment.tau_T,
            segment.tau_P,
            segment.compressibility * EV_PER_A3_IN_GPA,
            math.inf if segment.max_displacement is None else segment.max_displacement,
        ]
    )


def _record(record: Float64[np.ndarray, "systems numbers"], failure: np.ndarray) -> Record:
    sums, squares, last, first = (record[:, k * N_OBSERVABLES : (k + 1) * N_OBSERVABLES] for k in range(4))
    count = record[:, N_SAMPLES, None]
    with np.errstate(invalid="ignore"):
        shift = sums / count
        deviation = np.sqrt(np.maximum(squares / count - shift**2, 0.0))
    mean, deviation, last = (np.where(count > 0, x, np.nan) for x in (first + shift, deviation, last))
    return Record(
        mean=Observables(*mean.T),
        deviation=Observables(*deviation.T),
        final=Observables(*last.T),
        n_samples=record[:, N_SAMPLES].astype(np.int64),
        failure=failure,
    )
