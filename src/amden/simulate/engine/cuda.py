"""The way to CUDA and back: one block of threads a system, thousands of steps a launch.

Systems are grouped by size; the size of a system alone decides how many threads it gets, so that its sums are added in
the same order in any batch.
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numba.core.errors import NumbaPerformanceWarning

from amden.simulate.engine.systems import Systems
from amden.simulate.potentials.potential import Potential

_CAPACITIES = 64, 128, 256, 512
"""Atoms, and threads, of a block."""


def advance(
    systems: Systems,
    potential: Potential,
    *,
    n_steps: int,
    ramp: tuple[int, int, int],
    plan: Float64[np.ndarray, " numbers"],
) -> Int64[np.ndarray, " systems"]:
    """Runs all systems in place, one launch for each size and kind of cell; returns the failure of each."""
    cuda = _cuda()
    from amden.simulate.engine import cuda_kernel

    if systems.n_atoms.max() > _CAPACITIES[-1]:
        raise ValueError(
            f"`n_atoms` must be at most {_CAPACITIES[-1]} on cuda, got {systems.n_atoms.max()}: use the cpu"
        )
    capacity = np.array(_CAPACITIES)[np.searchsorted(_CAPACITIES, systems.n_atoms)]
    diagonal = systems.diagonal()
    failure = cuda.to_device(np.zeros(len(capacity), np.int64))
    fields = ("fixed", "velocities", "kicks", "species", "seed", "step", "n_atoms", "offsets", "cell", "record")
    on_device = {name: cuda.to_device(getattr(systems, name)) for name in fields}
    for size, kind in sorted(set(zip(capacity.tolist(), diagonal.tolist(), strict=True))):
        order = np.flatnonzero((capacity == size) & (diagonal == kind))
        kernel = cuda_kernel.compiled(potential, capacity=size, diagonal=kind)
        lists = len(order) if size > cuda_kernel.SHARED_LISTS_UP_TO else 1
        listed = cuda.device_array((lists, cuda_kernel.MOST_LISTED, size), np.uint16)
        near = cuda.device_array((lists, cuda_kernel.MOST_NEAR + 1, size), np.uint16)
        arguments = cuda.to_device(order), *on_device.values(), n_steps, *ramp, cuda.to_device(plan), listed, near
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaPerformanceWarning)  # a small batch is the user's choice
            kernel[len(order), size](*arguments, failure)
    for name in ("fixed", "velocities", "cell", "record"):
        on_device[name].copy_to_host(getattr(systems, name))
    return failure.copy_to_host()


def _cuda() -> Any:
    """`numba.cuda`, or one line that says what is missing."""
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
