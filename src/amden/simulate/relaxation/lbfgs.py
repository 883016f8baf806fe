"""L-BFGS and its line search, for the threads of one system.

Nocedal, Wright, Numerical Optimization (2006), algorithm 7.4. A step satisfies the weak Wolfe conditions, so the
enthalpy falls with every step; where its change drowns in rounding, the slope alone decides (Hager, Zhang, SIAM J.
Optim. 16, 170 (2005), eq. 4.1).
"""

import math
from typing import Any

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

_LEAST_BEND = 1e-12
"""Å²/eV; a change of gradient that stands for a stiffness above its inverse, or a negative one, is not remembered."""


def line_search(machine: w.Machine) -> Any:
    """`judge(value, slope, state)`: 1 to end the line search here, 0 for another length, -1 to give it up.

    A length of 0 is no trial: the start, looked at once more.
    """

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
        if state[w.STATUS] == w.FRESH or state[w.TRIAL] == 0.0:
            return 1 if math.isfinite(value) and not math.isnan(slope) else -1
        if not state[w.SLOPE] < 0.0:
            return -1
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


def dotter(machine: w.Machine) -> Any:
    """`dot(thread, n_threads, a, b, path)`: the scalar product. A thread meets its own elements only."""
    gather = surface.gatherer(machine)

    def dot(thread, n_threads, a, b, path):
        value = 0.0
        for k in range(thread, len(a), n_threads):
            value += a[k] * b[k]
        path.partial[0, thread] = value
        gather(thread, n_threads, 1, 1, path.partial, path.sum)
        return path.sum[0]

    return machine.jit(dot)


def aimer(machine: w.Machine, dot: Any) -> Any:
    """`aim(thread, n_threads, n, state, path)`: the direction from `path.base`, and the first length along it."""
    gather, sync = surface.gatherer(machine), machine.sync

    def quasi_newton(thread, n_threads, state, path):
        d, n_stored, newest = path.direction, int(state[w.N_STORED]), int(state[w.NEWEST])
        for k in range(thread, len(d), n_threads):
            d[k] = -path.base_gradient[k]
        for age in range(n_stored):
            m = (newest - age + w.MEMORY) % w.MEMORY
            share = dot(thread, n_threads, path.moves[m], d, path) / path.curvature[0, m]
            if thread == 0:
                path.curvature[1, m] = share
            for k in range(thread, len(d), n_threads):
                d[k] -= share * path.bends[m, k]
        for k in range(thread, len(d), n_threads):
            d[k] *= state[w.SCALE]
        sync()
        for age in range(n_stored - 1, -1, -1):
            m = (newest - age + w.MEMORY) % w.MEMORY
            share = path.curvature[1, m] - dot(thread, n_threads, path.bends[m], d, path) / path.curvature[0, m]
            for k in range(thread, len(d), n_threads):
                d[k] += share * path.moves[m, k]

    quasi_newton = machine.jit(quasi_newton)

    def aim(thread, n_threads, n, state, path):
        quasi_newton(thread, n_threads, state, path)
        slope = dot(thread, n_threads, path.direction, path.base_gradient, path)
        farthest, rows, scale = 0.0, n + w.STRAIN_ROWS, _LONGEST / (_LARGEST_STRAIN * math.sqrt(float(n)))
        for k in range(thread, len(path.direction), n_threads):
            farthest = max(farthest, abs(path.direction[k]) * (1.0 if k % rows < n else scale))
        path.partial[0, thread] = farthest
        gather(thread, n_threads, 0, 1, path.partial, path.sum)
        if thread == 0:
            longest = _LONGEST / path.sum[0] if path.sum[0] > 0.0 else 1.0
            state[w.SLOPE], state[w.LONGEST] = slope, longest
            state[w.TRIAL], state[w.LOW], state[w.HIGH], state[w.N_TRIALS] = min(1.0, longest), 0.0, math.inf, 0.0
        sync()

    return machine.jit(aim)


def stepper(machine: w.Machine, dot: Any) -> Any:
    """`step(thread, n_threads, state, path)`: makes the trial the new base, and remembers how the gradient changed."""
    sync = machine.sync

    def step(thread, n_threads, state, path):
        m = (int(state[w.NEWEST]) + 1) % w.MEMORY
        for k in range(thread, len(path.q), n_threads):
            path.moves[m, k] = path.q[k] - path.base[k]
            path.bends[m, k] = path.gradient[k] - path.base_gradient[k]
            path.base[k], path.base_gradient[k] = path.q[k], path.gradient[k]
        across = dot(thread, n_threads, path.moves[m], path.bends[m], path)
        bent = dot(thread, n_threads, path.bends[m], path.bends[m], path)
        if thread == 0 and across > _LEAST_BEND * bent:
            path.curvature[0, m] = across
            state[w.NEWEST], state[w.SCALE] = m, across / bent
            state[w.N_STORED] = min(state[w.N_STORED] + 1, w.MEMORY)
        elif thread == 0:
            state[w.N_STORED] = min(state[w.N_STORED], w.MEMORY - 1)  # the oldest was written over
        sync()

    return machine.jit(step)
