"""The memory of one relaxation, and what differs between the machines that work in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.potentials.potential import Potential

MEMORY: Final = 20
"""Steps that L-BFGS remembers."""
STRAIN_ROWS: Final = 2
"""The coordinates of the cell are stored as if they were those of two more atoms."""
MOST_SUMS: Final = 9
"""Sums over the threads of a system at a time."""

SOFTNESS: Final = 0.03
"""Å²/eV, roughly 1/stiffness of an atom, for the first step."""

STATUS, N_STEPS, ENERGY, XX, YY, ZZ, YZ, XZ, XY, FORCE2, MAX_STRESS, ENTHALPY = range(12)
"""A system in numbers, `state[...]`: where it is; there its energy (eV), virial (eV), square of the largest force."""
SLOPE, TRIAL, LOW, HIGH, LONGEST, N_TRIALS, SCALE, N_STORED, NEWEST, VERDICT = range(12, 22)
"""The line search under way: slope at its start, length under trial, bounds; the memory of L-BFGS."""
N_CHOICES, CHOSEN_AT = range(22, 24)
"""How often the terms of pairs were chosen anew, and after how many steps the last time (`terms`)."""
N_STATE: Final = 24

FRESH, RUNNING, CONVERGED, OUT_OF_STEPS, STUCK, BAD_START, NO_ROOM = range(7)
"""Values of `state[STATUS]`."""

PRESSURE, FORCE_TOLERANCE, STRESS_TOLERANCE, MAX_STEPS, FREE_CELL, MOST_CHOICES = range(6)
"""What all systems share, `plan[...]`, in eV and Å."""
N_PLAN: Final = 6


HISTORY: Final = ("moves", "bends", "curvature")
"""Arrays of `Path` whose last axis is not that of the atoms."""


@dataclass(frozen=True)
class Machine:
    """What the kernel is compiled with."""

    jit: Callable[[Callable], Any]
    """Compiles a device function."""
    jit_sum: Callable[[Callable], Any]
    """The same for one that may add up in any order."""
    remembers: bool
    """Whether what lies in `Surface.frames` outlives a launch."""
    rsqrt: Any
    """1/√x of a positive number."""
    index: type
    """Unsigned type to count neighbours with."""
    sync: Any
    """Waits for all threads of the system."""
    any: Any
    """Whether the argument is true in any thread of the system; waits for all of them."""


class Path(NamedTuple):
    """Where a descent is. Coordinates are flat, [component, row], with the rows of the cell after the atoms."""

    q: Any
    """Coordinates under trial."""
    gradient: Any
    """Gradient there."""
    base: Any
    """Coordinates of the last step."""
    base_gradient: Any
    """Gradient there."""
    direction: Any
    """Where the line search goes from there."""
    moves: Any
    """[memory, coordinate], changes of the coordinates from step to step."""
    bends: Any
    """[memory, coordinate], changes of the gradient."""
    curvature: Any
    """[2, memory], move · bend, and what the two loops of L-BFGS keep."""
    partial: Any
    """That of `Surface`."""
    sum: Any
    """[1], the result of a sum over the threads."""


class Surface(NamedTuple):
    """What the energy is computed in."""

    origin: Any
    """Coordinates when the neighbours were listed."""
    place: Any
    """[3, atom], Cartesian positions under trial."""
    moments: Any
    """[moment, atom], what the potential keeps between its phases."""
    listed: Any
    """[2, neighbour, atom], atoms on the neighbour list, and which image of them (`lists`)."""
    near: Any
    """[neighbour, atom], atoms within the cutoff; of a `LongRanged` potential those with short terms."""
    vector: Any
    """[3, neighbour, atom], vectors to them; of a `LongRanged` potential a fourth row, `Tools.span2` (`terms`)."""
    counts: Any
    """[3, atom], how many are listed, how many near, how many of the list have short terms (`lists`)."""
    species: Any
    """[atom], species numbers."""
    chosen: Any
    """[atom, 3], positions at which the terms of pairs were chosen, and"""
    chosen_cell: Any
    """[3, 3], the cell."""
    frames: Any
    """[5, 3, 3]: F, the cell cell₀ F, its inverse, F⁻¹ of the list, and the inverse of `chosen_cell`."""
    partial: Any
    """[sum, thread], for sums over the threads."""
    total: Any
    """[sum], their result."""


STRETCH, CELL, INVERSE, LISTED_AT, UNCHOSEN = range(5)
"""Of `Surface.frames`."""
N_FRAMES: Final = 5


class Geometry(NamedTuple):
    """What a potential sees of a workspace, through its `Tools`."""

    near: Any
    vector: Any
    counts: Any
    species: Any


def fresh_state() -> np.ndarray:
    """The numbers of a system before its first evaluation."""
    state = np.full(N_STATE, np.nan)
    state[STATUS], state[N_STEPS], state[N_STORED], state[NEWEST], state[SCALE] = FRESH, -1.0, 0.0, -1.0, SOFTNESS
    state[N_CHOICES], state[CHOSEN_AT] = 0.0, 0.0
    return state


def layout(n_atoms: int, potential: Potential, *, room: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of the arrays that grow with the system, with `room` for neighbours of an atom; of a `LongRanged`
    potential with half of it for those with short terms."""
    size = 3 * (n_atoms + STRAIN_ROWS)
    shapes = dict.fromkeys(("q", "gradient", "base", "base_gradient", "direction", "origin"), (size,))
    shapes |= {"moves": (MEMORY, size), "bends": (MEMORY, size), "curvature": (2, MEMORY)}
    near, numbers = (room // 2, 4) if isinstance(potential, LongRanged) else (room, 3)
    moments = potential.n_moments + potential.n_neighbor_moments * near
    shapes |= {"place": (3, n_atoms), "moments": (moments, n_atoms), "vector": (numbers, near, n_atoms)}
    integers = {"listed": (2, room + 1, n_atoms), "near": (near, n_atoms), "counts": (3, n_atoms)}
    found = {name: (shape, np.float64) for name, shape in shapes.items()}
    return found | {name: (shape, np.int32) for name, shape in integers.items()}
