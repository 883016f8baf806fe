"""The molecular dynamics of one system, written once for the CPU (one thread) and CUDA (one block of threads).

Velocity Verlet as kick - drift - force - kick. The threads of a system share its atoms; what differs between machines
comes in as `Machine`.

Nothing remembers how a state was reached: forces depend on positions alone, random numbers on the seed and the step.
So a run done in several launches is the run done in one, bit by bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from amden.simulate.engine import coupling as c
from amden.simulate.engine.far import FarSums, Tally, far_sums
from amden.simulate.engine.far_lists import sublister
from amden.simulate.engine.verlet import displacement, drifter, lister, reach, selector
from amden.simulate.potentials.pair_sums import LongRanged, image_cutoff
from amden.simulate.potentials.potential import Potential, Tools


@dataclass(frozen=True)
class Machine:
    """What the kernel is compiled with."""

    jit: Callable[[Callable], Any]
    """Compiles a device function."""
    exp: Any
    """exp of a float32."""
    log: Any
    """log of a float32."""
    sin: Any
    """sin of a float32 from 0 to π/2."""
    cos: Any
    """cos of a float32 from 0 to π/2."""
    acos: Any
    """arccos of a float32."""
    rsqrt: Any
    """1/√x of a float32."""
    inverse: Any
    """1/x of a float32."""
    nearest: Any
    """The int32 nearest to a float32."""
    tally: Tally
    """For sums over far pairs."""
    sync: Any
    """Waits for all threads of the system."""
    any: Any
    """Whether the argument is true in any thread of the system; waits for all of them."""


class Workspace(NamedTuple):
    """The arrays of one system, [component, atom] so that neighbouring threads touch neighbouring numbers."""

    fixed: Any
    """int32, integer fractions of the cell (`verlet`)."""
    origin: Any
    """int32, those when the neighbours were listed."""
    velocity: Any
    """float32, Å/ps."""
    force: Any
    """float32, eV/Å."""
    kick: Any
    """float32, change of velocity in half a step by a unit force."""
    species: Any
    """uint8, numbers of the species."""
    moments: Any
    """float32, what the potential keeps between its phases."""
    listed: Any
    """Unsigned, atoms on the neighbour list, [neighbour, atom]."""
    n_listed: Any
    """Their numbers."""
    near: Any
    """Unsigned, atoms within the cutoff, [neighbour, atom]."""
    n_near: Any
    """Their numbers."""
    far: Any
    """The arrays of the sums over far pairs (`far.Far`)."""
    metric: Any
    """float32, the cell over 2³²."""
    drift: Any
    """float32, Å/ps to integer fractions a step."""
    control: Any
    """float32, `coupling.LIMIT2` and those after it."""
    partial: Any
    """Sums of each thread, [sum, thread]; may share memory with `moments`."""
    total: Any
    """float64, sums over the system."""
    verdict: Any
    """int64, number of the failure or 0."""


class Geometry(NamedTuple):
    """What a potential sees of a workspace, through its `Tools`."""

    fixed: Any
    species: Any
    near: Any
    n_near: Any
    metric: Any


def _tools(machine: Machine, vector: Any) -> Tools:
    real, index, jit = np.float32, np.uint32, machine.jit
    zero = real(0)

    def neighbor(geometry, i, k):
        j = geometry.near[k, i]
        x, y, z = vector(geometry.fixed, i, geometry.fixed, j, geometry.metric)
        return j, x, y, z

    return Tools(
        jit=jit,
        real=real,
        index=index,
        exp=machine.exp,
        log=machine.log,
        sin=machine.sin,
        cos=machine.cos,
        acos=machine.acos,
        rsqrt=machine.rsqrt,
        inverse=machine.inverse,
        n_near=jit(lambda geometry, i: index(geometry.n_near[i])),
        neighbor=jit(neighbor),
        span2=jit(lambda geometry, i, k, r2: r2),
        species=jit(lambda geometry, i: geometry.species[i]),
        no_virial=jit(lambda: zero),
        add_virial=jit(lambda total, x, y, z, gx, gy, gz: total + x * gx + y * gy + z * gz),
    )


def _builder(
    machine: Machine, potential: Potential, bonded: Potential, far: FarSums, vector: Any, *, skin: float
) -> Any:
    """`build(thread, n_threads, n, work)`: all lists; returns whether one of them had no room."""
    jit, reach2, build_far = machine.jit, reach(machine.jit, bonded.cutoffs, skin=skin), far.build
    build_all, build_some = lister(jit, vector, reach2), sublister(jit, vector, reach2)

    def from_all(thread, n_threads, n, work):
        full = build_far(thread, n_threads, n, work.fixed, work.metric, work.species, work.far)
        return full | build_all(
            thread, n_threads, n, work.fixed, work.origin, work.metric, work.species, work.listed, work.n_listed
        )

    def from_contacts(thread, n_threads, n, work):
        fixed, metric, species = work.fixed, work.metric, work.species
        full = build_far(thread, n_threads, n, fixed, metric, species, work.far)
        return full | build_some(
            thread, n_threads, n, fixed, work.origin, metric, species, work.far, work.listed, work.n_listed
        )

    within = isinstance(potential, LongRanged) and np.all(
        np.array(bonded.cutoffs) <= np.array(potential.pair_sums.contact_cutoffs)
    )
    return jit(from_contacts if within else from_all)


def _forcer(machine: Machine, tools: Tools, bonded: Potential, far: FarSums, vector: Any) -> Any:
    """`forces(thread, n_threads, n, kicked, measured, work)`: the forces and, if `kicked`, the half kick that ends a
    step.

    Returns the thread's share of energy and virial, only if `measured` that of far pairs too, and whether an atom has
    more neighbours than there is room for.
    """
    select = selector(machine.jit, vector, reach(machine.jit, bonded.cutoffs, skin=0.0))
    first, second = bonded.phases(tools)
    sync, far_forces, far_measure = machine.sync, far.forces, far.measure

    def forces(thread, n_threads, n, kicked, measured, work):
        full = False
        geometry = Geometry(work.fixed, work.species, work.near, work.n_near, work.metric)
        for i in range(thread, n, n_threads):
            if select(i, work.fixed, work.metric, work.species, work.listed, work.n_listed, work.near, work.n_near):
                full = True
            first(i, geometry, work.moments)
        sync()
        energy = virial = 0.0
        for i in range(thread, n, n_threads):
            fx, fy, fz, e, w = second(i, geometry, work.moments)
            energy += e
            virial += w
            gx, gy, gz = far_forces(i, work.fixed, work.metric, work.species, work.far)
            fx, fy, fz = fx + gx, fy + gy, fz + gz
            if measured:
                e, w = far_measure(i, work.fixed, work.metric, work.species, work.far)
                energy += e
                virial += w
            work.force[0, i], work.force[1, i], work.force[2, i] = fx, fy, fz
            if kicked:
                work.velocity[0, i] += work.kick[i] * fx
                work.velocity[1, i] += work.kick[i] * fy
                work.velocity[2, i] += work.kick[i] * fz
        sync()
        return energy, virial, full

    return machine.jit(forces)


@lru_cache(maxsize=4)
def _summer(machine: Machine) -> Any:
    """`measure(thread, n_threads, n, half_step, energy, virial, overflow, work)`: all sums over the atoms."""
    sync, half = machine.sync, 0.5

    def measure(thread, n_threads, n, half_step, energy, virial, overflow, work):
        on_step = after = px = py = pz = masses = 0.0
        for i in range(thread, n, n_threads):
            kick = work.kick[i]
            mass = half_step / kick
            masses += mass
            vx, vy, vz = work.velocity[0, i], work.velocity[1, i], work.velocity[2, i]
            on_step += mass * (vx * vx + vy * vy + vz * vz)
            vx += kick * work.force[0, i]
            vy += kick * work.force[1, i]
            vz += kick * work.force[2, i]
            after += mass * (vx * vx + vy * vy + vz * vz)
            px += mass * vx
            py += mass * vy
            pz += mass * vz
        work.partial[c.KINETIC, thread] = half * after
        work.partial[c.KINETIC_ON_STEP, thread] = half * on_step
        work.partial[c.ENERGY, thread] = energy
        work.partial[c.VIRIAL, thread] = half * virial
        work.partial[c.OVERFLOW, thread] = overflow
        work.partial[c.MASS, thread] = masses
        work.partial[c.PX, thread] = px
        work.partial[c.PY, thread] = py
        work.partial[c.PZ, thread] = pz
        sync()
        for q in range(thread, c.N_SUMS, n_threads):
            value = 0.0
            for t in range(n_threads):
                value += work.partial[q, t]
            work.total[q] = value
        sync()

    return machine.jit(measure)


def _mover(machine: Machine, vector: Any, *, diagonal: bool) -> Any:
    """`move(thread, n_threads, n, coupled, speed2, work)`: the half kick that begins a step, and the drift.

    Returns whether an atom of the thread has moved so far that the neighbours must be listed anew.
    """
    rsqrt, inverse = machine.rsqrt, machine.inverse
    advance = drifter(machine.jit, machine.nearest, diagonal=diagonal)

    def move(thread, n_threads, n, coupled, speed2, work):
        control, velocity, worn = work.control, work.velocity, False
        for i in range(thread, n, n_threads):
            vx = velocity[0, i] + work.kick[i] * work.force[0, i]
            vy = velocity[1, i] + work.kick[i] * work.force[1, i]
            vz = velocity[2, i] + work.kick[i] * work.force[2, i]
            if coupled:
                vx = (vx - control[c.DRIFT_X]) * control[c.SCALE]
                vy = (vy - control[c.DRIFT_Y]) * control[c.SCALE]
                vz = (vz - control[c.DRIFT_Z]) * control[c.SCALE]
            v2 = vx * vx + vy * vy + vz * vz
            if v2 > speed2:
                brake = rsqrt(v2 * inverse(speed2))
                vx, vy, vz = vx * brake, vy * brake, vz * brake
            velocity[0, i], velocity[1, i], velocity[2, i] = vx, vy, vz
            advance(i, work.fixed, vx, vy, vz, work.drift)
            x, y, z = vector(work.origin, i, work.fixed, i, work.metric)
            worn = worn or x * x + y * y + z * z > control[c.LIMIT2]
        return worn

    return machine.jit(move)


def trajectory(machine: Machine, potential: Potential, *, skin: float, diagonal: bool) -> Any:
    """The compiled function `run(thread, n_threads, n, seed, step0, n_steps, ramp, plan, cell, record, work)`.

    `ramp` is the interval, the first step within the segment and the length of the segment. The number of a failure is
    left in `work.verdict`.
    """
    vector = displacement(machine.jit, diagonal=diagonal)
    tools, bonded = _tools(machine, vector), potential.bonded if isinstance(potential, LongRanged) else potential
    far = far_sums(tools, machine.tally, potential, vector, skin=skin, diagonal=diagonal)
    build = _builder(machine, potential, bonded, far, vector, skin=skin)
    forces = _forcer(machine, tools, bonded, far, vector)
    measure, move = _summer(machine), _mover(machine, vector, diagonal=diagonal)
    update, attend = c.metrics(machine.jit), c.attendant(machine.jit)
    sync, any_thread, real = machine.sync, machine.any, np.float32
    shortest, longest = min(map(min, bonded.cutoffs)), potential.cutoff
    reaches = float(shortest), float(longest), float(skin), float(image_cutoff(potential))
    one, spare2 = real(1), real(skin**2 / 4)

    def run(thread, n_threads, n, seed, step0, n_steps, ramp, plan, cell, record, work):
        interval, ramp_start, ramp_length = ramp
        speed2 = real((plan[c.MAX_DISPLACEMENT] / plan[c.TIMESTEP]) ** 2)
        half_step, elapsed = 0.5 * plan[c.TIMESTEP], interval * plan[c.TIMESTEP]
        if thread == 0:
            work.verdict[0] = 0
            update(cell, plan[c.TIMESTEP], work.metric, work.drift)
        sync()
        stale, overflow = True, 0.0
        for local in range(n_steps + 1):
            if stale:
                if thread == 0:
                    work.control[c.STRETCH] = one
                    work.control[c.LIMIT2] = spare2
                if build(thread, n_threads, n, work):
                    overflow = 1.0
            last, coupled = local == n_steps, (step0 + local) % interval == 0
            energy, virial, full = forces(thread, n_threads, n, local > 0, coupled or last, work)
            if full:
                overflow = 1.0
            if coupled or last:
                measure(thread, n_threads, n, half_step, energy, virial, overflow, work)
                if thread == 0:
                    when = step0 + local, (ramp_start + local) / ramp_length, elapsed
                    work.verdict[0] = attend(n, seed, when, last, reaches, plan, cell, record, work)
                sync()
                if work.verdict[0] != 0 or last:
                    break
            stale = any_thread(move(thread, n_threads, n, coupled, speed2, work))

    return machine.jit(run)
