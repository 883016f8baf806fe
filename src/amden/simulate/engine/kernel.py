"""The molecular dynamics of one system, written once for the CPU (one thread) and CUDA (one block of threads).

Velocity Verlet as kick - drift - force - kick. The threads of a system share its atoms; what differs between machines
comes in as `Machine`. All arrays are [component, atom] so that neighbouring threads touch neighbouring numbers.

Nothing remembers how a state was reached: forces depend on positions alone, random numbers on the seed and the step.
So a run done in several launches is the run done in one, bit by bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from amden.simulate.engine.coupling import (
    DRIFT_X,
    DRIFT_Y,
    DRIFT_Z,
    ENERGY,
    KINETIC,
    KINETIC_ON_STEP,
    LIMIT2,
    MASS,
    MAX_DISPLACEMENT,
    N_SUMS,
    OVERFLOW,
    PX,
    PY,
    PZ,
    SCALE,
    STRETCH,
    TIMESTEP,
    VIRIAL,
    attendant,
    metrics,
)
from amden.simulate.engine.verlet import displacement, lister, selector
from amden.simulate.potentials.potential import Potential, Tools


@dataclass(frozen=True)
class Machine:
    """What the kernel is compiled with."""

    jit: Callable[[Callable], Any]
    """Compiles a device function."""
    exp: Any
    """exp of a float32."""
    rsqrt: Any
    """1/√x of a float32."""
    inverse: Any
    """1/x of a float32."""
    nearest: Any
    """The int32 nearest to a float32."""
    sync: Any
    """Waits for all threads of the system."""
    any: Any
    """Whether the argument is true in any thread of the system; waits for all of them."""


def _tools(machine: Machine, vector: Any) -> Tools:
    real, index, jit = np.float32, np.uint32, machine.jit
    zero = real(0)

    def neighbor(geometry, i, k):
        fixed, _, near, _, metric = geometry
        j = near[k, i]
        x, y, z = vector(fixed, i, fixed, j, metric)
        return j, x, y, z

    return Tools(
        jit=jit,
        real=real,
        index=index,
        exp=machine.exp,
        rsqrt=machine.rsqrt,
        inverse=machine.inverse,
        n_near=jit(lambda geometry, i: index(geometry[3][i])),
        neighbor=jit(neighbor),
        species=jit(lambda geometry, i: geometry[1][i]),
        no_virial=jit(lambda: zero),
        add_virial=jit(lambda total, x, y, z, gx, gy, gz: total + x * gx + y * gy + z * gz),
    )


def _drifter(machine: Machine, vector: Any, *, diagonal: bool) -> Any:
    """`drift(i, fixed, velocity, matrix)`: moves atom i by one step."""
    integer, nearest = np.int32, machine.nearest

    def orthorhombic(i, fixed, vx, vy, vz, matrix):
        fixed[0, i] = integer(fixed[0, i] + nearest(vx * matrix[0]))
        fixed[1, i] = integer(fixed[1, i] + nearest(vy * matrix[4]))
        fixed[2, i] = integer(fixed[2, i] + nearest(vz * matrix[8]))

    def triclinic(i, fixed, vx, vy, vz, matrix):
        fixed[0, i] = integer(fixed[0, i] + nearest(vx * matrix[0] + vy * matrix[3] + vz * matrix[6]))
        fixed[1, i] = integer(fixed[1, i] + nearest(vx * matrix[1] + vy * matrix[4] + vz * matrix[7]))
        fixed[2, i] = integer(fixed[2, i] + nearest(vx * matrix[2] + vy * matrix[5] + vz * matrix[8]))

    return machine.jit(orthorhombic if diagonal else triclinic)


@lru_cache(maxsize=4)
def _summer(machine: Machine) -> Any:
    """`measure(...)`: the sums over all atoms, in `total` for every thread."""
    sync, half = machine.sync, 0.5

    def measure(thread, n_threads, n, velocity, force, kick, half_step, energy, virial, overflow, partial, total):
        on_step = after = px = py = pz = masses = 0.0
        for i in range(thread, n, n_threads):
            mass = half_step / kick[i]
            masses += mass
            vx, vy, vz = velocity[0, i], velocity[1, i], velocity[2, i]
            on_step += mass * (vx * vx + vy * vy + vz * vz)
            vx += kick[i] * force[0, i]
            vy += kick[i] * force[1, i]
            vz += kick[i] * force[2, i]
            after += mass * (vx * vx + vy * vy + vz * vz)
            px += mass * vx
            py += mass * vy
            pz += mass * vz
        partial[KINETIC, thread] = half * after
        partial[KINETIC_ON_STEP, thread] = half * on_step
        partial[ENERGY, thread] = energy
        partial[VIRIAL, thread] = half * virial
        partial[OVERFLOW, thread] = overflow
        partial[MASS, thread] = masses
        partial[PX, thread] = px
        partial[PY, thread] = py
        partial[PZ, thread] = pz
        sync()
        for q in range(thread, N_SUMS, n_threads):
            value = 0.0
            for t in range(n_threads):
                value += partial[q, t]
            total[q] = value
        sync()

    return machine.jit(measure)


def _mover(machine: Machine, drifter: Any, vector: Any) -> Any:
    """`move(...)`: half a kick and a drift of the atoms of a thread; returns whether the neighbour list is worn out."""

    def move(thread, n_threads, n, fixed, origin, velocity, force, kick, metric, drift, control, coupled, speed2):
        worn = False
        for i in range(thread, n, n_threads):
            vx = velocity[0, i] + kick[i] * force[0, i]
            vy = velocity[1, i] + kick[i] * force[1, i]
            vz = velocity[2, i] + kick[i] * force[2, i]
            if coupled:
                vx = (vx - control[DRIFT_X]) * control[SCALE]
                vy = (vy - control[DRIFT_Y]) * control[SCALE]
                vz = (vz - control[DRIFT_Z]) * control[SCALE]
            v2 = vx * vx + vy * vy + vz * vz
            if v2 > speed2:
                brake = machine_rsqrt(v2 * over_one(speed2))
                vx, vy, vz = vx * brake, vy * brake, vz * brake
            velocity[0, i], velocity[1, i], velocity[2, i] = vx, vy, vz
            drifter(i, fixed, vx, vy, vz, drift)
            x, y, z = vector(origin, i, fixed, i, metric)
            worn = worn or x * x + y * y + z * z > control[LIMIT2]
        return worn

    machine_rsqrt, over_one = machine.rsqrt, machine.inverse
    return machine.jit(move)


def trajectory(machine: Machine, potential: Potential, *, skin: float, diagonal: bool) -> Any:
    """The compiled function `run(thread, n_threads, n, seed, step0, n_steps, ramp, plan, cell, record, work)`.

    `ramp` is the interval, the first step within the segment and the length of the segment; `work` the arrays of
    `Workspace`. Returns the number of a failure or 0.
    """
    vector = displacement(machine.jit, diagonal=diagonal)
    build, select = lister(machine.jit, vector), selector(machine.jit, vector)
    first, second = potential.phases(_tools(machine, vector))
    move = _mover(machine, _drifter(machine, vector, diagonal=diagonal), vector)
    measure, attend = _summer(machine), attendant(machine.jit)
    reaches = float(potential.cutoff), float(potential.cutoff + skin)
    update = metrics(machine.jit)
    sync, any_thread = machine.sync, machine.any
    real = np.float32
    one = real(1)
    reach2, cutoff2, spare2 = real((potential.cutoff + skin) ** 2), real(potential.cutoff**2), real(skin**2 / 4)

    def run(thread, n_threads, n, seed, step0, n_steps, ramp, plan, cell, record, work):
        fixed, origin, velocity, force, kick, species = work[0:6]
        moments, listed, n_listed, near, n_near = work[6:11]
        metric, drift, control, partial, total, verdict = work[11:17]
        interval, ramp_start, ramp_length = ramp
        geometry = fixed, species, near, n_near, metric
        matrices = metric, drift
        speed2 = real((plan[MAX_DISPLACEMENT] / plan[TIMESTEP]) ** 2)
        half_step = 0.5 * plan[TIMESTEP]
        if thread == 0:
            update(cell, plan[TIMESTEP], metric, drift)
        sync()
        stale = True
        overflow = 0.0
        for local in range(n_steps + 1):
            if stale:
                if thread == 0:
                    control[STRETCH] = one
                    control[LIMIT2] = spare2
                if build(thread, n_threads, n, fixed, origin, metric, reach2, listed, n_listed):
                    overflow = 1.0
            for i in range(thread, n, n_threads):
                if select(i, fixed, metric, cutoff2, listed, n_listed, near, n_near):
                    overflow = 1.0
                first(i, geometry, moments)
            sync()
            energy = virial = 0.0
            for i in range(thread, n, n_threads):
                fx, fy, fz, e, w = second(i, geometry, moments)
                energy += e
                virial += w
                force[0, i], force[1, i], force[2, i] = fx, fy, fz
                if local > 0:
                    velocity[0, i] += kick[i] * fx
                    velocity[1, i] += kick[i] * fy
                    velocity[2, i] += kick[i] * fz
            last = local == n_steps
            coupled = (step0 + local) % interval == 0
            sync()
            if coupled or last:
                measure(
                    thread, n_threads, n, velocity, force, kick, half_step, energy, virial, overflow, partial, total
                )
                if thread == 0:
                    progress = (ramp_start + local) / ramp_length
                    elapsed = interval * plan[TIMESTEP]
                    verdict[0] = attend(
                        n,
                        seed,
                        step0 + local,
                        progress,
                        elapsed,
                        last,
                        reaches,
                        total,
                        plan,
                        cell,
                        matrices,
                        control,
                        record,
                    )
                sync()
                if verdict[0] != 0 or last:
                    break
            worn = move(
                thread, n_threads, n, fixed, origin, velocity, force, kick, metric, drift, control, coupled, speed2
            )
            stale = any_thread(worn)
        return verdict[0]

    return machine.jit(run)
