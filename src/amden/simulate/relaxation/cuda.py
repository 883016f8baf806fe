"""Relaxation on CUDA: one block of threads a system, some evaluations a launch.

As many systems are at work as a part of the free memory holds. A system that is done gives its slot to the next one, so
stragglers do not hold up the others. The size of a system alone decides how many threads it gets, so that its sums are
added in the same order in any batch.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from amden.simulate.engine.cuda import driver_errors, load_cuda
from amden.simulate.potentials import Potential
from amden.simulate.relaxation import workspace as w
from amden.simulate.relaxation.batch import Batch

_TURNS = 100
"""Evaluations a launch: milliseconds."""
_SHARE, _MOST_MEMORY, _UNTOLD_MEMORY = 0.25, 16 * 2**30, 2 * 2**30
"""Of the free memory for the systems at work at a time; bytes at most, and where nothing tells what is free."""
_FEWEST_THREADS, _MOST_THREADS = 32, 256
"""Of a block, one an atom if there are enough; twice as many where it has more than two atoms a thread."""

_SHARED = (
    "cells", "positions", "relaxed_cells", "chosen", "chosen_cells", "species", "n_atoms", "offsets", "state",
)  # fmt: skip
_LARGE = (
    "q", "gradient", "base", "base_gradient", "direction", "origin", "moves", "bends", "curvature",
    "place", "moments", "vector", "listed", "near", "counts",
)  # fmt: skip
"""Arguments of the kernel."""


def advance(
    batch: Batch, potential: Potential, order: np.ndarray, *, room: int, progress: Callable[[int], None]
) -> None:
    """Relaxes the systems of `order` in place; `progress` is told how many more are done.

    Errors: those of `load_cuda` and `driver_errors`.
    """
    cuda = load_cuda()
    size = np.maximum(2 ** np.ceil(np.log2(batch.n_atoms[order])).astype(np.int64), _FEWEST_THREADS)
    with driver_errors():
        on_device = {name: cuda.to_device(getattr(batch, name)) for name in _SHARED}
        for capacity in np.unique(size).tolist():
            _advance_like(cuda, batch, on_device, potential, order[size == capacity], capacity, room, progress)
        for name in ("positions", "relaxed_cells", "state"):
            on_device[name].copy_to_host(getattr(batch, name))


def _advance_like(
    cuda: Any,
    batch: Batch,
    on_device: dict[str, Any],
    potential: Potential,
    order: np.ndarray,
    capacity: int,
    room: int,
    progress: Callable[[int], None],
) -> None:
    """Systems of about the same size."""
    from amden.simulate.relaxation import cuda_kernel

    n_threads = min(capacity, _MOST_THREADS if capacity <= 2 * _MOST_THREADS else 2 * _MOST_THREADS)
    kernel = cuda_kernel.compiled(potential, n_threads=n_threads)
    layout = w.layout(capacity, potential, room=room)
    bytes_each = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in layout.values())
    slots = int(min(len(order), max(_memory(cuda) // bytes_each, 1)))
    large = [cuda.device_array((slots, *layout[name][0]), layout[name][1]) for name in _LARGE]
    plan, waiting = cuda.to_device(batch.plan), order[slots:].tolist()
    pairs = np.stack([np.arange(slots), order[:slots]], axis=1)
    while len(pairs):
        shared = (on_device[name] for name in _SHARED)
        kernel[len(pairs), n_threads](cuda.to_device(pairs), _TURNS, plan, *shared, *large)
        status = on_device["state"].copy_to_host()[pairs[:, 1], w.STATUS]
        progress(int(((status != w.RUNNING) & (status != w.NO_ROOM)).sum()))
        pairs = _refilled(pairs, status == w.RUNNING, waiting)


def _memory(cuda: Any) -> int:
    """Bytes for the systems at work at a time; in the simulator of Numba memory has no end."""
    try:
        free = cuda.current_context().get_memory_info().free
    except NotImplementedError:  # a memory manager that cannot tell
        return _UNTOLD_MEMORY
    return int(min(_SHARE * free, _MOST_MEMORY))


def _refilled(pairs: np.ndarray, running: np.ndarray, waiting: list[int]) -> np.ndarray:
    """Pairs of slot and system for the next launch: those under way, and new systems in the slots of the others."""
    free = pairs[~running, 0].tolist()
    new = [(slot, waiting.pop()) for slot in free[: len(waiting)]]
    return np.concatenate([pairs[running], np.array(new, np.int64).reshape(-1, 2)])
