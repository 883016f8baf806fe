"""What lies where on a GPU: the arrays of a block in shared memory, or those that do not fit in global memory."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from amden.simulate.engine.coupling import N_SUMS
from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.potentials.potential import Potential

SKIN: Final = 1.0
"""Å; only the speed depends on it."""

_SHARED = 48 * 1024 - 256
"""Bytes of static shared memory of a block, less those of the arrays that are not counted by atoms."""
_BYTES_ALWAYS = 12 + 1 + 2
"""Of an atom: position, species, two lengths of lists."""
_BYTES_MOTION = 3 * 12 + 4
"""Origin, velocity, force; kick."""
_BYTES_FAR, _BYTES_CONTACT = 4, 16
"""Charge; and four numbers of each pair of species."""
FAR_ROWS: Final = 1200
"""Neighbours that the sums over far pairs have room for: those of 0.13 atoms an Å³ within 13 Å, in global memory."""
CONTACT_ROWS: Final = 320
"""The same for the contact term, of 0.15 atoms an Å³ within 8 Å."""


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
    far: int = 0
    """Pairs of species whose contact terms lie in shared memory; 0 where there are no sums over far pairs."""

    @staticmethod
    def of(potential: Potential, capacity: int) -> "Memory":
        """Room for `potential.most_near` neighbours, and in the list for as many more as the skin holds at one density.

        >>> from amden.simulate.potentials import StillingerWeber
        >>> Memory.of(StillingerWeber(), 256)
        Memory(capacity=256, moments=9, listed=64, near=32, far=0)
        """
        bonded = potential.bonded if isinstance(potential, LongRanged) else potential
        near = bonded.most_near
        cutoffs = [cutoff for row in bonded.cutoffs for cutoff in row if cutoff > 0.0]
        listed = math.ceil(
            near * sum((cutoff + SKIN) ** 3 for cutoff in cutoffs) / sum(cutoff**3 for cutoff in cutoffs)
        )
        moments = bonded.n_moments + bonded.n_neighbor_moments * near
        far = len(potential.pair_sums.contacts) if isinstance(potential, LongRanged) else 0
        return Memory(capacity, max(moments, N_SUMS), min(listed, capacity) + 1, near + 1, far)

    @property
    def index(self) -> Any:
        """Type of the entries of lists."""
        return np.uint8 if self.capacity <= 256 else np.uint16

    @property
    def shared_lists(self) -> bool:
        """Whether moments and lists fit into shared memory."""
        lists = (self.listed + self.near) * np.dtype(self.index).itemsize
        return self._fits(_BYTES_MOTION + 4 * self.moments + lists)

    @property
    def shared_moments(self) -> bool:
        """Whether at least the moments fit, beside the motion."""
        return self._fits(_BYTES_MOTION + 4 * self.moments)

    @property
    def shared_motion(self) -> bool:
        """Whether at least what is read once a step fits: velocities, forces, positions at the time of the lists."""
        return self._fits(_BYTES_MOTION)

    def _fits(self, more: int) -> bool:
        far = _BYTES_FAR if self.far else 0
        return self.capacity * (_BYTES_ALWAYS + far + more) + _BYTES_CONTACT * self.far <= _SHARED

    def elsewhere(self, n_blocks: int) -> list[tuple[tuple[int, int, int], Any]]:
        """Shape and type of what global memory holds: lists, neighbours, moments, motion, and what far pairs need.

        Where it is unused, it is small.
        """
        lists, moments, motion = (
            1 if shared else n_blocks for shared in (self.shared_lists, self.shared_moments, self.shared_motion)
        )
        far, capacity = (n_blocks, self.capacity) if self.far else (1, 1)
        return [
            ((lists, self.listed, self.capacity), self.index),
            ((lists, self.near, self.capacity), self.index),
            ((moments, self.moments, self.capacity), np.float32),
            ((motion, 3, self.capacity), np.int32),
            ((motion, 7, self.capacity), np.float32),
            ((far, FAR_ROWS, capacity), np.uint16),
            ((far, CONTACT_ROWS, capacity), np.uint16),
            ((far, 3, capacity), np.int32),
        ]
