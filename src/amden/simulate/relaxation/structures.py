"""`relax` for `Structures`: atomic numbers to species of a potential, and back."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64

from amden.elements import atomic_number, symbol
from amden.simulate.potentials import Potential
from amden.simulate.relaxation.minimum import relax
from amden.structure import Structures


@dataclass(frozen=True)
class RelaxedStructures:
    """Structures at a minimum of their potential energy, or where their relaxation ended."""

    structures: Structures
    """In double precision, with no properties: those were of the structures as they were."""
    energy: Float64[np.ndarray, " systems"]
    """Potential energy in eV."""
    converged: Bool[np.ndarray, " systems"]
    """Whether the tolerances were met."""


def relax_structures(
    structures: Structures,
    potential: Potential,
    *,
    force_tolerance: float = 0.005,
    stress_tolerance: float = 0.01,
    max_steps: int = 5000,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: Callable[[int], None] | None = None,
) -> RelaxedStructures:
    """Relaxes atoms and cell of each structure together, at zero pressure; arguments as those of `relax`.

    Errors: `ValueError` for an element that the potential does not know, ghosts included, and those of `relax`.

    >>> from amden.simulate.potentials import StillingerWeber
    >>> from amden.testing import diamond
    >>> found = relax_structures(diamond(a=5.5), StillingerWeber(), device="cpu")
    >>> round(found.structures.volume.item() ** (1 / 3), 2)
    5.43
    """
    numbers = np.array([atomic_number(name) for name in potential.symbols])
    species = structures.species.cpu().numpy()
    matches = species[:, None] == numbers
    for stranger in species[~matches.any(axis=1)][:1]:
        raise ValueError(
            f"the potential does not know {symbol(int(stranger))}, it knows {', '.join(potential.symbols)}"
        )
    found = relax(
        potential,
        structures.positions.cpu().double().numpy(),
        structures.cell.cpu().double().numpy(),
        structures.n_atoms.cpu().numpy(),
        species=matches.argmax(axis=1),
        force_tolerance=force_tolerance,
        stress_tolerance=stress_tolerance,
        max_steps=max_steps,
        device=device,
        progress=progress,
    )
    relaxed = replace(
        structures.to("cpu"),
        positions=torch.from_numpy(found.positions),
        cell=torch.from_numpy(found.cell),
        properties={},
    )
    return RelaxedStructures(relaxed, found.energy, found.converged)
