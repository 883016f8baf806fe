"""Relaxation on the CPU: one system a thread."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache
from threading import Event
from typing import Any

import numba
import numpy as np

from amden.simulate.compiler import compiled
from amden.simulate.potentials import Potential
from amden.simulate.relaxation import workspace as w
from amden.simulate.relaxation.batch import Batch
from amden.simulate.relaxation.descent import descent

_TURNS = 200
"""Evaluations between two looks at whether to go on."""


@lru_cache(maxsize=1)
def _machine() -> w.Machine:
    jit = compiled(fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
    return w.Machine(
        jit=jit,
        index=np.uint64,
        sync=jit(lambda: None),
        any=jit(lambda x: x),
    )


@lru_cache(maxsize=8)
def _compiled(potential: Potential) -> Any:
    descend = descent(_machine(), potential)

    def system(n_turns, plan, cell0, positions, cell, state, work):
        descend(0, 1, positions.shape[0], n_turns, plan, cell0, positions, cell, state, work)

    return compiled()(system)


def _workspace(n_atoms: int, species: np.ndarray, potential: Potential, room: int) -> w.Workspace:
    """Lists as [atom, neighbour] in memory, seen as [neighbour, atom]."""
    arrays = {
        name: np.empty(shape, kind) if name in w.HISTORY else np.empty(shape[::-1], kind).T
        for name, (shape, kind) in w.layout(n_atoms, potential, room=room).items()
    }
    frames = {name: np.empty((3, 3)) for name in ("stretch", "cell", "inverse", "listed_at")}
    sums = {"partial": np.empty((w.MOST_SUMS, 1)), "total": np.empty(w.MOST_SUMS), "dot": np.empty(1)}
    return w.Workspace(**arrays, species=species, **frames, **sums)


def advance(
    batch: Batch, potential: Potential, order: np.ndarray, *, room: int, progress: Callable[[int], None]
) -> None:
    """Relaxes the systems of `order` in place; `progress` is told of each that is done."""
    kernel, stop = _compiled(potential), Event()

    def system(s: int) -> None:
        own = slice(int(batch.offsets[s]), int(batch.offsets[s] + batch.n_atoms[s]))
        work = _workspace(int(batch.n_atoms[s]), batch.species[own], potential, room)
        state = batch.state[s]
        while state[w.STATUS] in (w.FRESH, w.RUNNING) and not stop.is_set():
            kernel(_TURNS, batch.plan, batch.cells[s], batch.positions[own], batch.relaxed_cells[s], state, work)

    pool = ThreadPoolExecutor(numba.get_num_threads())
    try:
        for future in as_completed([pool.submit(system, s) for s in order.tolist()]):
            future.result()
            progress(1)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
