"""The arrays that travel to a machine: positions as 32-bit fractions of the cell, everything else as it is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64, UInt8

from amden.simulate.engine.state import MDState

_UNIT = 2.0**32
_CHUNK = 64
"""Systems."""


@dataclass(frozen=True)
class Plans:
    """What each system of a batch is to do."""

    steps: Int64[np.ndarray, "systems 4"]
    """Steps to do, interval of thermostat and barostat, first step within the segment, length of the segment."""
    numbers: Float64[np.ndarray, "systems numbers"]
    """The segment in the numbers and the order of `coupling`."""


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
        fixed = np.empty(state.positions.shape, np.int32)
        for systems, atoms in _chunks(n_atoms):
            scaled = _product(state.positions[atoms], np.linalg.inv(state.cell[systems]) * _UNIT, n_atoms[systems])
            if np.abs(scaled).max() >= 2.0**62:
                raise ValueError("`positions` must be within 10⁹ cells of the origin")
            fixed[atoms] = np.rint(scaled, out=scaled).astype(np.int64).astype(np.uint32).view(np.int32)
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
        positions = np.empty(self.fixed.shape)
        for systems, atoms in _chunks(self.n_atoms):
            scaled = self.fixed[atoms].view(np.uint32).astype(np.float64)
            positions[atoms] = _product(scaled, self.cell[systems] / _UNIT, self.n_atoms[systems])
        return positions

    def diagonal(self) -> Bool[np.ndarray, " systems"]:
        """Systems whose cell is a diagonal matrix."""
        return (self.cell == self.cell * np.eye(3)).all(axis=(1, 2))


def transformed(
    vectors: Float64[np.ndarray, "atoms 3"],
    matrices: Float64[np.ndarray, "systems 3 3"],
    n_atoms: Int[np.ndarray, " systems"],
) -> Float64[np.ndarray, "atoms 3"]:
    """Each vector times the matrix of its system: fractions to Cartesian coordinates with the cells, and back with
    their inverses."""
    result, n_atoms = np.empty(vectors.shape), n_atoms.astype(np.int64)
    for systems, atoms in _chunks(n_atoms):
        result[atoms] = _product(vectors[atoms], matrices[systems], n_atoms[systems])
    return result


def _chunks(n_atoms: Int64[np.ndarray, " systems"]) -> Iterator[tuple[slice, slice]]:
    """Systems and their atoms in parts that stay in the cache."""
    ends = np.concatenate([[0], np.cumsum(n_atoms)])
    for first in range(0, len(n_atoms), _CHUNK):
        last = min(first + _CHUNK, len(n_atoms))
        yield slice(first, last), slice(int(ends[first]), int(ends[last]))


def _product(
    vectors: Float64[np.ndarray, "atoms 3"],
    matrices: Float64[np.ndarray, "systems 3 3"],
    n_atoms: Int64[np.ndarray, " systems"],
) -> Float64[np.ndarray, "atoms 3"]:
    """Each vector times the matrix of its system, term by term: BLAS rounds differently in another batch."""
    if (n_atoms == n_atoms[0]).all():
        v, m = vectors.reshape(len(n_atoms), -1, 3), matrices[:, None]
    else:
        v, m = vectors, np.repeat(matrices, n_atoms, axis=0)
    result = np.empty_like(v)
    for d in range(3):
        result[..., d] = v[..., 0] * m[..., 0, d] + v[..., 1] * m[..., 1, d] + v[..., 2] * m[..., 2, d]
    return result.reshape(-1, 3)
