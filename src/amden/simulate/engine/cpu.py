"""The engine on the CPU: one system a task, systems in parallel on threads, the largest first."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from jaxtyping import Int64

from amden.compiler import compiled, kept
from amden.simulate.engine.coupling import N_CONTROLS, N_SUMS
from amden.simulate.engine.far import Far, Tally, tables_of
from amden.simulate.engine.far_lists import MOST_ATOMS
from amden.simulate.engine.kernel import Machine, Workspace, trajectory
from amden.simulate.engine.systems import Plans, Systems
from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.potentials.potential import Potential

_MOST_LISTED, _MOST_NEAR = 160, 80
"""Room for neighbours of an atom in the list and within the cutoff."""
_MOST_FAR, _MOST_CONTACTS = 2000, 500
"""The same for the pairs that reach far."""
_UNLISTED = 3000
"""Of this many atoms all are gone through for the charges, without a list."""
_GRAIN = 20
"""Sums over far pairs are whole numbers of 2^-20 eV/Å, up to 2048 eV/Å."""
_MOST_ATOMS = 2**16 - 1
"""Indices have 16 bits. (Listing the neighbours takes n² anyway.)"""
_SKIN, _FAR_SKIN = 1.0, 1.5
"""Å; only the speed depends on it. Long lists are dear to make."""


@lru_cache(maxsize=1)
def _machine() -> Machine:
    jit = compiled(fastmath={"nsz", "contract", "arcp", "afn", "reassoc"}, error_model="numpy", forceinline=True)

    def walk(step):
        def loop(total, start, stop, i, fixed, metric, species, far):
            for k in range(start, stop):
                total = step(total, k, i, fixed, metric, species, far)
            return total

        return jit(loop)

    one, grain, over_grain = np.float32(1), np.float32(2**_GRAIN), np.float32(2.0**-_GRAIN)
    return Machine(
        jit=jit,
        exp=jit(lambda x: math.exp(x)),
        log=jit(lambda x: math.log(x)),
        sin=jit(lambda x: math.sin(x)),
        cos=jit(lambda x: math.cos(x)),
        acos=jit(lambda x: math.acos(x)),
        rsqrt=jit(lambda x: one / math.sqrt(x)),
        inverse=jit(lambda x: one / x),
        nearest=jit(lambda x: np.int32(np.rint(x))),
        tally=Tally(
            together=64,
            walk=walk,
            nothing=np.int32(0),
            add=jit(lambda total, x: np.int32(total + np.int32(np.rint(x * grain)))),
            told=jit(lambda total: np.float32(total) * over_grain),
        ),
        sync=jit(lambda: None),
        any=jit(lambda x: x),
    )


def advance(systems: Systems, potential: Potential, plans: Plans) -> Int64[np.ndarray, " systems"]:
    """Runs all systems in place; returns the failure of each."""
    most = MOST_ATOMS if isinstance(potential, LongRanged) else _MOST_ATOMS
    if systems.n_atoms.max() > most:
        raise ValueError(f"`n_atoms` must be at most {most}, got {systems.n_atoms.max()}")
    kernels = {bool(d): _compiled(potential, diagonal=bool(d)) for d in np.unique(systems.diagonal())}

    def system(s: int) -> int:
        own = slice(systems.offsets[s], systems.offsets[s] + systems.n_atoms[s])
        n_steps, *ramp = plans.steps[s].tolist()
        return kernels[bool(diagonal[s])](
            systems.fixed[own],
            systems.velocities[own],
            systems.kicks[own],
            systems.species[own],
            systems.seed[s],
            systems.step[s],
            n_steps,
            tuple(ramp),
            plans.numbers[s],
            systems.cell[s],
            systems.record[s],
        )

    diagonal, failure = systems.diagonal(), np.empty(len(systems.cell), np.int64)
    largest_first = np.argsort(-systems.n_atoms, kind="stable")
    pool = ThreadPoolExecutor(numba.get_num_threads())
    try:
        failure[largest_first] = list(pool.map(system, largest_first.tolist()))
        return failure
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for the systems under way only


@lru_cache(maxsize=8)
def _compiled(potential: Potential, *, diagonal: bool) -> Any:
    skin = _FAR_SKIN if isinstance(potential, LongRanged) else _SKIN
    run = trajectory(_machine(), potential, skin=skin, diagonal=diagonal)
    bonded = potential.bonded if isinstance(potential, LongRanged) else potential
    rows, more_rows = bonded.n_moments, bonded.n_neighbor_moments
    charges, table = tables_of(potential)
    far_rows, contact_rows = (_MOST_FAR, _MOST_CONTACTS) if isinstance(potential, LongRanged) else (1, 1)

    def system(fixed, velocities, kicks, species, seed, step0, n_steps, ramp, plan, cell, record):
        n = fixed.shape[0]
        most_listed, most_near = min(_MOST_LISTED, n), min(_MOST_NEAR, n)
        unlisted = n if n <= _UNLISTED else 0
        fixed_t, velocity = np.empty((3, n), np.int32), np.empty((3, n), np.float32)
        for i in range(n):
            for d in range(3):
                fixed_t[d, i], velocity[d, i] = fixed[i, d], velocities[i, d]
        work = Workspace(
            fixed=fixed_t,
            origin=np.empty((3, n), np.int32),
            velocity=velocity,
            force=np.empty((3, n), np.float32),
            kick=kicks,
            species=species,
            moments=np.empty((n, rows + more_rows * most_near), np.float32).T,
            listed=np.empty((n, most_listed + 1), np.uint16).T,
            n_listed=np.empty(n, np.int32),
            near=np.empty((n, most_near + 1), np.uint16).T,
            n_near=np.empty(n, np.int32),
            far=Far(
                unlisted=unlisted,
                charge=charges[species],
                table=table,
                listed=np.empty((n, far_rows), np.uint16).T,
                contacts=np.empty((n, contact_rows), np.uint16).T,
                counts=np.zeros((3, n), np.int32),
            ),
            metric=np.empty(9, np.float32),
            drift=np.empty(9, np.float32),
            control=np.empty(N_CONTROLS, np.float32),
            partial=np.empty((N_SUMS, 1)),
            total=np.empty(N_SUMS),
            verdict=np.empty(1, np.int64),
        )
        run(0, 1, n, seed, step0, n_steps, ramp, plan, cell, record, work)
        for i in range(n):
            for d in range(3):
                fixed[i, d], velocities[i, d] = fixed_t[d, i], velocity[d, i]
        return work.verdict[0]

    return kept(potential, diagonal)(system)
