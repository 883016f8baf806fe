"""Potential energies with any ASE calculator: of structures as they are, and after relaxing atoms and cell together.

A calculator comes as a function that makes one, such as `functools.partial(PotentialCalculator, StillingerWeber())`,
so that every process has its own.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from amden.io import from_ase, to_ase
from amden.structure import Structures

WORTH_A_PROCESS = 10
"""Structures that take about as long as to start a process."""

MakeCalculator = Callable[[], Calculator]
_Result = tuple[Atoms, float, bool]


@dataclass(frozen=True)
class Relaxation:
    """Structures at a minimum of their potential energy, or on the way to it."""

    structures: Structures
    energy: Float[np.ndarray, " systems"]
    """Potential energy in eV."""
    converged: Bool[np.ndarray, " systems"]
    """Whether the forces came below the tolerance."""


def potential_energies(structures: Structures, *, calculator: MakeCalculator) -> Float[np.ndarray, " systems"]:
    """Potential energy of each structure in eV, as it is.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> potential_energies(from_ase([bulk("Cu", cubic=True)]), calculator=EMT).round(2).tolist()
    [-0.02]
    """
    shared = calculator()
    energies = np.empty(len(structures))
    for i, atoms in enumerate(to_ase(structures)):
        atoms.calc = shared
        energies[i] = atoms.get_potential_energy()
    return energies


def relax(
    structures: Structures,
    *,
    calculator: MakeCalculator,
    fmax: float = 0.005,
    max_steps: int = 5000,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Relaxation:
    """Relax atoms and cell of each structure together, at zero pressure.

    A structure has converged when no force exceeds `fmax` in eV/Å, nor V |σ|/N in eV: for silicon 0.005 is 0.04 GPa.
    L-BFGS with a line search (scipy's L-BFGS-B), so the energy never rises, and at most `max_steps` steps. Structures
    go to `workers` processes (default: one a core if they are many; 1 works in this process); `progress` is told how
    many are done. Properties do not survive: they are of the structures as they were.

    Errors: `ValueError` for `fmax` or `max_steps` that is not positive.
    """
    if not (fmax > 0 and max_steps > 0):
        raise ValueError(f"`fmax` and `max_steps` must be positive, got {fmax} and {max_steps}")
    workers = workers or min(os.cpu_count() or 1, ceil(len(structures) / WORTH_A_PROCESS))
    one = partial(_relaxed, calculator=calculator, fmax=fmax, max_steps=max_steps)
    images = to_ase(structures.without_ghosts())
    if workers <= 1:
        results = _counted(map(one, images), progress)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            results = _counted(pool.map(one, images), progress)
    atoms, energies, converged = zip(*results, strict=True)
    return Relaxation(replace(from_ase(atoms), properties={}), np.array(energies), np.array(converged))


def _counted(results: Iterable[_Result], progress: Callable[[int], None] | None) -> list[_Result]:
    done = []
    for result in results:
        done.append(result)
        if progress is not None:
            progress(len(done))
    return done


def _relaxed(atoms: Atoms, *, calculator: MakeCalculator, fmax: float, max_steps: int) -> _Result:
    """Relaxed atoms, energy in eV, and whether they converged.

    Coordinates of the search are q and √N F with r = q F, cell = cell₀ F:

        ∂E/∂q = -f Fᵀ,  ∂E/∂F = V F⁻ᵀ σ

    The factor √N (Å) gives the cell about the stiffness of an atom, whatever the size of the structure.
    """
    n, cell = len(atoms), atoms.cell.array.copy()
    atoms.calc = calculator()

    def place(x: np.ndarray) -> np.ndarray:
        deformation = x[3 * n :].reshape(3, 3) / np.sqrt(n)
        atoms.set_cell(cell @ deformation)
        atoms.set_positions(x[: 3 * n].reshape(n, 3) @ deformation)
        return deformation

    def energy_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        deformation = place(x)
        along_q = -atoms.get_forces() @ deformation.T
        along_cell = atoms.get_volume() * np.linalg.solve(deformation.T, atoms.get_stress(voigt=False)) / np.sqrt(n)
        return atoms.get_potential_energy(), np.concatenate([along_q.ravel(), along_cell.ravel()])

    x = np.concatenate([atoms.positions.ravel(), np.sqrt(n) * np.eye(3).ravel()])
    while max_steps > 0 and not _converged(atoms, fmax):
        options = {"maxiter": max_steps, "maxfun": 2 * max_steps + 20, "gtol": fmax / 2.0, "ftol": 0.0, "maxcor": 30}
        found = minimize(energy_and_gradient, x, jac=True, method="L-BFGS-B", options=options)
        x = found.x
        place(x)
        max_steps = max_steps - found.nit if found.nit > 0 else 0
    energy, converged = float(atoms.get_potential_energy()), _converged(atoms, fmax)
    atoms.calc = None
    return atoms, energy, converged


def _converged(atoms: Atoms, fmax: float) -> bool:
    on_atoms = np.linalg.norm(atoms.get_forces(), axis=1).max()
    on_cell = np.linalg.norm(atoms.get_stress(voigt=False), axis=1).max() * atoms.get_volume() / len(atoms)
    return bool(max(on_atoms, on_cell) < fmax)
