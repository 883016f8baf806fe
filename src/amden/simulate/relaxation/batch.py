"""The systems of one call, as the machines take them and hand them back."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True)
class Batch:
    """A flat batch. The machines write into `positions`, `relaxed_cells` and `state`."""

    positions: Float64[np.ndarray, "atoms 3"]
    """Å; before the stretch until the system is done, after it then."""
    species: Int64[np.ndarray, " atoms"]
    """Species numbers."""
    cells: Float64[np.ndarray, "systems 3 3"]
    """Lattice vectors as rows, at the start."""
    relaxed_cells: Float64[np.ndarray, "systems 3 3"]
    """At the last step."""
    chosen: Float64[np.ndarray, "atoms 3"]
    """Positions at which the terms of pairs are chosen at first (`terms`)."""
    chosen_cells: Float64[np.ndarray, "systems 3 3"]
    """Cells of these."""
    n_atoms: Int64[np.ndarray, " systems"]
    """Atoms in each system."""
    offsets: Int64[np.ndarray, " systems"]
    """First atom of each system."""
    state: Float64[np.ndarray, "systems numbers"]
    """See `workspace`."""
    plan: Float64[np.ndarray, " settings"]
    """See `workspace`."""

    def own(self, s: int) -> slice:
        """The atoms of system s."""
        return slice(int(self.offsets[s]), int(self.offsets[s] + self.n_atoms[s]))
