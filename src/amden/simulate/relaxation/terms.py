"""Which terms a pair of atoms has while a system relaxes, held so that the energy has no steps.

BMP-shrm cuts terms off where they are not zero: at 3.3 Å, where an angle is worth some tenths of an eV, and at 7 Å. On
the way down from a glass atoms cross these distances, and no minimum is found where the energy jumps. So the cutoffs
within a `LongRanged` potential are compared with distances in a geometry that is held: that of the start, and once at a
minimum that of the minimum, from where it goes on. Images are those of the coordinates, which are never wrapped, so
nothing needs to be remembered but that geometry.

All choices but the last are made on the way already, where forces and stress are 16 and 4 times what is asked for: who
is to choose anew there, has no use for more. A generated glass of 912 atoms takes 1,060 steps so, not 1,392.

Atoms near a cutoff may be driven out with a term and back without it: in a glass of 255 atoms twelve choices do not
come to an end, while its energy changes by less than 1 meV an atom. Hence the few.

A start may be far from its minimum, though, and two ions that were far apart have no repulsion: opposite ones would
fall into each other. So terms are chosen anew whenever an atom has strayed, and these choices do not count.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.potentials.potential import Potential
from amden.simulate.relaxation import surface
from amden.simulate.relaxation import workspace as w

MOST_CHOICES: Final = 3
"""Times that terms are chosen anew at a minimum."""
LOOSER: Final = 4.0
"""In which all choices but the last are made at minima, as the ratio of the tolerances from one to the next."""
ASTRAY: Final = 1.5
"""Å that an atom moves, beside the stretch of the cell, before terms are chosen anew: two that were 7 Å apart have no
contact then, and are still some 4 Å apart, where contacts are next to nothing."""


def _holder(jit: Callable[[Callable], Any]) -> Any:
    """`held(i, j, a, b, c, chosen, cell)`: the square of the distance from atom i to atom j, so many cells away, where
    terms were chosen."""

    def held(i, j, a, b, c, chosen, cell):
        square = 0.0
        for d in range(3):
            x = chosen[j, d] - chosen[i, d] + a * cell[0, d] + b * cell[1, d] + c * cell[2, d]
            square += x * x
        return square

    return jit(held)


def shortener(jit: Callable[[Callable], Any], potential: Potential) -> Any:
    """`short(i, j, a, b, c, chosen, cell, species)`: whether the two have other terms than charges."""
    if not isinstance(potential, LongRanged):
        return jit(lambda i, j, a, b, c, chosen, cell, species: True)
    held, squares = _holder(jit), np.array(potential.pair_sums.contact_cutoffs) ** 2

    def short(i, j, a, b, c, chosen, cell, species):
        return held(i, j, a, b, c, chosen, cell) < squares[species[i], species[j]]

    return jit(short)


def noter(jit: Callable[[Callable], Any], potential: Potential) -> Any:
    """`note(i, j, a, b, c, k, work)`: `Tools.span2` of neighbour k of atom i, atom j in cell a, b, c."""
    held = _holder(jit)

    def note(i, j, a, b, c, k, work):
        work.vector[3, k, i] = held(i, j, a, b, c, work.chosen, work.chosen_cell)

    return jit(note if isinstance(potential, LongRanged) else _note_nothing)


def _note_nothing(i, j, a, b, c, k, work):
    pass


def chooser(machine: w.Machine, potential: Potential, finish: Any) -> Any:
    """`choose(thread, n_threads, n, plan, cell0, state, path, work)`: anew at a minimum, and goes on from there.

    Not where the terms were chosen there, so where no step was made since, nor too often. After a step that takes an
    atom astray at any time.
    """
    sync, strayed, wear_out = machine.sync, _strayer(machine), surface.wearer(machine.jit)
    near = machine.jit(_near_a_minimum)

    def choose(thread, n_threads, n, plan, cell0, state, path, work):
        status, held = state[w.STATUS], plan[w.MOST_CHOICES] == 0.0 or state[w.N_STEPS] == state[w.CHOSEN_AT]
        at_minimum = not held and state[w.N_CHOICES] < plan[w.MOST_CHOICES] and near(plan, state)
        anew = at_minimum
        if not anew and status == w.RUNNING and not held and state[w.VERDICT] > 0.0:
            anew = strayed(thread, n_threads, n, work)
        if anew:
            finish(thread, n_threads, n, cell0, work.chosen, work.chosen_cell, path, work)
            if thread == 0:
                state[w.STATUS], state[w.CHOSEN_AT] = w.RUNNING, state[w.N_STEPS]
                state[w.N_CHOICES] += 1.0 if at_minimum else 0.0
                state[w.N_STEPS] -= 1.0
                state[w.TRIAL] = 0.0
            for k in range(thread, len(path.q), n_threads):
                path.q[k] = path.base[k]
            wear_out(thread, n_threads, work)
            sync()

    return machine.jit(choose if isinstance(potential, LongRanged) else _choose_nothing)


def _near_a_minimum(plan, state):
    """Whether a step has come as near to one as the next choice asks for."""
    if state[w.STATUS] == w.CONVERGED:
        return True
    if state[w.STATUS] != w.RUNNING or not state[w.VERDICT] > 0.0:
        return False
    loose = 1.0
    for _ in range(int(plan[w.MOST_CHOICES] - 1.0 - state[w.N_CHOICES])):
        loose *= LOOSER
    calm = state[w.FORCE2] <= (loose * plan[w.FORCE_TOLERANCE]) ** 2
    return calm and (plan[w.FREE_CELL] == 0.0 or state[w.MAX_STRESS] <= loose * plan[w.STRESS_TOLERANCE])


def _strayer(machine: w.Machine) -> Any:
    """`strayed(thread, n_threads, n, work)`: whether an atom at `work.place` is `ASTRAY` of where terms were chosen."""
    invert, sync, any_thread, limit = surface.inverter(machine.jit), machine.sync, machine.any, ASTRAY**2

    def strayed(thread, n_threads, n, work):
        cell, inverse, astray = work.frames[w.CELL], work.frames[w.UNCHOSEN], False
        if thread == 0:
            invert(work.chosen_cell, inverse)
        sync()
        for i in range(thread, n, n_threads):
            square = 0.0
            for d in range(3):
                x = work.place[d, i]
                for k in range(3):
                    fraction = 0.0
                    for m in range(3):
                        fraction += work.chosen[i, m] * inverse[m, k]
                    x -= fraction * cell[k, d]
                square += x * x
            astray = astray or square > limit
        return any_thread(astray)

    return machine.jit(strayed)


def _choose_nothing(thread, n_threads, n, plan, cell0, state, path, work):
    pass
