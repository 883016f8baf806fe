"""Properties of structures, each one entry of a table: what is computed together, by which convention, and how.

Nothing here knows of files; how datasets keep properties is in `amden.property_columns`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from amden.analysis.composition import composition
from amden.analysis.elastic import StressCallable, elastic_tensor, one_sided_moduli
from amden.analysis.rings import mean_ring_size
from amden.elements import GHOST, symbol
from amden.simulate.moduli import relaxed_stress
from amden.simulate.potentials import POTENTIALS, Potential
from amden.simulate.relaxation import RelaxedStructures, relax_structures
from amden.structure import Structures

Device = Literal["auto", "cpu", "cuda"]
Columns = Mapping[str, Float[Tensor, " systems"]]

LOOSE: Final = 0.05
"""eV/Å: what the paper relaxes to before and under strain."""
TIGHT: Final = 1e-5
"""eV/Å: where elastic constants no longer depend on it."""
_ELEMENTS: Final = tuple(dict.fromkeys(name for potential in POTENTIALS.values() for name in potential.symbols))
"""Those whose fractions are told."""
_CHUNK: Final = 256
"""Structures measured at a time; an elastic tensor takes thirteen of each."""


@dataclass(frozen=True)
class Tools:
    """What properties are computed with."""

    potential: str | None
    """A name in `POTENTIALS`."""
    device: Device
    tell: Callable[[int], None] = lambda n: None
    """Told now and then how many structures are done, by measurements that take long."""

    @property
    def interaction(self) -> Potential:
        """The potential itself."""
        if self.potential is None:
            have = "; ".join(f"{name} has {', '.join(p.symbols)}" for name, p in POTENTIALS.items())
            raise ValueError(f"moduli need a potential that knows all elements of the structures: {have}")
        return POTENTIALS[self.potential]


@dataclass(frozen=True)
class Property:
    """What is computed together."""

    columns: Mapping[str, str]
    """Names of the numbers, each with unit and meaning."""
    convention: str
    """How they are computed: recorded, and done again when it has changed."""
    measure: Callable[[Structures, Tools], Columns]
    """One number a structure for each column, NaN where there is none."""
    needs_potential: bool = False
    unit: str = ""
    """Of all its numbers."""

    def record(self, tools: Tools) -> dict[str, Any]:
        """What is told of its numbers beside them: columns, convention and potential.

        Errors: `ValueError` for a potential that is needed and is not there.
        """
        record: dict[str, Any] = {"columns": dict(self.columns), "convention": self.convention}
        if self.needs_potential:
            tools.interaction  # noqa: B018  # there must be one
            record["potential"] = tools.potential
        return record


def _density(structures: Structures, tools: Tools) -> Columns:
    return {"density": structures.density}


def _fraction(name: str) -> str:
    return f"{name.lower()}_fraction"


def _fractions(structures: Structures, tools: Tools) -> Columns:
    found = composition(structures).fractions
    none = np.zeros(len(structures))
    return {_fraction(name): torch.from_numpy(found.get(name, none)) for name in _ELEMENTS}


def _mean_ring_size(structures: Structures, tools: Tools) -> Columns:
    return {"mean_ring_size": mean_ring_size(structures)}


def _moduli(structures: Structures, tools: Tools) -> Columns:
    at_rest, stress = _rest_and_stress(structures, tools, LOOSE, n_relaxed=1 + 7)
    found = one_sided_moduli(at_rest.structures, stress=stress)
    known = at_rest.converged & found.converged & found.positive_definite
    return {
        "shear_modulus": _known(found.shear, known),
        "youngs_modulus": _known(found.young, known),
        "bulk_modulus": _known(found.bulk, known),
    }


def _converged_moduli(structures: Structures, tools: Tools) -> Columns:
    at_rest, stress = _rest_and_stress(structures, tools, TIGHT, n_relaxed=1 + 13)
    found = elastic_tensor(at_rest.structures, stress=stress)
    known = at_rest.converged & found.converged & found.positive_definite
    return {
        "shear_modulus_vrh": _known(found.hill.shear, known),
        "youngs_modulus_vrh": _known(found.hill.young, known),
        "bulk_modulus_vrh": _known(found.hill.bulk, known),
    }


def _rest_and_stress(
    structures: Structures, tools: Tools, force_tolerance: float, *, n_relaxed: int
) -> tuple[RelaxedStructures, StressCallable]:
    """The structures relaxed, and the stress of atoms relaxed in strained cells; `n_relaxed` relaxations of each in
    all, which is what the progress is told by."""
    n = len(structures)
    at_rest = relax_structures(
        structures,
        tools.interaction,
        force_tolerance=force_tolerance,
        device=tools.device,
        progress=lambda done: tools.tell(done // n_relaxed),
    )
    stress = relaxed_stress(
        tools.interaction,
        force_tolerance=force_tolerance,
        unstrained=at_rest.structures.cell.numpy(),
        device=tools.device,
        progress=lambda done: tools.tell((n + done) // n_relaxed),
    )
    return at_rest, stress


def _known(values: Float[np.ndarray, " systems"], known: Bool[np.ndarray, " systems"]) -> Float[Tensor, " systems"]:
    return torch.from_numpy(np.where(known, values, np.nan))


PROPERTIES: Final[Mapping[str, Property]] = {
    "density": Property(
        {"density": "g/cm³"}, "mass over volume of the structure as it is; ghosts weigh nothing", _density, unit="g/cm³"
    ),
    "rings": Property(
        {
            "mean_ring_size": "silicon atoms in a ring, mean over the rings; all atoms where a structure has no "
            "silicon or nothing else"
        },
        "closing rings of the paper: for each bond, up to 1.3 times the sum of the covalent radii, one shortest path "
        "of up to 24 atoms that closes it; of the structure as it is; unknown where no ring has an atom that counts",
        _mean_ring_size,
    ),
    "fractions": Property(
        {_fraction(name): f"{name} among the atoms" for name in _ELEMENTS},
        "number of atoms of the element over the number of atoms; ghosts do not count",
        _fractions,
    ),
    "moduli": Property(
        {
            "shear_modulus": "GPa, G = c44",
            "youngs_modulus": "GPa, E = (c11 - c12)(c11 + 2 c12)/(c11 + c12)",
            "bulk_modulus": "GPa, K = (c11 + 2 c12)/3",
        },
        f"the paper's: one strain of +2 % a component, nine components averaged over the axes; atoms and cell relaxed "
        f"to {LOOSE} eV/Å before, atoms under strain; unknown where the cubic solid of the three constants is unstable",
        _moduli,
        needs_potential=True,
        unit="GPa",
    ),
    "moduli-vrh": Property(
        {"shear_modulus_vrh": "GPa", "youngs_modulus_vrh": "GPa", "bulk_modulus_vrh": "GPa"},
        f"Voigt-Reuss-Hill means of the full tensor by central differences of 0.1 % strain; atoms and cell relaxed to "
        f"{TIGHT} eV/Å before, atoms under strain; unknown where the tensor is not positive definite",
        _converged_moduli,
        needs_potential=True,
        unit="GPa",
    ),
}
"""All there are."""


@dataclass(frozen=True)
class Progress:
    """How far the computation is."""

    done: int
    """Structures of the files that were looked at."""
    total: int
    """Structures in all files."""
    what: str
    """The property under way."""


def with_properties(
    structures: Structures,
    names: Sequence[str],
    *,
    potential: str | None = None,
    device: Device = "auto",
    progress: Callable[[Progress], None] = lambda _: None,
) -> Structures:
    """The structures with the columns of these properties added to theirs; potential as in `at_rest`.

    Errors: `ValueError` for an unknown property or potential, or for elements without a potential where one is needed.
    """
    check_known(names, potential)
    tools = Tools(potential or fitting_potential(structures), device)
    for name in names:
        PROPERTIES[name].record(tools)
    found = measured(structures, names, tools, tell=lambda n, what: progress(Progress(n, len(structures), what)))
    progress(Progress(len(structures), len(structures), ""))
    return found


def property_of(column: str) -> str | None:
    """Name of the property that has this column.

    >>> property_of("shear_modulus"), property_of("beauty")
    ('moduli', None)
    """
    return next((name for name, entry in PROPERTIES.items() if column in entry.columns), None)


def measured(
    structures: Structures,
    names: Sequence[str],
    tools: Tools,
    *,
    tell: Callable[[int, str], None] = lambda n, what: None,
) -> Structures:
    """The structures with the columns of these properties added to theirs, in double precision."""
    columns: dict[str, Tensor] = {}
    for name in names:
        columns |= _measured(PROPERTIES[name], structures, tools, tell=lambda n, name=name: tell(n, name))
    return replace(structures, properties={**structures.properties, **columns})


def at_rest(
    structures: Structures,
    names: Sequence[str],
    *,
    device: Device = "auto",
    potential: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Structures:
    """The structures with atoms and cell relaxed to 0.005 eV/Å, then measured: the columns of these properties and
    `potential_energy` in eV an atom. What does not converge is left where it was given up, with NaN for all columns.

    `potential` is a name in `POTENTIALS`; left out, the first that has all elements. `progress` is told each thing that
    is done with all structures from the first to the last.

    Errors: `ValueError` for names of no property or potential, and for elements that no built-in potential knows.
    """
    check_known(names, potential)
    tools = Tools(potential or fitting_potential(structures), device)
    tell = lambda n, what: progress(Progress(n, len(structures), what))  # noqa: E731
    tell(0, "relaxed")
    relaxed = relax_structures(structures, tools.interaction, device=device, progress=lambda n: tell(n, "relaxed"))
    found = measured(relaxed.structures, names, tools, tell=tell)
    tell(len(structures), "")
    n_atoms = structures.without_ghosts().n_atoms.cpu()
    columns = {**found.properties, "potential_energy": torch.from_numpy(relaxed.energy) / n_atoms}
    lost = torch.from_numpy(~relaxed.converged)
    return replace(found, properties={name: values.masked_fill(lost, torch.nan) for name, values in columns.items()})


def check_known(names: Sequence[str], potential: str | None) -> None:
    """Refuse names of no property, and one of no potential.

    Errors: `ValueError`, with the choices.
    """
    for name in names:
        if name not in PROPERTIES:
            whole = property_of(name)
            choices = f"it comes with {whole!r}" if whole else f"expected one of {', '.join(PROPERTIES)}"
            raise ValueError(f"unknown property {name!r}: {choices}")
    if potential is not None and potential not in POTENTIALS:
        raise ValueError(f"unknown potential {potential!r}: expected one of {', '.join(POTENTIALS)}")


def fitting_potential(structures: Structures, own: str | None = None) -> str | None:
    """Name of a potential that knows all elements: of `own`, that of the simulation, if it is built in, else the first.

    None where there is none.
    """
    present = {symbol(z) for z in structures.species.unique().tolist()} - {symbol(GHOST)}
    candidates = [own] if own and own in POTENTIALS else list(POTENTIALS)
    return next((name for name in candidates if present <= set(POTENTIALS[name].symbols)), None)


def _measured(
    entry: Property, structures: Structures, tools: Tools, *, tell: Callable[[int], None]
) -> dict[str, Tensor]:
    bare = replace(structures, properties={}).to(dtype=torch.float64).without_ghosts()
    parts: list[Columns] = []
    for first in range(0, len(bare), _CHUNK):
        tell(first)
        telling = replace(tools, tell=lambda n, first=first: tell(first + n))
        parts.append(entry.measure(bare.select(range(first, min(first + _CHUNK, len(bare)))), telling))
    empty = torch.zeros(0, dtype=torch.float64)
    return {column: torch.cat([empty, *(part[column].double() for part in parts)]) for column in entry.columns}
