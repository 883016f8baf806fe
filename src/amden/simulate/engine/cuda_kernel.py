"""The CUDA kernel: a system from global to shared memory, its trajectory, and back.

Imports numba.cuda and is therefore itself imported only by `cuda`, and only when a run asks for it. Pyright takes the
stubs of its device functions at their word, hence the next lines.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalSubscript=false, reportOperatorIssue=false
import inspect
from functools import lru_cache
from typing import Any

import numpy as np
from numba import config, cuda

from amden.simulate.engine.coupling import N_CONTROLS, N_SUMS
from amden.simulate.engine.cuda_memory import SKIN, Memory
from amden.simulate.engine.far import Far, Tally, tables_of
from amden.simulate.engine.kernel import Machine, Workspace, trajectory
from amden.simulate.potentials.potential import Potential

_REGISTERS = 64
"""A thread, so that four blocks of 256 threads live on a multiprocessor."""
_TOGETHER = 4
"""Addends at a time in sums over far pairs."""


@lru_cache(maxsize=16)
def compiled(potential: Potential, *, capacity: int, diagonal: bool) -> Any:
    """The kernel of a potential for systems of up to `capacity` atoms, launched with any number of threads."""
    options = {}
    if not config.ENABLE_CUDASIM:
        options["max_registers"] = _REGISTERS
    if not config.ENABLE_CUDASIM and Memory.of(potential, capacity).shared_lists:
        options["shared_memory_carveout"] = "maxshared"
    launch = inspect.unwrap(kernel(potential, capacity=capacity, diagonal=diagonal))
    return cuda.jit(launch, fastmath=True, **options)


@lru_cache(maxsize=1)
def machine() -> Machine:
    """The device functions; the simulator of Numba has no libdevice and takes those of numpy."""

    def jit(function):
        return cuda.jit(inspect.unwrap(function), device=True, fastmath=True)

    def walk(step):
        def loop(total, start, stop, i, fixed, metric, species, far):
            k, end = index(start), index(stop)
            while k < end:  # four at a time, so that their loads are under way together
                total = step(total, k, i, fixed, metric, species, far)
                total = step(total, index(k + index(1)), i, fixed, metric, species, far)
                total = step(total, index(k + index(2)), i, fixed, metric, species, far)
                total = step(total, index(k + index(3)), i, fixed, metric, species, far)
                k = index(k + index(_TOGETHER))
            return total

        return jit(loop)

    one, index = np.float32(1), np.uint32
    if config.ENABLE_CUDASIM:
        rsqrt, inverse = (lambda x: one / np.sqrt(x)), (lambda x: one / x)
        nearest = lambda x: np.int32(np.rint(x))  # noqa: E731
        exp, log, sin, cos, acos = np.exp, np.log, np.sin, np.cos, np.arccos
    else:
        from numba.cuda import libdevice

        exp, log, sin, cos = libdevice.fast_expf, libdevice.fast_logf, libdevice.fast_sinf, libdevice.fast_cosf
        rsqrt, nearest, acos = libdevice.rsqrtf, libdevice.float2int_rn, libdevice.acosf
        inverse = jit(lambda x: libdevice.fast_fdividef(one, x))
    sync = jit(lambda: cuda.syncthreads())
    any_thread = jit(lambda x: cuda.syncthreads_or(np.int32(x)) != 0)
    return Machine(
        jit=jit,
        exp=exp,
        log=log,
        sin=sin,
        cos=cos,
        acos=acos,
        rsqrt=rsqrt,
        inverse=inverse,
        nearest=nearest,
        tally=Tally(
            together=_TOGETHER,
            walk=walk,
            nothing=np.float32(0),
            add=jit(lambda total, x: total + x),
            told=jit(lambda total: total),
        ),
        sync=sync,
        any=any_thread,
    )


def kernel(potential: Potential, *, capacity: int, diagonal: bool) -> Any:
    """The CUDA kernel as a Python function: the system of its block, from global to shared memory, run, and back."""
    run = trajectory(machine(), potential, skin=SKIN, diagonal=diagonal)
    memory = Memory.of(potential, capacity)
    rows, listed_rows, near_rows, index = memory.moments, memory.listed, memory.near, memory.index
    shared_lists, shared_moments, shared_motion = memory.shared_lists, memory.shared_moments, memory.shared_motion
    charges, table = tables_of(potential)
    far, n_charged, pairs = memory.far > 0, capacity if memory.far else 1, table.shape[0]
    integer, real, double, long = np.int32, np.float32, np.float64, np.int64

    def launch(
        order, fixed_all, velocities, kicks, species, seed, step, n_atoms, offsets, cell, record,
        steps, plans, listed_all, near_all, moments_all, origin_all, motion_all,
        far_all, contacts_all, far_counts_all, failure,
    ):  # fmt: skip
        system, thread, n_threads = order[cuda.blockIdx.x], cuda.threadIdx.x, cuda.blockDim.x
        n, start = integer(n_atoms[system]), offsets[system]
        fixed = cuda.shared.array((3, capacity), integer)
        kind = cuda.shared.array(capacity, np.uint8)
        n_listed = cuda.shared.array(capacity, np.uint8)
        n_near = cuda.shared.array(capacity, np.uint8)
        metric = cuda.shared.array(9, real)
        drift = cuda.shared.array(9, real)
        control = cuda.shared.array(N_CONTROLS, real)
        total = cuda.shared.array(N_SUMS, double)
        verdict = cuda.shared.array(1, long)
        charge = cuda.shared.array(n_charged, real)
        contact_table = cuda.shared.array((pairs, 4), real)
        if shared_motion:
            origin = cuda.shared.array((3, capacity), integer)
            motion = cuda.shared.array((7, capacity), real)
        else:
            origin, motion = origin_all[cuda.blockIdx.x], motion_all[cuda.blockIdx.x]
        velocity, force, kick = motion[:3], motion[3:6], motion[6]
        if shared_lists:
            listed = cuda.shared.array((listed_rows, capacity), index)
            near = cuda.shared.array((near_rows, capacity), index)
        else:
            listed, near = listed_all[cuda.blockIdx.x], near_all[cuda.blockIdx.x]
        if shared_moments:  # noqa: SIM108 - the branch is chosen when this is compiled
            moments = cuda.shared.array((rows, capacity), real)
        else:
            moments = moments_all[cuda.blockIdx.x]
        for i in range(thread, n, n_threads):
            kick[i], kind[i] = kicks[start + i], species[start + i]
            for d in range(3):
                fixed[d, i] = fixed_all[start + i, d]
                velocity[d, i] = velocities[start + i, d]
        if far:
            for i in range(thread, capacity, n_threads):
                charge[i] = charges[species[start + i]] if i < n else 0
            for k in range(thread, 4 * pairs, n_threads):
                contact_table[k // 4, k % 4] = table[k // 4, k % 4]
            block = cuda.blockIdx.x
        else:
            block = 0
        cuda.syncthreads()
        unlisted = -(-n // _TOGETHER) * _TOGETHER if far else 0
        pairs_work = Far(unlisted, charge, contact_table, far_all[block], contacts_all[block], far_counts_all[block])
        work = Workspace(
            fixed, origin, velocity, force, kick, kind, moments, listed, n_listed, near, n_near, pairs_work,
            metric, drift, control, moments, total, verdict,
        )  # fmt: skip
        n_steps, ramp, plan = steps[system, 0], (steps[system, 1], steps[system, 2], steps[system, 3]), plans[system]
        run(thread, n_threads, n, seed[system], step[system], n_steps, ramp, plan, cell[system], record[system], work)
        for i in range(thread, n, n_threads):
            for d in range(3):
                fixed_all[start + i, d] = fixed[d, i]
                velocities[start + i, d] = velocity[d, i]
        if thread == 0:
            failure[system] = verdict[0]

    return launch
