"""Properties of structures, computed and stored beside them in a dataset or a file: each is one entry of a table.

What was computed how travels with the numbers: a shard's provenance holds for every column its unit and meaning, and
for every property the convention and the potential.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from amden import __version__
from amden.analysis.composition import composition
from amden.analysis.elastic import StressCallable, elastic_tensor, one_sided_moduli
from amden.analysis.rings import mean_ring_size
from amden.elements import GHOST, symbol
from amden.shard import load_provenance, load_shard, save_shard
from amden.simulate.folder import ALL, MANIFEST, CampaignFolder
from amden.simulate.moduli import relaxed_stress
from amden.simulate.potentials import POTENTIALS, Potential
from amden.simulate.relaxation import relax_structures
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
    at_rest = relax_structures(structures, tools.interaction, force_tolerance=LOOSE, device=tools.device)
    stress = _stress(at_rest.structures, tools, LOOSE)
    found = one_sided_moduli(at_rest.structures, stress=stress)
    known = at_rest.converged & found.converged & found.positive_definite
    return {
        "shear_modulus": _known(found.shear, known),
        "youngs_modulus": _known(found.young, known),
        "bulk_modulus": _known(found.bulk, known),
    }


def _converged_moduli(structures: Structures, tools: Tools) -> Columns:
    at_rest = relax_structures(structures, tools.interaction, force_tolerance=TIGHT, device=tools.device)
    stress = _stress(at_rest.structures, tools, TIGHT)
    found = elastic_tensor(at_rest.structures, stress=stress)
    known = at_rest.converged & found.converged & found.positive_definite
    return {
        "shear_modulus_vrh": _known(found.hill.shear, known),
        "youngs_modulus_vrh": _known(found.hill.young, known),
        "bulk_modulus_vrh": _known(found.hill.bulk, known),
    }


def _stress(at_rest: Structures, tools: Tools, force_tolerance: float) -> StressCallable:
    """Of atoms relaxed in strained cells."""
    cells = at_rest.cell.numpy()
    return relaxed_stress(tools.interaction, force_tolerance=force_tolerance, unstrained=cells, device=tools.device)


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


def add_properties(
    path: str | Path,
    names: Sequence[str],
    *,
    potential: str | None = None,
    device: Device = "auto",
    progress: Callable[[Progress], None] = lambda _: None,
) -> Mapping[str, int]:
    """Compute properties of the structures of a dataset and store them in its files.

    `path` is a folder of shards or one shard; a file is written again, whole or not at all, after each property, so an
    interrupted call goes on with what is left. What is there by the same convention is not computed again. `potential`
    is a name in `POTENTIALS`; left out, it is the one the dataset was simulated with, or the first that has all its
    elements. Returns the number of structures whose value is unknown, by column.

    Several processes may work on the files of one campaign. A file that another process is writing is tried again when
    the others are done, and else left out with a warning; the values that it lacks are unknown.

    Errors: `ValueError` for an unknown property or potential, for files that are no shards, or for elements without a
    potential where one is needed, and where another process is writing all files.
    """
    _check(names, potential)
    path, files = Path(path), shard_files(path)
    sizes = {file: len(load_shard(file).structures) for file in files}
    folder, done, total = CampaignFolder(files[0].parent), 0, sum(sizes.values())

    def completed(file: Path) -> bool:
        nonlocal done
        tell = lambda n, what: progress(Progress(done + n, total, what))  # noqa: E731
        complete = partial(_complete, file, names, potential, device, tell=tell)
        if not _claimed(folder, _cells(folder, file, alone=file == path), complete):
            return False
        done += sizes[file]
        progress(Progress(done, total, ""))
        return True

    held = [file for file in files if not completed(file)]
    held = [file for file in held if not completed(file)]
    if held == files:
        raise ValueError(f"{path}: another process is writing it")
    if held:
        progress(Progress(done, total, "(the others are left to another process)"))
        which = ", ".join(file.name for file in held)
        warnings.warn(f"{folder.path}: another process is writing {which}; left out", stacklevel=2)
    return {column: int(values.isnan().sum()) for column, values in stored(files, names).items()}


def with_properties(
    structures: Structures,
    names: Sequence[str],
    *,
    potential: str | None = None,
    device: Device = "auto",
    progress: Callable[[Progress], None] = lambda _: None,
) -> Structures:
    """The structures with the columns of these properties added to theirs; potential and errors as `add_properties`."""
    _check(names, potential)
    tools = Tools(potential or _potential_of(structures, {}), device)
    for name in names:
        _record(PROPERTIES[name], tools)
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

    Errors: `ValueError` for elements that no built-in potential knows.
    """
    tools = Tools(potential or _potential_of(structures, {}), device)
    tell = lambda n, what: progress(Progress(n, len(structures), what))  # noqa: E731
    tell(0, "relaxed")
    relaxed = relax_structures(structures, tools.interaction, device=device, progress=lambda n: tell(n, "relaxed"))
    found = measured(relaxed.structures, names, tools, tell=tell)
    tell(len(structures), "")
    n_atoms = structures.without_ghosts().n_atoms.cpu()
    columns = {**found.properties, "potential_energy": torch.from_numpy(relaxed.energy) / n_atoms}
    lost = torch.from_numpy(~relaxed.converged)
    return replace(found, properties={name: values.masked_fill(lost, torch.nan) for name, values in columns.items()})


def shard_files(path: str | Path) -> list[Path]:
    """The files of a dataset: the shards of a folder, or the one of that name.

    Errors: `FileNotFoundError`; `ValueError` where there are none.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    files = [file for file in sorted(path.glob("*.safetensors")) if path.is_dir() and not file.name.startswith(".")]
    files = files or ([path] if path.is_file() and path.suffix == ".safetensors" else [])
    if not files:
        raise ValueError(f"{path}: properties are added to datasets: a folder of .safetensors files, or one of them")
    for file in files:
        load_provenance(file)
    return files


def stored(files: Sequence[Path], names: Sequence[str]) -> dict[str, Float[Tensor, " systems"]]:
    """The columns of these properties in the files of a dataset; NaN where a structure has none."""
    columns = [column for name in names for column in PROPERTIES[name].columns]
    parts: dict[str, list[Tensor]] = {column: [] for column in columns}
    for structures in (load_shard(file).structures for file in files):
        none = torch.full((len(structures),), torch.nan)
        for column in columns:
            parts[column].append(structures.properties.get(column, none).double())
    return {column: torch.cat(values) for column, values in parts.items()}


def _cells(folder: CampaignFolder, file: Path, *, alone: bool) -> range | None:
    """What is claimed while a file is written: its cells, or all where its name does not tell them.

    None, nothing, for one file of a folder that holds no campaign.
    """
    for cells in folder.shards():
        if folder.shard(cells) == file:
            return cells
    return None if alone and not (folder.path / MANIFEST).exists() else ALL


def _claimed(folder: CampaignFolder, cells: range | None, write: Callable[[], None]) -> bool:
    """Writes with the right to these cells, and the manifest where there is one.

    False where another process has that right.
    """
    if cells is None:
        write()
        return True
    with ExitStack() as stack:
        try:
            claim = stack.enter_context(folder.claimed(cells))
        except ValueError:
            return False
        write()
        if (folder.path / MANIFEST).exists():
            claim.write_manifest(folder.origin() or {}, 0)
    return True


def _complete(
    file: Path, names: Sequence[str], potential: str | None, device: Device, *, tell: Callable[[int, str], None]
) -> None:
    """Computes what a file lacks, and writes it after each property; tells how far which property is."""
    shard = load_shard(file)
    structures, provenance = shard.structures, dict(shard.provenance)
    recorded: dict[str, Any] = dict(provenance.get("properties", {}))
    tools = Tools(potential or _potential_of(structures, provenance), device)
    records = {name: _record(PROPERTIES[name], tools) for name in names}
    lacking = [name for name in names if {**recorded.get(name, {}), "amden": None} != {**records[name], "amden": None}]
    for name in lacking:
        columns = _measured(PROPERTIES[name], structures, tools, tell=lambda n, name=name: tell(n, name))
        structures = replace(structures, properties={**structures.properties, **columns})
        recorded[name] = {**records[name], "amden": __version__}
        save_shard(file, structures, provenance={**provenance, "properties": recorded})


def _check(names: Sequence[str], potential: str | None) -> None:
    for name in names:
        if name not in PROPERTIES:
            raise ValueError(f"unknown property {name!r}: expected one of {', '.join(PROPERTIES)}")
    if potential is not None and potential not in POTENTIALS:
        raise ValueError(f"unknown potential {potential!r}: expected one of {', '.join(POTENTIALS)}")


def _record(entry: Property, tools: Tools) -> dict[str, Any]:
    record: dict[str, Any] = {"columns": dict(entry.columns), "convention": entry.convention}
    if entry.needs_potential:
        tools.interaction  # noqa: B018  # there must be one
        record["potential"] = tools.potential
    return record


def _measured(
    entry: Property, structures: Structures, tools: Tools, *, tell: Callable[[int], None]
) -> dict[str, Tensor]:
    bare = replace(structures, properties={}).to(dtype=torch.float64).without_ghosts()
    parts: list[Columns] = []
    for first in range(0, len(bare), _CHUNK):
        tell(first)
        parts.append(entry.measure(bare.select(range(first, min(first + _CHUNK, len(bare)))), tools))
    empty = torch.zeros(0, dtype=torch.float64)
    return {column: torch.cat([empty, *(part[column].double() for part in parts)]) for column in entry.columns}


def _potential_of(structures: Structures, provenance: Mapping[str, Any]) -> str | None:
    """That of the simulation, else the first that knows all elements."""
    present = {symbol(z) for z in structures.species.unique().tolist()} - {symbol(GHOST)}
    own = provenance.get("protocol", {}).get("potential")
    candidates = [own] if own in POTENTIALS else list(POTENTIALS)
    return next((name for name in candidates if present <= set(POTENTIALS[name].symbols)), None)
