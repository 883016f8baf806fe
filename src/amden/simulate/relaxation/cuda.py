"""Relaxation on CUDA: one block of threads a system, some evaluations a launch.

Memory for some thousand systems is enough to fill a GPU. A system that is done gives its slot to the next one, so
stragglers do not hold up the others. The size of a system alone decides how many threads it gets, so that its sums are
added in the same order in any batch.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from amden.simulate.engine.cuda import load_cuda
from amden.simulate.potentials import Potential
from amden.simulate.relaxation import workspace as w
from amden.simulate.relaxation.batch import Batch

_TURNS = 100
"""Evaluations a launch: milliseconds."""
_MEMORY = 2 * 2**30
"""Bytes for the systems at work at a time."""
_FEWEST_THREADS, _MOST_THREADS = 32, 256
"""Of a block; one an atom if there are enough."""

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
    """Relaxes the systems of `order` in place; `progress` is told how many more are done."""
    cuda = load_cuda()
    on_device = {name: cuda.to_device(getattr(batch, name)) for name in _SHARED}
    size = np.maximum(2 ** np.ceil(np.log2(batch.n_atoms[order])).astype(np.int64), _FEWEST_THREADS)
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

    n_threads = min(capacity, _MOST_THREADS)
    kernel = cuda_kernel.compiled(potential, n_threads=n_threads)
    layout = w.layout(capacity, potential, room=room)
    bytes_each = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in layout.values())
    slots = int(min(len(order), max(_MEMORY // bytes_each, 1)))
    large = [cuda.device_array((slots, *layout[name][0]), layout[name][1]) for name in _LARGE]
    plan, waiting = cuda.to_device(batch.plan), order[slots:].tolist()
    pairs = np.stack([np.arange(slots), order[:slots]], axis=1)
    while len(pairs):
        shared = (on_device[name] for name in _SHARED)
        kernel[len(pairs), n_threads](cuda.to_device(pairs), _TURNS, plan, *shared, *large)
        status = on_device["state"].copy_to_host()[pairs[:, 1], w.STATUS]
        progress(int(((status != w.RUNNING) & (status != w.NO_ROOM)).sum()))
        pairs = _refilled(pairs, status == w.RUNNING, waiting)


def _refilled(pairs: np.ndarray, running: np.ndarray, waiting: list[int]) -> np.ndarray:
    """Pairs of slot and system for the next launch: those under way, and new systems in the slots of the others."""
    free = pairs[~running, 0].tolist()
    new = [(slot, waiting.pop()) for slot in free[: len(waiting)]]
    return np.concatenate([pairs[running], np.array(new, np.int64).reshape(-1, 2)])
