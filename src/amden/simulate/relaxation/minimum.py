"""The face of the relaxation: checks, units, and the way to the device and back."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int, Int64

from amden.simulate.potentials import Potential
from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.relaxation import terms
from amden.simulate.relaxation import workspace as w
from amden.simulate.relaxation.batch import Batch
from amden.units import EV_PER_A3_IN_GPA

_ROOM, _MOST_ROOM = 48, 3072
"""Neighbours an atom may have on the list: at first, and before the system is given up."""


@dataclass(frozen=True)
class Relaxation:
    """Result of `relax`: each system at a minimum of its enthalpy, or where its relaxation ended."""

    positions: Float64[np.ndarray, "atoms 3"]
    """Å; not wrapped."""
    cell: Float64[np.ndarray, "systems 3 3"]
    """Lattice vectors as rows, Å: those of the start times a symmetric matrix, so stretched and not rotated."""
    energy: Float64[np.ndarray, " systems"]
    """Potential energy in eV; nan where there was none to start with (two atoms in the same place)."""
    max_force: Float64[np.ndarray, " systems"]
    """Largest force on an atom, eV/Å."""
    max_stress: Float64[np.ndarray, " systems"]
    """Largest component of σ + P, GPa, in a fixed cell as well."""
    stress: Float64[np.ndarray, "systems 3 3"]
    """(1/V) ∂E/∂ε in eV/Å³, tension positive."""
    n_steps: Int64[np.ndarray, " systems"]
    """Steps done."""
    converged: Bool[np.ndarray, " systems"]
    """Whether the tolerances were met."""


def relax(
    potential: Potential,
    positions: Float64[np.ndarray, "atoms 3"],
    cells: Float64[np.ndarray, "systems 3 3"],
    n_atoms: Int[np.ndarray, " systems"],
    *,
    species: Int[np.ndarray, " atoms"] | None = None,
    cell: Literal["variable", "fixed"] = "variable",
    pressure: float = 0.0,
    force_tolerance: float = 0.005,
    stress_tolerance: float = 0.01,
    max_steps: int = 5000,
    unstrained: Float64[np.ndarray, "rest 3 3"] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: Callable[[int], None] | None = None,
) -> Relaxation:
    """Relaxes each system of a flat batch to a minimum of E + P V over atoms and cell, or of E over the atoms.

    A system has converged when no force exceeds `force_tolerance` (eV/Å) and, if the cell is variable, no component of
    σ + P `stress_tolerance` (GPa). Each stops on its own, after at most `max_steps` steps. L-BFGS in float64, with a
    line search: the enthalpy falls with every step. `species` are numbers into `potential.symbols`, all 0 when left
    out; `progress` is told how many systems are done; `auto` is CUDA where there is a GPU and `numba-cuda`.

    The energy of a `LongRanged` potential jumps where a pair of atoms crosses a cutoff within it, so each pair keeps
    the terms that it has at the start; near a minimum they are chosen anew and the relaxation goes on, up to three
    times, and wherever an atom has strayed by 1.5 Å since. Energy, forces and convergence are those of the last choice.
    With `unstrained`, the cells from which those of the start were strained, the terms are those before the strain, and
    are kept.

    A system depends on nothing else in its batch. One without a finite energy at the start has not converged, and is
    returned as it was.

    Errors: `ValueError` for arrays that do not fit together or are not finite, cells without volume, tolerances that
    are not positive, and a device that is not there.

    >>> from amden.simulate.potentials import StillingerWeber
    >>> cell = 5.5 / 2 * np.array([[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    >>> diamond = np.array([[0.0, 0.0, 0.0], [1.3, 1.4, 1.4]])
    >>> found = relax(StillingerWeber(), diamond, cell, np.array([2]), device="cpu")
    >>> bool(found.converged[0]), round(float(found.energy[0]) / 2, 4), round(2 * float(found.cell[0, 0, 1]), 2)
    (True, -4.3366, 5.43)
    """
    species = np.zeros(len(positions), np.int64) if species is None else species.astype(np.int64)
    _check_systems(potential, positions, cells, n_atoms, species)
    plan = _plan(cell, pressure, force_tolerance, stress_tolerance, max_steps)
    plan[w.MOST_CHOICES] = terms.MOST_CHOICES if unstrained is None else 0
    n_atoms = n_atoms.astype(np.int64)
    offsets = np.cumsum(n_atoms) - n_atoms
    images = np.floor(_moved(positions, np.linalg.inv(cells), n_atoms))
    inside = positions - _moved(images, cells, n_atoms)
    chosen, chosen_cells = inside.copy(), cells.copy()
    if unstrained is not None:
        if unstrained.shape != cells.shape:
            raise ValueError(f"`unstrained` must be {len(cells)} cells, got {list(unstrained.shape)}")
        chosen, chosen_cells = _moved(inside, np.linalg.inv(cells) @ unstrained, n_atoms), unstrained.copy()
    state = np.tile(w.fresh_state(), (len(cells), 1))
    batch = Batch(
        inside, species, np.ascontiguousarray(cells), cells.copy(), chosen, chosen_cells, n_atoms, offsets, state, plan
    )
    _run(batch, potential, device, progress)
    return _result(batch, images)


def _run(batch: Batch, potential: Potential, device: str, progress: Callable[[int], None] | None) -> None:
    """All systems; those that want more room for neighbours once more from the start, with twice the room."""
    advance = _advance(device)
    room, done = max(_ROOM, potential.most_near) if isinstance(potential, LongRanged) else _ROOM, 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        if n > 0 and progress is not None:
            progress(done)

    order = np.arange(len(batch.cells))
    while len(order) and room <= _MOST_ROOM:
        advance(batch, potential, order, room=room, progress=count)
        order = order[batch.state[order, w.STATUS] == w.NO_ROOM]
        batch.state[order] = w.fresh_state()
        room *= 2
    count(len(order))


def _advance(device: str) -> Callable[..., None]:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"`device` must be 'auto', 'cpu' or 'cuda', got {device!r}")
    usable = torch.cuda.is_available() and find_spec("numba_cuda") is not None
    if device == "cuda" or (device == "auto" and usable):
        from amden.simulate.relaxation.cuda import advance
    else:
        from amden.simulate.relaxation.cpu import advance
    return advance


def _check_systems(
    potential: Potential, positions: np.ndarray, cells: np.ndarray, n_atoms: np.ndarray, species: np.ndarray
) -> None:
    if len(cells) == 0 or len(n_atoms) != len(cells) or int(np.sum(n_atoms)) != len(positions):
        raise ValueError(f"`n_atoms` must hold one count a cell and sum to {len(positions)} atoms, got {n_atoms}")
    if np.min(n_atoms) < 1:
        raise ValueError(f"`n_atoms` must be positive, got {np.min(n_atoms)}")
    for name, values, of in (
        ("positions", positions, np.repeat(np.arange(len(cells)), n_atoms)),
        ("cells", cells, None),
    ):
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if len(bad):
            raise ValueError(
                f"`{name}` of system {bad[0] if of is None else of[bad[0]]} must be finite, got nan or inf"
            )
    volumes = np.abs(np.linalg.det(cells))
    if volumes.min() < 1e-6:
        raise ValueError(f"`cells` must enclose a volume, got {volumes.min()} Å³ in system {volumes.argmin()}")
    if len(species) != len(positions) or species.min() < 0 or species.max() >= len(potential.symbols):
        raise ValueError(f"`species` must be one number an atom, below {len(potential.symbols)}")


def _plan(
    cell: str, pressure: float, force_tolerance: float, stress_tolerance: float, max_steps: int
) -> Float64[np.ndarray, " settings"]:
    """The settings in the numbers and the order of `workspace`."""
    if cell not in ("variable", "fixed"):
        raise ValueError(f"`cell` must be 'variable' or 'fixed', got {cell!r}")
    if not abs(pressure) < float("inf"):
        raise ValueError(f"`pressure` must be finite, got {pressure}")
    for name, value in (("force_tolerance", force_tolerance), ("stress_tolerance", stress_tolerance)):
        if not value > 0.0:
            raise ValueError(f"`{name}` must be positive, got {value}")
    if max_steps < 1:
        raise ValueError(f"`max_steps` must be positive, got {max_steps}")
    plan = np.empty(w.N_PLAN)
    plan[w.PRESSURE] = pressure / EV_PER_A3_IN_GPA
    plan[w.FORCE_TOLERANCE], plan[w.STRESS_TOLERANCE] = force_tolerance, stress_tolerance / EV_PER_A3_IN_GPA
    plan[w.MAX_STEPS], plan[w.FREE_CELL] = max_steps, cell == "variable"
    return plan


def _moved(
    fractions: Float64[np.ndarray, "atoms 3"],
    cells: Float64[np.ndarray, "systems 3 3"],
    n_atoms: Int64[np.ndarray, " systems"],
) -> Float64[np.ndarray, "atoms 3"]:
    """Each vector times the matrix of its system."""
    return np.einsum("ai,aij->aj", fractions, np.repeat(cells, n_atoms, axis=0))


def _result(batch: Batch, images: Float64[np.ndarray, "atoms 3"]) -> Relaxation:
    state = batch.state
    stress = state[:, [w.XX, w.XY, w.XZ, w.XY, w.YY, w.YZ, w.XZ, w.YZ, w.ZZ]].reshape(-1, 3, 3)
    return Relaxation(
        positions=batch.positions + _moved(images, batch.relaxed_cells, batch.n_atoms),
        cell=batch.relaxed_cells,
        energy=state[:, w.ENERGY],
        max_force=np.sqrt(state[:, w.FORCE2]),
        max_stress=state[:, w.MAX_STRESS] * EV_PER_A3_IN_GPA,
        stress=stress / np.abs(np.linalg.det(batch.relaxed_cells))[:, None, None],
        n_steps=np.maximum(state[:, w.N_STEPS], 0).astype(np.int64),
        converged=state[:, w.STATUS] == w.CONVERGED,
    )
