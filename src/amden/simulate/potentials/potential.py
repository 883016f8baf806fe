"""The seam between a potential and whoever evaluates it.

A potential writes its formulas once, as plain Python functions of one atom and its neighbours. `Tools` brings what
differs between the places where they run: compiler, precision, arithmetic, where neighbours are found, how much of the
virial is wanted. So the same lines serve `evaluate` (float64, any cell) and the engine (float32, CPU and CUDA).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Tools:
    """What the kernels of a potential are compiled with."""

    jit: Callable[[Callable], Any]
    """Compiles a function that is called from other compiled functions."""
    real: type
    """Type of every floating point constant: `numpy.float32` or `numpy.float64`."""
    index: type
    """Unsigned type to count neighbours with, in `while` loops: on CUDA, Numba's `range` and its care for negative
    indices cost more instructions a turn than some neighbours do."""
    exp: Any
    """exp(x)."""
    log: Any
    """log(x)."""
    sin: Any
    """sin(x), 0 ≤ x ≤ π/2."""
    cos: Any
    """cos(x), 0 ≤ x ≤ π/2."""
    acos: Any
    """arccos(x), -1 ≤ x ≤ 1."""
    rsqrt: Any
    """1/√x."""
    inverse: Any
    """1/x."""
    n_near: Any
    """`n_near(geometry, i)`: number of neighbours of atom i within the cutoff."""
    neighbor: Any
    """`neighbor(geometry, i, k)`: index j of the k-th neighbour and the vector x, y, z in Å from i to it."""
    span2: Any
    """`span2(geometry, i, k, r2)`: the square of a distance, in Å², that cutoffs within a potential are compared with:
    `r2`, that of the k-th neighbour of atom i, unless the terms of a pair are held while atoms move."""
    species: Any
    """`species(geometry, i)`: species number of atom i."""
    no_virial: Any
    """`no_virial()`: an empty sum over `add_virial`."""
    add_virial: Any
    """`add_virial(sum, x, y, z, gx, gy, gz)`: the sum plus r ⊗ g, or its trace."""


@runtime_checkable
class Potential(Protocol):
    """What the engine, `evaluate` and the calculator need of a potential. Instances are hashable."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Chemical symbols of the species; species number k is `symbols[k]`."""
        ...

    @property
    def cutoff(self) -> float:
        """Distance in Å beyond which atoms do not see each other."""
        ...

    @property
    def cutoffs(self) -> tuple[tuple[float, ...], ...]:
        """The same for each pair of species; `cutoff` is the longest."""
        ...

    @property
    def most_near(self) -> int:
        """More neighbours within the cutoffs than an atom has in any state worth simulating: the room for them on CUDA,
        where memory is short. A system that asks for more is stopped."""
        ...

    @property
    def n_moments(self) -> int:
        """Numbers stored for each atom between the two phases."""
        ...

    @property
    def n_neighbor_moments(self) -> int:
        """Numbers stored on top of these for each neighbour of an atom."""
        ...

    def phases(self, tools: Tools) -> tuple[Any, Any]:
        """The compiled kernels `first(i, geometry, moments)` and `second(i, geometry, moments)`.

        All atoms pass the first phase, which fills `moments[:, i]`, before any enters the second, which may read the
        moments of the neighbours and returns fx, fy, fz in eV/Å, the energy of the atom in eV and Σ r ⊗ ∂E/∂r over
        its neighbour vectors r, summed with `add_virial`: each pair is met from both ends, so half of the sum over
        the atoms is the virial.
        """
        ...
