"""What lies where on a GPU: the arrays of a block in shared memory, or those that do not fit in global memory."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from amden.simulate.engine.coupling import N_SUMS
from amden.simulate.potentials.potential import Potential

SKIN: Final = 1.0
"""Å; only the speed depends on it."""

_SHARED = 48 * 1024 - 256
"""Bytes of static shared memory of a block, less those of the arrays that are not counted by atoms."""
_BYTES_ALWAYS = 4 * 12 + 4 + 1 + 2
"""Of an atom: positions, their origin, velocity, force; kick; species; two lengths of lists."""


@dataclass(frozen=True)
class Memory:
    """The arrays of a block whose size depends on the potential."""

    capacity: int
    """Atoms."""
    moments: int
    """Numbers of an atom that the potential keeps between its phases, or those that the sums over a system need."""
    listed: int
    """Rows of the neighbour list; the last is spare."""
    near: int
    """Rows of the neighbours within the cutoff; the last is spare."""

    @staticmethod
    def of(potential: Potential, capacity: int) -> "Memory":
        """Room for `potential.most_near` neighbours, and in the list for as many more as the skin holds at one density.

        >>> from amden.simulate.potentials import StillingerWeber
        >>> Memory.of(StillingerWeber(), 256)
        Memory(capacity=256, moments=9, listed=64, near=32)
        """
        near = potential.most_near
        cutoffs = [cutoff for row in potential.cutoffs for cutoff in row]
        listed = math.ceil(
            near * sum((cutoff + SKIN) ** 3 for cutoff in cutoffs) / sum(cutoff**3 for cutoff in cutoffs)
        )
        moments = potential.n_moments + potential.n_neighbor_moments * near
        return Memory(capacity, max(moments, N_SUMS), min(listed, capacity) + 1, near + 1)

    @property
    def index(self) -> Any:
        """Type of the entries of lists."""
        return np.uint8 if self.capacity <= 256 else np.uint16

    @property
    def shared_lists(self) -> bool:
        """Whether moments and lists fit into shared memory."""
        lists = (self.listed + self.near) * np.dtype(self.index).itemsize
        return self.capacity * (_BYTES_ALWAYS + 4 * self.moments + lists) <= _SHARED

    @property
    def shared_moments(self) -> bool:
        """Whether at least the moments fit."""
        return self.capacity * (_BYTES_ALWAYS + 4 * self.moments) <= _SHARED

    def elsewhere(self, n_blocks: int) -> list[tuple[tuple[int, int, int], Any]]:
        """Shape and type of what global memory holds of lists, neighbours and moments: one block where it is unused."""
        lists, moments = (1 if shared else n_blocks for shared in (self.shared_lists, self.shared_moments))
        return [
            ((lists, self.listed, self.capacity), self.index),
            ((lists, self.near, self.capacity), self.index),
            ((moments, self.moments, self.capacity), np.float32),
        ]
