"""Everything that is measured on one set of structures, with the settings it is measured by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from amden.analysis.bonds import BondAngles, Coordination, bond_angles, coordination
from amden.analysis.noise import Sample
from amden.analysis.rdf import RDF, rdf
from amden.structure import Structures, validate

PotentialEnergy = Callable[[Structures], np.ndarray]
"""Potential energy of each structure in eV."""


class Relaxed(Protocol):
    """What is asked of a relaxation, such as `analysis.relaxation.Relaxation` or that of a built-in potential."""

    @property
    def energy(self) -> np.ndarray:
        """Potential energy of each structure in eV."""
        ...

    @property
    def converged(self) -> np.ndarray:
        """Whether it is at a minimum."""
        ...


Relax = Callable[[Structures], Relaxed]
"""Relaxation of every structure with its cell."""


@dataclass(frozen=True)
class Settings:
    """How structures are measured and compared."""

    __pydantic_config__ = {"extra": "forbid"}

    r_max: float = 7.0
    """Range of g(r) in Å."""
    bin_width: float = 0.05
    """Width of its bins in Å."""
    bond_cutoff: float = 2.9
    """Atoms closer than this, in Å, are bonded; the default suits silicon."""
    angle_width: float = 2.0
    """Width of the bins of the bond angle distribution in degrees."""
    halvings: int = 200
    """Random halvings of the reference for the noise floor."""
    seed: int = 0
    """Seed of the halvings."""


@dataclass(frozen=True)
class Observables:
    """What one set of structures looks like."""

    n_atoms: Int[np.ndarray, " systems"]
    rdf: RDF
    angles: BondAngles
    coordination: Coordination
    density: Float[np.ndarray, " systems"]
    """Mass density in g/cm³."""
    energies: Mapping[str, Float[np.ndarray, " systems"]] = field(default_factory=dict)
    """In eV an atom: `energy` as the structures are, `relaxed energy`; NaN where the relaxation did not converge."""

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def unconverged(self) -> int:
        """Number of structures without an energy, because their relaxation did not converge."""
        return int(sum(np.isnan(values).sum() for values in self.energies.values()))

    @property
    def curves(self) -> dict[str, tuple[str, Sample]]:
        """Unit and values of every quantity that is a curve, of the structures that have it."""
        return {
            "g(r)": ("", Sample.of(self.rdf.per_system, self.n_atoms)),
            "bond angles": ("1/°", Sample.of(self.angles.per_system, self.n_atoms)),
        }

    @property
    def scalars(self) -> dict[str, tuple[str, Sample]]:
        """Unit and values of every quantity that is one number a structure, of the structures that have it."""
        values = {"coordination": ("", self.coordination.per_system), "density": ("g/cm³", self.density)}
        values |= {name: ("eV/atom", energies) for name, energies in self.energies.items()}
        return {name: (unit, Sample.of(numbers, self.n_atoms)) for name, (unit, numbers) in values.items()}


def observe(
    structures: Structures,
    *,
    settings: Settings | None = None,
    energy: PotentialEnergy | None = None,
    relax: Relax | None = None,
) -> Observables:
    """Measure a set of structures, ghosts removed; energies where a way to compute them is given.

    Errors: `ValueError` for structures that cannot be worked with, and if no atom has two bonds.

    >>> import torch
    >>> cube = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.5 * torch.eye(3)[None], torch.tensor([1]))
    >>> observe(cube).coordination.mean
    6.0
    """
    settings = settings or Settings()
    structures = structures.without_ghosts()
    validate(structures)
    n_atoms = structures.n_atoms.cpu().numpy()
    energies = {}
    if energy is not None:
        energies["energy"] = np.asarray(energy(structures), dtype=np.float64) / n_atoms
    if relax is not None:
        relaxed = relax(structures)
        energies["relaxed energy"] = np.where(relaxed.converged, relaxed.energy / n_atoms, np.nan)
    return Observables(
        n_atoms=n_atoms,
        rdf=rdf(structures, r_max=settings.r_max, bin_width=settings.bin_width),
        angles=bond_angles(structures, cutoff=settings.bond_cutoff, bin_width=settings.angle_width),
        coordination=coordination(structures, cutoff=settings.bond_cutoff),
        density=structures.density.cpu().double().numpy(),
        energies=energies,
    )
