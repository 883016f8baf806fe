"""The CUDA kernel: some turns of the relaxation of one system by one block of threads.

Imports numba.cuda and is therefore itself imported only by `cuda`, and only when a relaxation asks for it. Pyright
takes the stubs of its device functions at their word, hence the next line.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
import inspect
from functools import lru_cache
from typing import Any

import numpy as np
from numba import config, cuda

from amden.simulate.potentials.potential import Potential
from amden.simulate.relaxation import workspace as w
from amden.simulate.relaxation.descent import descent

_REGISTERS = 128
"""A thread, so that two blocks of 256 threads live on a multiprocessor, or one of 512."""


@lru_cache(maxsize=8)
def compiled(potential: Potential, *, n_threads: int) -> Any:
    """The kernel of a potential for blocks of `n_threads`."""
    options = {} if config.ENABLE_CUDASIM else {"max_registers": _REGISTERS}
    return cuda.jit(inspect.unwrap(_kernel(potential, n_threads)), **options)


@lru_cache(maxsize=1)
def _machine() -> w.Machine:
    def jit(function):
        return cuda.jit(inspect.unwrap(function), device=True)

    if config.ENABLE_CUDASIM:
        rsqrt = jit(lambda x: 1.0 / np.sqrt(x))
    else:
        from numba.cuda.libdevice import rsqrt
    return w.Machine(
        jit=jit,
        jit_sum=jit,
        remembers=False,
        rsqrt=rsqrt,
        index=np.uint32,
        sync=jit(lambda: cuda.syncthreads()),
        any=jit(lambda x: cuda.syncthreads_or(np.int32(x)) != 0),
    )


def _kernel(potential: Potential, n_threads: int) -> Any:
    """`launch` takes pairs of a slot in the large arrays and a system, a block each, and the arrays of `layout`."""
    descend, real = descent(_machine(), potential), np.float64
    n_sums, n_frames = w.MOST_SUMS, w.N_FRAMES

    def launch(
        pairs, n_turns, plan, cells, positions, relaxed_cells, chosen, chosen_cells, species, n_atoms, offsets, state,
        q, gradient, base, base_gradient, direction, origin, moves, bends, curvature,
        place, moments, vector, listed, near, counts,
    ):  # fmt: skip
        slot, system = pairs[cuda.blockIdx.x, 0], pairs[cuda.blockIdx.x, 1]
        n, first = n_atoms[system], offsets[system]
        size = 3 * (n + w.STRAIN_ROWS)
        frames = cuda.shared.array((n_frames, 3, 3), real)
        partial = cuda.shared.array((n_sums, n_threads), real)
        total = cuda.shared.array(n_sums, real)
        single = cuda.shared.array(1, real)
        path = w.Path(
            q[slot, :size], gradient[slot, :size], base[slot, :size], base_gradient[slot, :size],
            direction[slot, :size], moves[slot, :, :size], bends[slot, :, :size], curvature[slot], partial, single,
        )  # fmt: skip
        work = w.Surface(
            origin[slot, :size], place[slot], moments[slot], listed[slot], near[slot], vector[slot], counts[slot],
            species[first : first + n], chosen[first : first + n], chosen_cells[system], frames, partial, total,
        )  # fmt: skip
        descend(
            cuda.threadIdx.x, n_threads, n, n_turns, plan, cells[system],
            positions[first : first + n], relaxed_cells[system], state[system], path, work,
        )  # fmt: skip

    return launch
