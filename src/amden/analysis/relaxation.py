"""Potential energies with any ASE calculator: of structures as they are, and after relaxing atoms and cell together.

A calculator comes as a function that makes one, such as `functools.partial(PotentialCalculator, StillingerWeber())`,
so that every process has its own.
"""

import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from ase.optimize.precon import PreconLBFGS
from jaxtyping import Bool, Float

from amden.io import from_ase, to_ase
from amden.structure import Structures

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
    max_steps: int = 500,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Relaxation:
    """Relax atoms and cell of each structure together until no force exceeds `fmax` in eV/Å.

    The cell moves by ASE's `FrechetCellFilter`, under the same tolerance for its generalised forces (V σ / N, in eV).
    L-BFGS with a line search does most; where it gives up, L-BFGS with short steps goes on. At most `max_steps` steps
    of each. Structures go to `workers` processes (default: one a core; 1 works in this process); `progress` is told
    how many are done. Properties do not survive: they are of the structures as they were.

    Errors: `ValueError` for `fmax` or `max_steps` that is not positive.
    """
    if not (fmax > 0 and max_steps > 0):
        raise ValueError(f"`fmax` and `max_steps` must be positive, got {fmax} and {max_steps}")
    workers = min(len(structures), workers or os.cpu_count() or 1)
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
    """Relaxed atoms, energy in eV, and whether they converged."""
    atoms.calc = calculator()
    moving = FrechetCellFilter(atoms)
    with _quiet():
        converged = _line_search(moving, fmax, max_steps) or _short_steps(moving, fmax, max_steps)
    energy = float(atoms.get_potential_energy())
    atoms.calc = None
    return atoms, energy, bool(converged)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ASE says of steps that it mends itself; whether a structure converged is told by the result."""
    log = logging.getLogger("ase.utils.linesearcharmijo")
    disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "logm result may be inaccurate")
            warnings.filterwarnings("ignore", "Armijo linesearch failed")
            yield
    finally:
        log.disabled = disabled


# ASE's annotations are narrower than what it takes: filters for atoms, None for no log and no preconditioner


def _line_search(moving: Any, fmax: float, max_steps: int) -> bool:
    """L-BFGS with a line search; False where it gives up or comes to the end of its steps."""
    none: Any = None
    try:
        return bool(PreconLBFGS(moving, logfile=none, precon=none).run(fmax=fmax, steps=max_steps))
    except RuntimeError:
        return False


def _short_steps(moving: Any, fmax: float, max_steps: int) -> bool:
    """L-BFGS without a line search, which may go uphill."""
    none: Any = None
    return bool(LBFGS(moving, logfile=none, maxstep=0.1, memory=50).run(fmax=fmax, steps=max_steps))
