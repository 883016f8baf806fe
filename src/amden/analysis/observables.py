"""Everything that is measured on one set of structures, with the settings it is measured by."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from amden.analysis.bonds import (
    BondAngles,
    Coordination,
    Cutoff,
    bond_angles,
    coordination,
    cutoff_matrix,
    partial_bond_angles,
)
from amden.analysis.composition import composition
from amden.analysis.faber_ziman import StructureFactor
from amden.analysis.grid import kinds
from amden.analysis.noise import Sample
from amden.analysis.qn import Qn, qn
from amden.analysis.rdf import RDF, partial_rdf, rdf
from amden.analysis.rings import covalent_cutoffs
from amden.analysis.scattering import structure_factor
from amden.analysis.validity import charged, overlapping
from amden.analysis.voids import Voids, voids
from amden.elements import atomic_number, scattering_length, symbol
from amden.structure import Structures, validate

MODULI: Final = ("shear_modulus", "bulk_modulus", "youngs_modulus")
"""Each also as the mean over directions, with `_vrh` added, as `properties` has it."""

UNITS: Final[Mapping[str, str]] = {name + ending: "GPa" for name in MODULI for ending in ("", "_vrh")} | {
    "temperature": "K"
}
"""Of properties that files may hold; the others have the unit that the user knows."""

NETWORK: Final[Mapping[str, int]] = {"Si": 4, "O": 2}
"""Coordination without defects in silicon and silica."""

FORMERS: Final = ("Si", "P", "Al")
"""Elements that make the network of an oxide glass."""

TARGET: Final = "target_"
"""A property of this name and another's is what that other was to be."""

_NOT_COMPARED: Final = ("density", "index", "seed", "energy", "free_energy", "potential_energy")
"""Measured here, extensive, or no property of the material."""

PotentialEnergy = Callable[[Structures], np.ndarray]
"""Potential energy of each structure in eV."""


class Relaxed(Protocol):
    """What is asked of a relaxation, such as `simulate.relaxation.RelaxedStructures`."""

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
    bond_cutoff: Cutoff | None = None
    """Atoms closer than this, in Å, are bonded: a number, or one by pair of elements; None takes `bond_lengths`."""
    q_max: float = 10.0
    """Range of S(q) in 1/Å."""
    q_width: float = 0.1
    """Width of its bins, and of the Gaussian that it is averaged over, in 1/Å."""
    q_vectors: int = 24
    """Reciprocal lattice vectors a bin at most."""
    angle_width: float = 2.0
    """Width of the bins of the bond angle distribution in degrees."""
    halvings: int = 200
    """Random halvings of the reference for the noise floor."""
    resamples: int = 400
    """Bootstrap resamples for intervals."""
    seed: int = 0
    """Seed of the halvings, the resamples, and of the atoms that are looked up in other structures."""


@dataclass(frozen=True)
class Curve:
    """A quantity that is a curve."""

    x: Float[np.ndarray, " bins"]
    axis: str
    """Name and unit of x."""
    unit: str
    """Unit of the values."""
    sample: Sample
    """Of the structures that have it."""


@dataclass(frozen=True)
class Observables:
    """What one set of structures looks like."""

    n_atoms: Int[np.ndarray, " systems"]
    fractions: Mapping[str, Float[np.ndarray, " systems"]]
    """Fraction of the atoms that are of each element."""
    rdf: RDF
    partial_rdfs: Mapping[str, RDF]
    """By pair of elements, each pair once; empty for one element."""
    angles: BondAngles
    partial_angles: Mapping[str, BondAngles]
    """By triple of elements, the centre in the middle; empty for one element."""
    coordination: Coordination
    partial_coordinations: Mapping[str, Coordination]
    """Of the atoms of each element."""
    usual: Mapping[str, int]
    """Coordination of each element that makes no defect."""
    network: Qn | None
    """Qⁿ of silicon, phosphorus and aluminium bridged by oxygen; None where there are none."""
    scattering: StructureFactor
    radiation: str
    """What S(q) is seen with: neutrons, where the scattering lengths of all elements are known."""
    voids: Voids
    density: Float[np.ndarray, " systems"]
    """Mass density in g/cm³."""
    overlapping: Bool[np.ndarray, " systems"]
    """Whether some atoms are much closer than bonds are long (`validity`)."""
    charged: Bool[np.ndarray, " systems"] | None
    """Whether the formal charges do not add up to 0; None where they are unknown or all of one sign."""
    energies: Mapping[str, Float[np.ndarray, " systems"]] = field(default_factory=dict)
    """In eV an atom: `energy` as the structures are, `relaxed energy`; NaN where the relaxation did not converge."""
    properties: Mapping[str, Float[np.ndarray, " systems"]] = field(default_factory=dict)
    """Numbers that came with the structures, without targets; NaN where a structure has none."""

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def unconverged(self) -> int:
        """Number of structures without an energy, because their relaxation did not converge."""
        return int(sum(np.isnan(values).sum() for values in self.energies.values()))

    @property
    def invalid(self) -> Bool[np.ndarray, " systems"]:
        """Structures with overlapping atoms or an unbalanced charge."""
        return self.overlapping if self.charged is None else self.overlapping | self.charged

    @property
    def defects(self) -> Float[np.ndarray, " systems"]:
        """Fraction of the atoms of each structure whose coordination is not the usual one of their element."""
        total = np.zeros(len(self))
        for name, found in self.partial_coordinations.items():
            usual = self.usual.get(name, -1)
            sound = found.fractions[:, usual] if 0 <= usual < found.fractions.shape[1] else np.zeros(len(self))
            total += self.fractions[name] * np.nan_to_num(1.0 - sound)
        return total

    @property
    def curves(self) -> dict[str, Curve]:
        """Every quantity that is a curve."""
        rdfs = {"g(r)": self.rdf} | {f"g(r) {pair}": found for pair, found in self.partial_rdfs.items()}
        angles = dict(self.partial_angles) or {"bond angles": self.angles}
        found = {name: Curve(g.r, "r (Å)", "", Sample.of(g.per_system, self.n_atoms)) for name, g in rdfs.items()}
        for name, a in angles.items():
            found[name] = Curve(a.angle, "bond angle (°)", "1/°", Sample.of(a.per_system, self.n_atoms))
        seen = {"S(q)": self.scattering.complete(self.radiation)}
        if self.partial_rdfs:
            if self.radiation == "neutron":
                seen["S(q) X-ray"] = self.scattering.complete("x-ray")
            seen |= {f"S(q) {pair}": self.scattering.complete_partial(pair) for pair in self.scattering.partials}
        return found | {name: Curve(q, "q (1/Å)", "", Sample.of(s, self.n_atoms)) for name, (q, s) in seen.items()}

    @property
    def scalars(self) -> dict[str, tuple[str, Sample]]:
        """Unit and values of every quantity that is one number a structure, of the structures that have it."""
        values = {"coordination": ("", self.coordination.per_system)}
        if self.partial_rdfs:
            values = {f"{name} neighbours": ("", c.per_system) for name, c in self.partial_coordinations.items()}
        if self.network is not None:
            values |= {f"Q4 of {former}": ("", f[:, 4]) for former, f in self.network.fractions.items()}
            values |= {f"non-bridging {self.network.bridge}": ("", self.network.non_bridging)}
        values |= {
            "defects": ("", self.defects),
            "largest void": ("Å", self.voids.largest),
            "density": ("g/cm³", self.density),
        }
        values |= {name: ("eV/atom", energies) for name, energies in self.energies.items()}
        values |= {name: (UNITS.get(name, ""), numbers) for name, numbers in self.properties.items()}
        return {name: (unit, Sample.of(numbers, self.n_atoms)) for name, (unit, numbers) in values.items()}


def bond_lengths(*sets: Structures) -> dict[str, float]:
    """Lengths in Å below which atoms are bonded, by pair of the elements of the sets, `covalent_cutoffs` throughout.

    With oxygen beside other elements, only bonds with oxygen count: the network of an oxide glass. In silicon alone it
    is 2.9 Å, near the first minimum of g(r), as in the literature.

    >>> from amden.testing import random_structures
    >>> bond_lengths(random_structures([30], species=(8, 14)))
    {'O-Si': 2.301}
    """
    found: dict[str, float] = {}
    for structures in sets:
        found |= covalent_cutoffs(structures)
    elements = {name for pair in found for name in pair.split("-")}
    if elements == {"Si"}:
        return {"Si-Si": 2.9}
    if "O" in elements and len(elements) > 1:
        found = {pair: length for pair, length in found.items() if pair != "O-O" and "O" in pair.split("-")}
    return {pair: round(length, 3) for pair, length in found.items()}


def observe(
    structures: Structures,
    *,
    settings: Settings | None = None,
    usual: Mapping[str, int] | None = None,
    energy: PotentialEnergy | None = None,
    relax: Relax | None = None,
) -> Observables:
    """Measure a set of structures, ghosts removed; energies where a way to compute them is given.

    `usual` is the coordination of each element that makes no defect; None takes that of `NETWORK` in silicon and
    silica, the most frequent one in other materials.

    Errors: `ValueError` for structures that cannot be worked with, and if no atom has two bonds.

    >>> import torch
    >>> cube = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.5 * torch.eye(3)[None], torch.tensor([1]))
    >>> observe(cube).coordination.mean
    6.0
    """
    settings = settings or Settings()
    structures = structures.without_ghosts()
    validate(structures)
    cutoff = bond_lengths(structures) if settings.bond_cutoff is None else settings.bond_cutoff
    n_atoms = structures.n_atoms.cpu().numpy()
    energies = {}
    if energy is not None:
        energies["energy"] = np.asarray(energy(structures), dtype=np.float64) / n_atoms
    if relax is not None:
        relaxed = relax(structures)
        energies["relaxed energy"] = np.where(relaxed.converged, relaxed.energy / n_atoms, np.nan)
    present = [symbol(z) for z in kinds(structures)]
    partial = partial_rdf(structures, r_max=settings.r_max, bin_width=settings.bin_width)
    alone, together = len(present) == 1, coordination(structures, cutoff=cutoff)
    by_element = {n: together if alone else coordination(structures, cutoff=cutoff, centre=n) for n in present}
    s = structure_factor(structures, q_max=settings.q_max, bin_width=settings.q_width, most=settings.q_vectors)
    formers = _bridged(structures, cutoff, present)
    return Observables(
        n_atoms=n_atoms,
        fractions=composition(structures).fractions,
        rdf=next(iter(partial.values()))
        if alone
        else rdf(structures, r_max=settings.r_max, bin_width=settings.bin_width),
        partial_rdfs={} if alone else {pair: g for pair, g in partial.items() if _in_order(pair, present)},
        angles=bond_angles(structures, cutoff=cutoff, bin_width=settings.angle_width),
        partial_angles={} if alone else partial_bond_angles(structures, cutoff=cutoff, bin_width=settings.angle_width),
        coordination=together,
        partial_coordinations=by_element,
        usual=usual or _usual(by_element),
        network=qn(structures, formers=formers, cutoff=cutoff) if formers else None,
        scattering=s.smoothed(settings.q_width),
        voids=voids(structures),
        radiation="neutron" if _tabulated(present) else "atoms",
        density=structures.density.cpu().double().numpy(),
        overlapping=overlapping(partial),
        charged=charged(structures),
        energies=energies,
        properties=_properties(structures, energies),
    )


def _bridged(structures: Structures, cutoff: Cutoff, present: list[str]) -> list[str]:
    """Formers of a network that oxygen can be bonded to."""
    if "O" not in present:
        return []
    reach = cutoff_matrix(structures, cutoff)[present.index("O")]
    return [name for name in FORMERS if name in present and reach[present.index(name)] > 0]


def _usual(by_element: Mapping[str, Coordination]) -> dict[str, int]:
    if "Si" in by_element and set(by_element) <= set(NETWORK):
        return {name: NETWORK[name] for name in by_element}
    return {name: int(found.distribution.argmax()) for name, found in by_element.items()}


def _in_order(pair: str, present: list[str]) -> bool:
    a, b = pair.split("-")
    return present.index(a) <= present.index(b)


def _tabulated(present: Iterable[str]) -> bool:
    try:
        return all(np.isfinite(scattering_length(atomic_number(name))) for name in present)
    except ValueError:
        return False


def _properties(structures: Structures, energies: Mapping[str, np.ndarray]) -> dict[str, Float[np.ndarray, " systems"]]:
    return {
        name: values.cpu().double().numpy()
        for name, values in sorted(structures.properties.items())
        if values.ndim == 1 and name not in (*_NOT_COMPARED, *energies) and not name.startswith(TARGET)
    }
