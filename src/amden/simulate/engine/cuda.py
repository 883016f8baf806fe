"""The way to CUDA and back: one block of threads a system, thousands of steps a launch.

The size of a system alone decides how many threads it gets, so that its sums are added in the same order in any batch.
Systems of one number of threads are one grid; all grids run side by side, the largest systems first, so that small ones
fill the multiprocessors that large ones leave; in a grid those with most to do come first. A block whose steps are done
returns, and the next system takes its place.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Int64

from amden.simulate.engine.cuda_memory import Memory
from amden.simulate.engine.systems import Plans, Systems
from amden.simulate.potentials.potential import Potential

_CAPACITIES = 64, 128, 192, 256, 384, 512, 640, 768, 896, 1024, 1280, 1536, 2048
"""Atoms that the memory of a block is made for; one kernel each."""
_WARP = 32
"""Threads come in multiples of this."""
MOST_THREADS = 1024
"""Of a block, one an atom; in larger systems each has the same number of atoms, or one less."""


def advance(systems: Systems, potential: Potential, plans: Plans) -> Int64[np.ndarray, " systems"]:
    """Runs all systems in place, one launch for each number of threads and kind of cell; returns their failures.

    Errors: `ValueError` for a system that is too large; those of `load_cuda` and `driver_errors`.
    """
    cuda = load_cuda()
    if systems.n_atoms.max() > _CAPACITIES[-1]:
        raise ValueError(
            f"`n_atoms` must be at most {_CAPACITIES[-1]} on cuda, got {systems.n_atoms.max()}: use the cpu"
        )
    with driver_errors():
        return _advance(cuda, systems, potential, plans)


def _advance(cuda: Any, systems: Systems, potential: Potential, plans: Plans) -> Int64[np.ndarray, " systems"]:
    from amden.simulate.engine import cuda_kernel

    threads, diagonal = _threads(systems.n_atoms), systems.diagonal()
    failure = cuda.to_device(np.zeros(len(threads), np.int64))
    fields = ("fixed", "velocities", "kicks", "species", "seed", "step", "n_atoms", "offsets", "cell", "record")
    on_device = {name: cuda.to_device(getattr(systems, name)) for name in fields}
    steps, numbers, grids = cuda.to_device(plans.steps), cuda.to_device(plans.numbers), []
    capacities = np.array(_CAPACITIES)[np.searchsorted(_CAPACITIES, systems.n_atoms)]
    kinds = set(zip(capacities.tolist(), threads.tolist(), diagonal.tolist(), strict=True))
    for capacity, n_threads, kind in sorted(kinds, reverse=True):
        chosen = np.flatnonzero((capacities == capacity) & (threads == n_threads) & (diagonal == kind))
        order = cuda.to_device(chosen[np.argsort(-systems.n_atoms[chosen] * plans.steps[chosen, 0], kind="stable")])
        elsewhere = [cuda.device_array(*array) for array in Memory.of(potential, capacity).elsewhere(len(chosen))]
        kernel = cuda_kernel.compiled(potential, capacity=capacity, diagonal=kind)
        arguments = order, *on_device.values(), steps, numbers, *elsewhere, failure
        grids.append((kernel, (len(chosen), n_threads, cuda.stream()), arguments))
    cuda.synchronize()
    for kernel, configuration, arguments in grids:  # nothing else here: copies would wait for the grids before
        kernel[configuration](*arguments)
    cuda.synchronize()
    for name in ("fixed", "velocities", "cell", "record"):
        on_device[name].copy_to_host(getattr(systems, name))
    return failure.copy_to_host()


def _threads(n_atoms: Int64[np.ndarray, " systems"]) -> Int64[np.ndarray, " systems"]:
    """Threads of systems of these sizes.

    >>> _threads(np.array([33, 1024, 1025])).tolist()
    [64, 1024, 544]
    """
    turns = -(-n_atoms // MOST_THREADS)
    return -(-n_atoms // (turns * _WARP)) * _WARP


def load_cuda() -> Any:
    """`numba.cuda`, or one line that says what is missing."""
    # A small batch is the user's choice. The class of the warning differs between numba and numba-cuda.
    warnings.filterwarnings("ignore", message=r".*Grid size \d+ will likely result in GPU under-utilization")
    # numba-cuda up to 0.30 asks numpy for row_stack, which numpy 2.5 dropped; vstack is the same function.
    if not hasattr(np, "row_stack"):
        np.row_stack = np.vstack  # noqa: NPY201  # pyright: ignore[reportAttributeAccessIssue]
    try:
        import numba_cuda  # noqa: F401  # pyright: ignore[reportMissingImports]
        from numba import cuda
    except ImportError as error:
        raise ValueError("`device` 'cuda' needs numba-cuda: pip install 'amden[cuda]'") from error
    if not cuda.is_available():
        raise ValueError("`device` is 'cuda', but no CUDA device was found")
    return cuda


@contextmanager
def driver_errors() -> Iterator[None]:
    """Errors of the CUDA driver, such as that no memory is left, which are of no builtin kind, as `OSError`."""
    from numba.cuda.cudadrv.driver import CudaAPIError
    from numba.cuda.cudadrv.error import CudaSupportError

    try:
        yield
    except (CudaAPIError, CudaSupportError) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"the GPU failed: {reason}; a smaller batch needs less memory") from error
