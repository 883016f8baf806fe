"""The relaxation of one system, written once for the CPU (one thread) and CUDA (one block of threads).

A turn is one evaluation: of the trial length of the line search under way. All that a turn leaves behind is in `state`
and `path`, so a descent may be cut into launches after any turn and is the same bit by bit.
"""

import math
from typing import Any

from amden.simulate.potentials.potential import Potential
from amden.simulate.relaxation import lbfgs, surface, terms
from amden.simulate.relaxation import workspace as w


def _evaluator(machine: w.Machine, potential: Potential, place: Any) -> Any:
    """`evaluate(thread, n_threads, n, plan, cell0, path, work)`: all of `surface` at `path.q`.

    Returns the enthalpy, and whether there was room for all neighbours.
    """
    relist, measure = surface.relister(machine, potential), surface.measurer(machine, potential)
    strain, sync = surface.strainer(machine), machine.sync

    def evaluate(thread, n_threads, n, plan, cell0, path, work):
        volume, worn = place(thread, n_threads, n, path.q, cell0, work)
        if volume == 0.0:
            return math.nan, True
        if worn and not relist(thread, n_threads, n, path.q, work):
            return math.nan, False
        measure(thread, n_threads, n, path.gradient, work)
        if thread == 0:
            work.total[w.MAX_STRESS - w.ENERGY] = strain(n, volume, plan, cell0, path.gradient, work)
        sync()
        return work.total[0] + plan[w.PRESSURE] * volume, True

    return machine.jit(evaluate)


def _recorder(machine: w.Machine) -> Any:
    """`record(enthalpy, plan, state, total)`: takes down what was measured at a step, and whether it is the last."""

    def record(enthalpy, plan, state, total):
        state[w.N_STEPS] += 1.0
        for k in range(w.MOST_SUMS):
            state[w.ENERGY + k] = total[k]
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
    """Goes on without the memory of L-BFGS, if there is any; else ends the descent."""
    if state[w.STATUS] == w.FRESH:
        state[w.STATUS] = w.BAD_START
    elif state[w.N_STORED] == 0.0:
        state[w.STATUS] = w.STUCK
    state[w.N_STORED], state[w.SCALE] = 0.0, w.SOFTNESS


def _turner(machine: w.Machine) -> Any:
    """`turn(thread, n_threads, n, enthalpy, plan, state, path, total)`: what follows an evaluation."""
    dot, judge, record = lbfgs.dotter(machine), lbfgs.line_search(machine), _recorder(machine)
    aim, step = lbfgs.aimer(machine, dot), lbfgs.stepper(machine, dot)
    give_up, sync = machine.jit(_give_up), machine.sync

    def turn(thread, n_threads, n, enthalpy, plan, state, path, total):
        slope = dot(thread, n_threads, path.gradient, path.direction, path)
        if thread == 0:
            state[w.VERDICT] = judge(enthalpy, slope, state)
        sync()
        verdict = state[w.VERDICT]
        if verdict > 0.0:
            step(thread, n_threads, state, path)
        if thread == 0 and verdict > 0.0:
            record(enthalpy, plan, state, total)
        elif thread == 0 and verdict < 0.0:
            give_up(state)
        sync()
        if verdict != 0.0 and state[w.STATUS] == w.RUNNING:
            aim(thread, n_threads, n, state, path)
        for k in range(thread, len(path.q), n_threads):
            path.q[k] = path.base[k] + state[w.TRIAL] * path.direction[k]
        sync()

    return machine.jit(turn)


def _starter(machine: w.Machine) -> Any:
    """`start(thread, n_threads, n, positions, state, path, work)`: of a launch, and of a system if it is fresh."""
    sync, wear_out, remembers = machine.sync, surface.wearer(machine.jit), machine.remembers

    def start(thread, n_threads, n, positions, state, path, work):
        rows, fresh = n + w.STRAIN_ROWS, state[w.STATUS] == w.FRESH
        if fresh or not remembers:
            wear_out(thread, n_threads, work)
            for k in range(thread, 3 * rows, n_threads):
                work.origin[k] = 0.0
        if fresh:
            for k in range(thread, 3 * rows, n_threads):
                d, i = k // rows, k % rows
                path.q[k] = positions[i, d] if i < n else 0.0
                path.base[k], path.base_gradient[k], path.direction[k] = path.q[k], 0.0, 0.0
        sync()

    return machine.jit(start)


def _finisher(machine: w.Machine, place: Any) -> Any:
    """`finish(thread, n_threads, n, cell0, positions, cell, path, work)`: atoms and cell of the last step."""
    sync = machine.sync

    def finish(thread, n_threads, n, cell0, positions, cell, path, work):
        place(thread, n_threads, n, path.base, cell0, work)
        for i in range(thread, n, n_threads):
            for d in range(3):
                positions[i, d] = work.place[d, i]
        for d in range(thread, 3, n_threads):
            for e in range(3):
                cell[d, e] = work.frames[w.CELL, d, e]
        sync()

    return machine.jit(finish)


def descent(machine: w.Machine, potential: Potential) -> Any:
    """The compiled function `descend(thread, n_threads, n, n_turns, plan, cell0, positions, cell, state, path, work)`.

    Goes on for at most `n_turns` evaluations, or until `state[STATUS]` is neither `FRESH` nor `RUNNING`; only then
    positions and cell of the last step are written to `positions` and `cell`.
    """
    place = surface.placer(machine, potential)
    evaluate, finish = _evaluator(machine, potential, place), _finisher(machine, place)
    turn, choose = _turner(machine), terms.chooser(machine, potential, finish)
    start, sync = _starter(machine), machine.sync

    def descend(thread, n_threads, n, n_turns, plan, cell0, positions, cell, state, path, work):
        start(thread, n_threads, n, positions, state, path, work)
        for _ in range(n_turns):
            enthalpy, fits = evaluate(thread, n_threads, n, plan, cell0, path, work)
            if fits:
                turn(thread, n_threads, n, enthalpy, plan, state, path, work.total)
                choose(thread, n_threads, n, plan, cell0, state, path, work)
            elif thread == 0:
                state[w.STATUS] = w.NO_ROOM
            sync()
            if state[w.STATUS] != w.RUNNING:
                break
        status = state[w.STATUS]
        if status == w.CONVERGED or status == w.OUT_OF_STEPS or status == w.STUCK:
            finish(thread, n_threads, n, cell0, positions, cell, path, work)

    return machine.jit(descend)
