"""The memory of one relaxation, and what differs between the machines that work in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

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
N_STATE: Final = 22

FRESH, RUNNING, CONVERGED, OUT_OF_STEPS, STUCK, BAD_START, NO_ROOM = range(7)
"""Values of `state[STATUS]`."""

PRESSURE, FORCE_TOLERANCE, STRESS_TOLERANCE, MAX_STEPS, FREE_CELL = range(5)
"""What all systems share, `plan[...]`, in eV and Å."""
N_PLAN: Final = 5


HISTORY: Final = ("moves", "bends", "curvature")
"""Arrays of `Workspace` whose last axis is not that of the atoms."""


@dataclass(frozen=True)
class Machine:
    """What the kernel is compiled with."""

    jit: Callable[[Callable], Any]
    """Compiles a device function."""
    index: type
    """Unsigned type to count neighbours with."""
    sync: Any
    """Waits for all threads of the system."""
    any: Any
    """Whether the argument is true in any thread of the system; waits for all of them."""


class Workspace(NamedTuple):
    """The arrays of one system. Coordinates are flat, [component, row], with the rows of the cell after the atoms."""

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
    origin: Any
    """Coordinates when the neighbours were listed."""
    place: Any
    """[3, atom], Cartesian positions under trial."""
    moments: Any
    """[moment, atom], what the potential keeps between its phases."""
    listed: Any
    """[neighbour, atom], atoms on the neighbour list."""
    image: Any
    """[neighbour, atom], which image of them (`lists`)."""
    n_listed: Any
    """[atom], their number."""
    near: Any
    """[neighbour, atom], atoms within the cutoff."""
    vector: Any
    """[3, neighbour, atom], vectors to them."""
    n_near: Any
    """[atom], their number."""
    species: Any
    """[atom], species numbers."""
    stretch: Any
    """[3, 3], F."""
    cell: Any
    """[3, 3], cell₀ F."""
    inverse: Any
    """[3, 3], its inverse."""
    listed_at: Any
    """[3, 3], inverse of the stretch when the neighbours were listed."""
    partial: Any
    """[sum, thread]."""
    total: Any
    """[sum], what `surface` measured."""
    dot: Any
    """[1], the last scalar product."""


class Geometry(NamedTuple):
    """What a potential sees of a workspace, through its `Tools`."""

    near: Any
    vector: Any
    n_near: Any
    species: Any


def fresh_state() -> np.ndarray:
    """The numbers of a system before its first evaluation."""
    state = np.full(N_STATE, np.nan)
    state[STATUS], state[N_STEPS], state[N_STORED], state[NEWEST], state[SCALE] = FRESH, -1.0, 0.0, -1.0, SOFTNESS
    return state


def layout(n_atoms: int, potential: Potential, *, room: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of the large arrays, in the order of `Workspace`; `room` neighbours an atom."""
    size = 3 * (n_atoms + STRAIN_ROWS)
    shapes = dict.fromkeys(("q", "gradient", "base", "base_gradient", "direction"), (size,))
    shapes |= {"moves": (MEMORY, size), "bends": (MEMORY, size), "curvature": (2, MEMORY), "origin": (size,)}
    moments = potential.n_moments + potential.n_neighbor_moments * room
    shapes |= {"place": (3, n_atoms), "moments": (moments, n_atoms)}
    lists = {"listed": (room + 1, n_atoms), "image": (room + 1, n_atoms), "n_listed": (n_atoms,)}
    lists |= {"near": (room, n_atoms), "n_near": (n_atoms,)}
    found = {name: (shape, np.float64) for name, shape in (shapes | {"vector": (3, room, n_atoms)}).items()}
    found |= {name: (shape, np.int32) for name, shape in lists.items()}
    return {name: found[name] for name in Workspace._fields if name in found}
