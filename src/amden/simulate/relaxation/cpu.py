"""Relaxation on the CPU: one system a thread."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache
from threading import Event
from typing import Any

import numba
import numpy as np

from amden.compiler import compiled, kept
from amden.simulate.potentials import Potential
from amden.simulate.relaxation import workspace as w
from amden.simulate.relaxation.batch import Batch
from amden.simulate.relaxation.descent import descent

_TURNS = 200
"""Evaluations between two looks at whether to go on."""


@lru_cache(maxsize=1)
def _machine() -> w.Machine:
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    arithmetic = {"contract", "nsz", "arcp"}
    jit = compiled(fastmath=arithmetic, **options)
    return w.Machine(
        jit=jit,
        jit_sum=compiled(fastmath={*arithmetic, "reassoc"}, **options),
        remembers=True,
        rsqrt=jit(lambda x: 1.0 / math.sqrt(x)),
        index=np.uint64,
        sync=jit(lambda: None),
        any=jit(lambda x: x),
    )


@lru_cache(maxsize=8)
def _compiled(potential: Potential) -> Any:
    descend = descent(_machine(), potential)

    def system(n_turns, plan, cell0, positions, cell, state, path, work):
        descend(0, 1, positions.shape[0], n_turns, plan, cell0, positions, cell, state, path, work)

    return kept(potential)(system)


def _workspace(batch: Batch, s: int, potential: Potential, room: int) -> tuple[w.Path, w.Surface]:
    """Lists as [atom, neighbour] in memory, seen as [neighbour, atom]."""
    n_atoms, own = int(batch.n_atoms[s]), batch.own(s)
    arrays = {
        name: np.empty(shape, kind) if name in w.HISTORY else np.empty(shape[::-1], kind).T
        for name, (shape, kind) in w.layout(n_atoms, potential, room=room).items()
    }
    arrays |= {"chosen": batch.chosen[own].copy(), "chosen_cell": batch.chosen_cells[s].copy()}
    arrays |= {"species": batch.species[own], "frames": np.empty((w.N_FRAMES, 3, 3))}
    arrays |= {"partial": np.empty((w.MOST_SUMS, 1)), "total": np.empty(w.MOST_SUMS), "sum": np.empty(1)}
    path = w.Path(**{name: arrays[name] for name in w.Path._fields})
    return path, w.Surface(**{name: arrays[name] for name in w.Surface._fields})


def advance(
    batch: Batch, potential: Potential, order: np.ndarray, *, room: int, progress: Callable[[int], None]
) -> None:
    """Relaxes the systems of `order` in place; `progress` is told how many more are done."""
    kernel, stop = _compiled(potential), Event()

    def system(s: int) -> int:
        own, state = batch.own(s), batch.state[s]
        path, work = _workspace(batch, s, potential, room)
        while state[w.STATUS] in (w.FRESH, w.RUNNING) and not stop.is_set():
            kernel(_TURNS, batch.plan, batch.cells[s], batch.positions[own], batch.relaxed_cells[s], state, path, work)
        return int(state[w.STATUS] != w.NO_ROOM)

    pool = ThreadPoolExecutor(numba.get_num_threads())
    try:
        for future in as_completed([pool.submit(system, s) for s in order.tolist()]):
            progress(future.result())
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
