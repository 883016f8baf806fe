"""The arrays that travel to a machine: positions as 32-bit fractions of the cell, everything else as it is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from amden.simulate.engine.state import MDState

_UNIT = 2.0**32


@dataclass(frozen=True)
class Systems:
    """A batch in the engine's own numbers. The machines write the results into these arrays."""

    fixed: Int32[np.ndarray, "atoms 3"]
    """Fractional coordinates times 2³², wrapped."""
    velocities: Float32[np.ndarray, "atoms 3"]
    """Å/ps."""
    kicks: Float32[np.ndarray, " atoms"]
    """Change of velocity in half a step by a unit force, Å/ps per eV/Å."""
    species: UInt8[np.ndarray, " atoms"]
    """Species numbers."""
    cell: Float64[np.ndarray, "systems 3 3"]
    """Å."""
    n_atoms: Int64[np.ndarray, " systems"]
    """Atoms in each system."""
    offsets: Int64[np.ndarray, " systems"]
    """First atom of each system."""
    seed: Int64[np.ndarray, " systems"]
    """Keys of the random numbers."""
    step: Int64[np.ndarray, " systems"]
    """Steps done."""
    record: Float64[np.ndarray, "systems numbers"]
    """See `coupling`."""

    @staticmethod
    def of(state: MDState, kicks: Float32[np.ndarray, " atoms"], *, record_size: int) -> "Systems":
        """The arrays of a state; nothing is shared with it."""
        n_atoms = state.n_atoms.astype(np.int64)
        fractions = np.empty_like(state.positions)
        inverses = np.linalg.inv(state.cell)
        for own, inverse in zip(_slices(n_atoms), inverses, strict=True):
            fractions[own] = state.positions[own] @ inverse
        fractions -= np.floor(fractions)
        fixed = (np.rint(fractions * _UNIT).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
        return Systems(
            fixed=fixed,
            velocities=state.velocities.copy(),
            kicks=kicks,
            species=state.species.copy(),
            cell=state.cell.copy(),
            n_atoms=n_atoms,
            offsets=np.cumsum(n_atoms) - n_atoms,
            seed=state.seed.astype(np.int64),
            step=state.step.astype(np.int64),
            record=np.zeros((len(n_atoms), record_size)),
        )

    def positions(self) -> Float64[np.ndarray, "atoms 3"]:
        """Cartesian positions in Å, inside the cell."""
        fractions = self.fixed.view(np.uint32) / _UNIT
        for own, cell in zip(_slices(self.n_atoms), self.cell, strict=True):
            fractions[own] = fractions[own] @ cell
        return fractions

    def diagonal(self) -> Bool[np.ndarray, " systems"]:
        """Systems whose cell is a diagonal matrix."""
        return (self.cell == self.cell * np.eye(3)).all(axis=(1, 2))


def _slices(n_atoms: Int64[np.ndarray, " systems"]) -> list[slice]:
    ends = np.cumsum(n_atoms).tolist()
    return [slice(end - n, end) for end, n in zip(ends, n_atoms.tolist(), strict=True)]
