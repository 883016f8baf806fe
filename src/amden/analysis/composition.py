"""What structures are made of: atoms of each element, mass, density, and charge by formal charges."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from amden.analysis.grid import kinds
from amden.elements import FORMAL_CHARGES, MASSES, atomic_number, symbol
from amden.structure import Structures, validate


@dataclass(frozen=True)
class Composition:
    """Atoms, mass and density of every system of a set, ghosts left out."""

    counts: Mapping[str, Int[np.ndarray, " systems"]]
    """Atoms of each element."""
    mass: Float[np.ndarray, " systems"]
    """In amu."""
    density: Float[np.ndarray, " systems"]
    """Mass density in g/cm³."""
    number_density: Float[np.ndarray, " systems"]
    """Atoms per Å³."""

    @property
    def n_atoms(self) -> Int[np.ndarray, " systems"]:
        """Atoms of each system."""
        return np.sum(list(self.counts.values()), axis=0)

    @property
    def fractions(self) -> dict[str, Float[np.ndarray, " systems"]]:
        """Fraction of the atoms that are of each element."""
        return {name: n / self.n_atoms for name, n in self.counts.items()}

    def rows(self) -> list[dict[str, int | float]]:
        """One flat dictionary a system of plain numbers, for a CSV or JSON file."""
        return [
            {
                "system": s,
                **{f"n_{name}": int(n[s]) for name, n in self.counts.items()},
                "mass_amu": float(self.mass[s]),
                "density_g_per_cm3": float(self.density[s]),
                "number_density_per_A3": float(self.number_density[s]),
            }
            for s in range(len(self.mass))
        ]


@dataclass(frozen=True)
class Charge:
    """Sum of the formal charges of every system of a set."""

    formal: Mapping[str, int]
    """Formal charge of each element in e."""
    total: Int[np.ndarray, " systems"]
    """In e; 0 where the composition is balanced."""
    n_atoms: Int[np.ndarray, " systems"]

    @property
    def per_atom(self) -> Float[np.ndarray, " systems"]:
        """In e an atom."""
        return self.total / self.n_atoms

    @property
    def mean_absolute(self) -> float:
        """Mean over the systems of the absolute charge an atom, in e."""
        return float(np.abs(self.per_atom).mean())

    @property
    def balanced(self) -> float:
        """Fraction of the systems that carry no charge."""
        return float((self.total == 0).mean())


def composition(structures: Structures) -> Composition:
    """What each structure is made of.

    >>> from amden.testing import diamond
    >>> found = composition(diamond())
    >>> found.counts["Si"].tolist(), found.density.round(3).tolist()
    ([8], [2.329])
    """
    structures = structures.without_ghosts()
    validate(structures)
    counts = _counts(structures)
    return Composition(
        counts=counts,
        mass=np.sum([n * MASSES[atomic_number(name)] for name, n in counts.items()], axis=0),
        density=structures.density.cpu().double().numpy(),
        number_density=structures.n_atoms.cpu().numpy() / structures.volume.cpu().double().numpy(),
    )


def charge(structures: Structures, *, charges: Mapping[str, int] | None = None) -> Charge:
    """Total formal charge of each structure, from `charges` and, for elements they lack, `elements.FORMAL_CHARGES`.

    Errors: `ValueError` for an element that neither knows, as Fe, which glasses have in two states.

    >>> from dataclasses import replace
    >>> import torch
    >>> from amden.testing import diamond
    >>> charge(replace(diamond(), species=torch.tensor([14, 8, 8, 14, 8, 8, 14, 8]))).total.tolist()
    [2]
    """
    structures = structures.without_ghosts()
    validate(structures)
    known = {**FORMAL_CHARGES, **(charges or {})}
    counts = _counts(structures)
    for name in counts:
        if name not in known:
            raise ValueError(f"no formal charge is known for {name!r}: say it, as in `charges={{{name!r}: 2}}`")
    total = np.sum([known[name] * n for name, n in counts.items()], axis=0)
    return Charge({name: known[name] for name in counts}, total, structures.n_atoms.cpu().numpy())


def _counts(structures: Structures) -> dict[str, Int[np.ndarray, " systems"]]:
    number, system = structures.species.cpu().numpy(), structures.system.cpu().numpy()
    return {symbol(z): np.bincount(system[number == z], minlength=len(structures)) for z in kinds(structures)}
