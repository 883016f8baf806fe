"""L-BFGS with a line search on the surface of one system, written once for the CPU (one thread) and CUDA (a block).

A turn is one evaluation: of the trial length of the line search under way. All that a turn leaves behind is in `state`
and in the arrays of the workspace, so a descent may be cut into launches after any turn and is the same bit by bit.

Nocedal, Wright, Numerical Optimization (2006), algorithms 7.4 and 3.5. The step satisfies the weak Wolfe conditions, so
the enthalpy falls with every step; where its change drowns in rounding, the slope alone decides (Hager, Zhang, SIAM J.
Optim. 16, 170 (2005), eq. 4.1).
"""

import math
from typing import Any

from amden.simulate.potentials.potential import Potential
from amden.simulate.relaxation import surface
from amden.simulate.relaxation import workspace as w

_FALL, _FLAT = 1e-4, 0.9
"""Of the first slope: how much of it the fall along a step must be at least, how much of it may be left at its end."""
_NOISE = 1e-13
"""Of the enthalpy: a change smaller than this is rounding."""
_MOST_TRIALS = 25
"""Evaluations in one line search."""
_LONGEST = 0.2
"""Å; no coordinate moves farther in one step."""
_LARGEST_STRAIN = 0.05
"""No coordinate of the cell changes more in one step."""


def _judge(machine: w.Machine) -> Any:
    """`judge(value, slope, state)`: 1 to end the line search here, 0 for another length, -1 to give it up."""

    def again(shorter, value, slope, state):
        trial, low, high = state[w.TRIAL], state[w.LOW], state[w.HIGH]
        if high < math.inf and low > 0.0:
            return 0.5 * (low + high)
        if not shorter:
            left = state[w.SLOPE] - slope
            guess = trial * state[w.SLOPE] / left if left < 0.0 else math.inf
            return min(min(max(guess, 1.5 * trial), 4.0 * trial), state[w.LONGEST])
        bend = value - state[w.ENTHALPY] - state[w.SLOPE] * trial
        guess = -0.5 * state[w.SLOPE] * trial * trial / bend
        return min(max(guess, 0.1 * trial), 0.5 * trial) if bend < math.inf else 0.1 * trial

    again = machine.jit(again)

    def judge(value, slope, state):
        if state[w.STATUS] == w.FRESH:
            return 1 if math.isfinite(value) and not math.isnan(slope) else -1
        first, change = state[w.SLOPE], value - state[w.ENTHALPY]
        falls = change <= _FALL * state[w.TRIAL] * first and not math.isnan(slope)
        rounded = abs(change) <= _NOISE * abs(value) and abs(slope) <= (1.0 - 2.0 * _FALL) * abs(first)
        shorter = not (falls or rounded)
        if not shorter and (slope >= _FLAT * first or state[w.TRIAL] >= state[w.LONGEST]):
            return 1
        if shorter:
            state[w.HIGH] = state[w.TRIAL]
        else:
            state[w.LOW] = state[w.TRIAL]
        state[w.N_TRIALS] += 1.0
        state[w.TRIAL] = again(shorter, value, slope, state)
        return 0 if state[w.N_TRIALS] < _MOST_TRIALS else -1

    return machine.jit(judge)


def _dotter(machine: w.Machine) -> Any:
    """`dot(thread, n_threads, a, b, work)`: the scalar product. A thread meets its own elements only."""
    gather = surface.gatherer(machine)

    def dot(thread, n_threads, a, b, work):
        value = 0.0
        for k in range(thread, len(a), n_threads):
            value += a[k] * b[k]
        work.partial[0, thread] = value
        gather(thread, n_threads, 1, 1, work.partial, work.dot)
        return work.dot[0]

    return machine.jit(dot)


def _aimer(machine: w.Machine, dot: Any) -> Any:
    """`aim(thread, n_threads, n, state, work)`: the direction from `work.base`, and the first length along it."""
    gather, sync = surface.gatherer(machine), machine.sync

    def quasi_newton(thread, n_threads, state, work):
        d, n_stored, newest = work.direction, int(state[w.N_STORED]), int(state[w.NEWEST])
        for k in range(thread, len(d), n_threads):
            d[k] = -work.base_gradient[k]
        for age in range(n_stored):
            m = (newest - age + w.MEMORY) % w.MEMORY
            share = dot(thread, n_threads, work.moves[m], d, work) / work.curvature[0, m]
            if thread == 0:
                work.curvature[1, m] = share
            for k in range(thread, len(d), n_threads):
                d[k] -= share * work.bends[m, k]
        for k in range(thread, len(d), n_threads):
            d[k] *= state[w.SCALE]
        sync()
        for age in range(n_stored - 1, -1, -1):
            m = (newest - age + w.MEMORY) % w.MEMORY
            share = work.curvature[1, m] - dot(thread, n_threads, work.bends[m], d, work) / work.curvature[0, m]
            for k in range(thread, len(d), n_threads):
                d[k] += share * work.moves[m, k]

    quasi_newton = machine.jit(quasi_newton)

    def aim(thread, n_threads, n, state, work):
        quasi_newton(thread, n_threads, state, work)
        slope = dot(thread, n_threads, work.direction, work.base_gradient, work)
        farthest, rows, scale = 0.0, n + w.STRAIN_ROWS, _LONGEST / (_LARGEST_STRAIN * math.sqrt(float(n)))
        for k in range(thread, len(work.direction), n_threads):
            farthest = max(farthest, abs(work.direction[k]) * (1.0 if k % rows < n else scale))
        work.partial[0, thread] = farthest
        gather(thread, n_threads, 0, 1, work.partial, work.dot)
        if thread == 0:
            longest = _LONGEST / work.dot[0] if work.dot[0] > 0.0 else 1.0
            state[w.SLOPE], state[w.LONGEST] = slope, longest
            state[w.TRIAL], state[w.LOW], state[w.HIGH], state[w.N_TRIALS] = min(1.0, longest), 0.0, math.inf, 0.0
        sync()

    return machine.jit(aim)


def _stepper(machine: w.Machine, dot: Any) -> Any:
    """`step(thread, n_threads, state, work)`: makes the trial the new base, and remembers how the gradient changed."""
    sync = machine.sync

    def step(thread, n_threads, state, work):
        m = (int(state[w.NEWEST]) + 1) % w.MEMORY
        for k in range(thread, len(work.q), n_threads):
            work.moves[m, k] = work.q[k] - work.base[k]
            work.bends[m, k] = work.gradient[k] - work.base_gradient[k]
            work.base[k], work.base_gradient[k] = work.q[k], work.gradient[k]
        across = dot(thread, n_threads, work.moves[m], work.bends[m], work)
        bent = dot(thread, n_threads, work.bends[m], work.bends[m], work)
        if thread == 0 and across > 1e-12 * bent:
            work.curvature[0, m] = across
            state[w.NEWEST], state[w.SCALE] = m, across / bent
            state[w.N_STORED] = min(state[w.N_STORED] + 1, w.MEMORY)
        sync()

    return machine.jit(step)


def _recorder(machine: w.Machine) -> Any:
    """`record(enthalpy, plan, state, work)`: takes down what was measured at a step, and whether it is the last."""

    def record(enthalpy, plan, state, work):
        state[w.N_STEPS] += 1.0
        for k in range(w.MOST_SUMS):
            state[w.ENERGY + k] = work.total[k]
        state[w.ENTHALPY] = enthalpy
        calm = state[w.FORCE2] <= plan[w.FORCE_TOLERANCE] ** 2
        relaxed = plan[w.FREE_CELL] == 0.0 or state[w.MAX_STRESS] <= plan[w.STRESS_TOLERANCE]
        state[w.STATUS] = w.RUNNING
        if calm and relaxed:
            state[w.STATUS] = w.CONVERGED
        elif state[w.N_STEPS] >= plan[w.MAX_STEPS]:
            state[w.STATUS] = w.OUT_OF_STEPS

    return machine.jit(record)


def _give_up(state):
    """Without the memory of L-BFGS, if it has any; else for good."""
    if state[w.STATUS] == w.FRESH:
        state[w.STATUS] = w.BAD_START
    elif state[w.N_STORED] == 0.0:
        state[w.STATUS] = w.STUCK
    state[w.N_STORED], state[w.SCALE] = 0.0, w.SOFTNESS


def _evaluator(machine: w.Machine, potential: Potential) -> Any:
    """`evaluate(thread, n_threads, n, plan, cell0, state, work)`: `surface` at `work.q`; returns the enthalpy."""
    place, relist = surface.placer(machine, potential), surface.relister(machine, potential)
    measure, strain, sync = surface.measurer(machine, potential), surface.strainer(machine), machine.sync

    def evaluate(thread, n_threads, n, plan, cell0, state, work):
        volume, worn = place(thread, n_threads, n, cell0, work)
        if volume == 0.0:
            return math.nan
        if worn and not relist(thread, n_threads, n, work):
            if thread == 0:
                state[w.STATUS] = w.NO_ROOM
            sync()
            return math.nan
        measure(thread, n_threads, n, work)
        if thread == 0:
            work.total[w.MAX_STRESS - w.ENERGY] = strain(n, volume, plan, cell0, work)
        sync()
        return work.total[0] + plan[w.PRESSURE] * volume

    return machine.jit(evaluate)


def _starter(machine: w.Machine) -> Any:
    """`start(thread, n_threads, n, positions, state, work)`: of a launch, and of a system if it is fresh."""
    sync = machine.sync

    def start(thread, n_threads, n, positions, state, work):
        rows = n + w.STRAIN_ROWS
        for d in range(thread, 3, n_threads):
            for e in range(3):
                work.listed_at[d, e] = math.nan  # nothing is listed yet: this wears any list out
        if state[w.STATUS] == w.FRESH:
            for k in range(thread, 3 * rows, n_threads):
                d, i = k // rows, k % rows
                work.q[k] = positions[i, d] if i < n else 0.0
                work.base[k], work.base_gradient[k], work.direction[k] = work.q[k], 0.0, 0.0
        sync()

    return machine.jit(start)


def _finisher(machine: w.Machine) -> Any:
    """`finish(thread, n_threads, n, cell0, positions, cell, work)`: atoms and cell at the last step."""
    place_frame = surface.framer(machine.jit)
    sync = machine.sync

    def finish(thread, n_threads, n, cell0, positions, cell, work):
        rows = n + w.STRAIN_ROWS
        for k in range(thread, 3 * rows, n_threads):
            work.q[k] = work.base[k]
        sync()
        if thread == 0:
            place_frame(n, cell0, work)
        sync()
        for i in range(thread, n, n_threads):
            for d in range(3):
                x = 0.0
                for k in range(3):
                    x += work.q[k * rows + i] * work.stretch[k, d]
                positions[i, d] = x
        for d in range(thread, 3, n_threads):
            for e in range(3):
                cell[d, e] = work.cell[d, e]

    return machine.jit(finish)


def descent(machine: w.Machine, potential: Potential) -> Any:
    """The compiled function `descend(thread, n_threads, n, n_turns, plan, cell0, positions, cell, state, work)`.

    Goes on for at most `n_turns` evaluations, or until `state[STATUS]` is neither `FRESH` nor `RUNNING`; only then
    positions and cell of the last step are written to `positions` and `cell`.
    """
    evaluate, start, sync = _evaluator(machine, potential), _starter(machine), machine.sync
    finish = _finisher(machine)
    dot, judge, record = _dotter(machine), _judge(machine), _recorder(machine)
    aim, step, give_up = _aimer(machine, dot), _stepper(machine, dot), machine.jit(_give_up)

    def turn(thread, n_threads, n, enthalpy, plan, state, work):
        slope = dot(thread, n_threads, work.gradient, work.direction, work)
        if thread == 0:
            state[w.VERDICT] = judge(enthalpy, slope, state)
        sync()
        if state[w.VERDICT] > 0.0:
            step(thread, n_threads, state, work)
            if thread == 0:
                record(enthalpy, plan, state, work)
            sync()
        elif state[w.VERDICT] < 0.0:
            if thread == 0:
                give_up(state)
            sync()
        if state[w.VERDICT] != 0.0 and state[w.STATUS] == w.RUNNING:
            aim(thread, n_threads, n, state, work)
        for k in range(thread, len(work.q), n_threads):
            work.q[k] = work.base[k] + state[w.TRIAL] * work.direction[k]

    turn = machine.jit(turn)

    def descend(thread, n_threads, n, n_turns, plan, cell0, positions, cell, state, work):
        start(thread, n_threads, n, positions, state, work)
        for _ in range(n_turns):
            enthalpy = evaluate(thread, n_threads, n, plan, cell0, state, work)
            if state[w.STATUS] != w.NO_ROOM:
                turn(thread, n_threads, n, enthalpy, plan, state, work)
            sync()
            if state[w.STATUS] != w.RUNNING:
                break
        status = state[w.STATUS]
        if status == w.CONVERGED or status == w.OUT_OF_STEPS or status == w.STUCK:
            finish(thread, n_threads, n, cell0, positions, cell, work)

    return machine.jit(descend)
