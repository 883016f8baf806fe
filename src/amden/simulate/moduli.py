"""Stresses after relaxing atoms in fixed cells, for the elastic constants of `analysis.elastic`.

Both factories give a callable of positions, cells, numbers of atoms and atomic numbers, as that module asks for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from jaxtyping import Bool, Float64

from amden.elements import atomic_number, symbol
from amden.simulate.ase_relaxation import relax_atoms
from amden.simulate.potentials import Potential
from amden.simulate.relaxation import Relaxation, relax


@dataclass(frozen=True)
class RelaxedStress:
    """Stress of systems whose atoms were relaxed in fixed cells."""

    stress: Float64[np.ndarray, "systems 3 3"]
    """In eV/Å³, tension positive."""
    converged: Bool[np.ndarray, " systems"]
    """Whether no force exceeds the tolerance."""


def relaxed_stress(
    potential: Potential,
    *,
    force_tolerance: float = 1e-5,
    max_steps: int = 5000,
    unstrained: Float64[np.ndarray, "systems 3 3"] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: Callable[[int], None] | None = None,
) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], Relaxation]:
    """A callable that relaxes the atoms of a batch with a built-in potential until no force exceeds the tolerance.

    With `unstrained`, the cells of the structures whose constants are sought, pairs of atoms keep under any strain the
    terms that a `LongRanged` potential gives them without it (see `relax`), else its jumps are taken for stiffness. The
    batch must hold all structures in their order, under one strain after the other, as `analysis.elastic` does.
    `progress` is told how many systems of a batch are done.

    Errors of the callable: `ValueError` for an element that the potential does not know, and those of `relax`.

    >>> from amden.analysis.elastic import elastic_tensor
    >>> from amden.simulate.potentials import StillingerWeber
    >>> from amden.testing import diamond
    >>> silicon = elastic_tensor(diamond(), stress=relaxed_stress(StillingerWeber(), device="cpu"))
    >>> silicon.tensor[0, 0, [0, 1]].round(1).tolist(), silicon.tensor[0, 3, 3].round(1).item()
    ([151.4, 76.4], 56.4)
    """
    numbers = np.array([atomic_number(name) for name in potential.symbols])

    def stress(positions: np.ndarray, cells: np.ndarray, n_atoms: np.ndarray, species: np.ndarray) -> Relaxation:
        matches = species[:, None] == numbers
        known = matches.any(axis=1)
        if not known.all():
            stranger = symbol(int(species[~known][0]))
            raise ValueError(f"the potential does not know {stranger}, it knows {', '.join(potential.symbols)}")
        return relax(
            potential,
            positions,
            cells,
            n_atoms,
            species=matches.argmax(axis=1),
            cell="fixed",
            force_tolerance=force_tolerance,
            max_steps=max_steps,
            unstrained=None if unstrained is None else np.tile(unstrained, (len(cells) // len(unstrained), 1, 1)),
            device=device,
            progress=progress,
        )

    return stress


def calculator_stress(
    make_calculator: Callable[[], Calculator], *, force_tolerance: float = 1e-5, max_steps: int = 5000
) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], RelaxedStress]:
    """A callable that relaxes the atoms of a batch with any ASE calculator, one system after the other, by L-BFGS.

    With `max_steps` of 0 the atoms stay where the strain puts them.

    Errors: `ValueError` for a tolerance that is not positive or `max_steps` below 0.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> copper = bulk("Cu", cubic=True)
    >>> batch = copper.positions, copper.cell.array[None], np.array([4]), copper.numbers
    >>> calculator_stress(EMT)(*batch).converged.tolist()
    [True]
    """
    if not (force_tolerance > 0.0 and max_steps >= 0):
        raise ValueError(
            f"`force_tolerance` must be positive and `max_steps` not negative, got {force_tolerance} and {max_steps}"
        )

    def stress(positions: np.ndarray, cells: np.ndarray, n_atoms: np.ndarray, species: np.ndarray) -> RelaxedStress:
        calculator, ends = make_calculator(), np.cumsum(n_atoms)
        tensors, at_rest = [], []
        for cell, start, end in zip(cells, ends - n_atoms, ends, strict=True):
            atoms = Atoms(species[start:end], positions[start:end], cell=cell, pbc=True, calculator=calculator)
            at_rest.append(
                relax_atoms(atoms, variable_cell=False, force_tolerance=force_tolerance, max_steps=max_steps)
            )
            tensors.append(atoms.get_stress(voigt=False))
        return RelaxedStress(np.array(tensors, dtype=np.float64), np.array(at_rest))

    return stress
