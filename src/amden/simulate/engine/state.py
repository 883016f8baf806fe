"""What goes into the engine and what comes out: states, segments of a run, records."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int64, UInt8


@dataclass(frozen=True)
class MDState:
    """A flat batch of independent periodic systems, atoms concatenated.

    Positions are float64 only so that handing a state on loses nothing: the engine itself keeps them as 32-bit
    fractions of the cell.
    """

    positions: Float64[np.ndarray, "atoms 3"]
    """Å; the engine returns them wrapped into the cell."""
    velocities: Float32[np.ndarray, "atoms 3"]
    """Å/ps, total momentum zero in each system."""
    cell: Float64[np.ndarray, "systems 3 3"]
    """Lattice vectors as rows, Å."""
    species: UInt8[np.ndarray, " atoms"]
    """Species numbers of the potential."""
    n_atoms: Int[np.ndarray, " systems"]
    """Atoms in each system."""
    seed: Int64[np.ndarray, " systems"]
    """Key of each system's random numbers."""
    step: Int64[np.ndarray, " systems"]
    """Steps done since the start: the counter of the random numbers."""

    def __post_init__(self) -> None:
        n_systems, n_atoms = len(self.cell), len(self.positions)
        if len(self.n_atoms) == 0 or len(self.n_atoms) != n_systems or int(self.n_atoms.sum()) != n_atoms:
            raise ValueError(f"`n_atoms` must hold one count a cell and sum to {n_atoms}, got {self.n_atoms}")
        if self.n_atoms.min() < 2:
            raise ValueError(f"`n_atoms` must be at least 2, got {self.n_atoms.min()}")
        for name, length in (("velocities", n_atoms), ("species", n_atoms), ("seed", n_systems), ("step", n_systems)):
            if len(getattr(self, name)) != length:
                raise ValueError(f"`{name}` must have length {length}, got {len(getattr(self, name))}")

    @property
    def n_systems(self) -> int:
        """Number of systems."""
        return len(self.n_atoms)

    @property
    def offsets(self) -> Int64[np.ndarray, " systems"]:
        """First atom of each system."""
        return np.cumsum(self.n_atoms, dtype=np.int64) - self.n_atoms


@dataclass(frozen=True)
class Segment:
    """A stretch of a run under constant conditions or a linear ramp of the temperature."""

    n_steps: int
    """Length of the whole segment, over which the temperature ramps."""
    timestep: float = 0.002
    """ps."""
    temperature: tuple[float, float] | None = None
    """K at the start and at the end; None: no thermostat (NVE)."""
    pressure: float | None = None
    """GPa; None: constant volume."""
    tau_T: float = 0.1  # noqa: N815
    """Relaxation time of the thermostat, ps."""
    tau_P: float = 1.0  # noqa: N815
    """Relaxation time of the barostat, ps, for a material of this `compressibility`."""
    compressibility: float = 0.02
    """1/GPa, roughly; scales the speed of the barostat and nothing else."""
    interval: int = 10
    """Thermostat, barostat and samples every this many steps."""
    max_displacement: float | None = None
    """Soft start from overlaps: no atom moves farther than this in a step, Å. None: true dynamics."""

    def __post_init__(self) -> None:
        for name in ("n_steps", "interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("timestep", "tau_T", "tau_P", "compressibility", "max_displacement"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise ValueError(f"`{name}` must be positive, got {value}")
        if self.temperature is None and self.pressure is not None:
            raise ValueError("`pressure` needs a `temperature`: the barostat samples the NPT ensemble")
        if self.max_displacement is not None and self.pressure is not None:
            raise ValueError("`max_displacement` needs constant volume: overlaps have no pressure worth following")
        if self.temperature is not None and not all(0.0 < t < float("inf") for t in self.temperature):
            raise ValueError(f"`temperature` must be positive, got {self.temperature}")
        if self.pressure is not None and not abs(self.pressure) < float("inf"):
            raise ValueError(f"`pressure` must be finite, got {self.pressure}")


@dataclass(frozen=True)
class Observables:
    """One number a system of each quantity."""

    temperature: Float64[np.ndarray, " systems"]
    """K, from the velocities half a step after the positions, which the thermostat holds."""
    potential_energy: Float64[np.ndarray, " systems"]
    """eV an atom."""
    total_energy: Float64[np.ndarray, " systems"]
    """eV an atom, kinetic energy at the time of the positions: the conserved quantity of NVE."""
    pressure: Float64[np.ndarray, " systems"]
    """GPa, kinetic part included."""
    volume: Float64[np.ndarray, " systems"]
    """Å³."""


@dataclass(frozen=True)
class Record:
    """What a run measured."""

    mean: Observables
    """Over the samples of the run, one every `interval` steps and the last."""
    deviation: Observables
    """Standard deviation over the same samples."""
    final: Observables
    """After the last step."""
    n_samples: Int64[np.ndarray, " systems"]
    """Number of samples."""
    failure: Int64[np.ndarray, " systems"]
    """0: none; else a key of `FAILURES`. A failed system stops where it is and leaves the others alone."""

    @property
    def failed(self) -> Bool[np.ndarray, " systems"]:
        """Systems whose state is no longer physical."""
        return self.failure != 0


FAILURES = {
    1: "energies or velocities are not finite: the system blew up",
    2: "an atom has more neighbours than the engine has room for",
    3: "the cell shrank until an atom meets its own images within the cutoff",
}
"""What each value of `Record.failure` means."""
