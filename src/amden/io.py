"""The only door for structure files, through ASE: extxyz, LAMMPS data, CIF, POSCAR and whatever else ASE knows.

Reading checks what it reads: a structure that cannot be worked with is a `ValueError` that names file and structure.
Writing goes to a temporary name in the same folder, so that an interrupted run or a full disk leaves nothing behind.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import sort
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses
from ase.io.extxyz import per_atom_properties
from ase.io.formats import UnknownFileTypeError, filetype, get_compression, ioformats

from amden.elements import GHOST, atomic_number
from amden.neighbors import check_overlaps
from amden.storage import replacing
from amden.structure import Structures, validate

PathLike = str | os.PathLike[str]

_LAMMPS_DATA: Final = (".lmp", ".data", ".lammps")
_ELEMENTS_TOLD: Final = {
    "lammps-data": r"\s*(Masses|Atom Type Labels)\b",
    "lammps-dump-text": r"ITEM: ATOMS.*\belement\b",
}
"""Lines of LAMMPS files without which the elements of its atom types are unknown."""
_BY_ELEMENT: Final = ("vasp", "vasp-xdatcar")
"""Formats that tell elements by blocks of atoms."""
WITH_PROPERTIES: Final = ("extxyz", "traj")
"""Formats that have a place for every property."""
_MASS_TOLERANCE: Final = 0.5
"""amu: how far the masses of a LAMMPS file may be from those of the elements they stand for."""


def read_structures(
    path: PathLike, *, index: str = ":", min_distance: float = 0.5, dtype: torch.dtype = torch.float64
) -> Structures:
    """Structures of a file, numbers of the extxyz comment line as properties (NaN where a frame lacks one).

    `index` selects as ASE does (`":"`, `"0"`, `"-10:"`, `"::5"`). Atoms closer than `min_distance` Å are an error; 0
    allows all.

    Errors: `FileNotFoundError`; `ValueError` in one line for a file that is empty, cut off or of an unknown format, and
    for the first structure with an unknown element, partly occupied sites, NaN, without a cell periodic in three
    dimensions and of positive volume, or with overlapping atoms.
    """
    path = Path(path)
    source = str(path) if index == ":" else f"{path}@{index}"
    images = list(_images(path, index, source))
    if not images:
        raise ValueError(f"{source}: no structures")
    if index == ":" and path.suffix in (".extxyz", ".xyz"):
        _check_read_whole(path, images)
    structures = from_ase(images)
    validate(structures, source=source)
    if min_distance > 0:
        check_overlaps(structures, min_distance=min_distance, source=source)
    return structures.to(dtype=dtype)


def write_structures(path: PathLike, structures: Structures, *, overwrite: bool = False) -> None:
    """Structures to a file in the format of its name; properties go where the format has a place for them.

    Where a format has blocks of atoms of one element (POSCAR), atoms are sorted by their symbols; elsewhere they keep
    their order.

    Missing folders are made. Errors: `FileExistsError` unless `overwrite`; `ValueError` for a name of no known format
    or a format that holds one structure only.
    """
    path = Path(path)
    form = check_structure_file(path, len(structures), overwrite=overwrite)
    options = {"masses": True} if form == "lammps-data" else {}
    images = to_ase(structures)
    if form in _BY_ELEMENT:
        images = [sort(atoms) for atoms in images]
    with replacing(path) as part:
        ase.io.write(part, images, format=form, **options)


class TrajectoryWriter:
    """An extxyz file written frame by frame; it takes its name when the `with` block ends well and is removed else.

    >>> from tempfile import TemporaryDirectory
    >>> atom = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.0 * torch.eye(3)[None], torch.tensor([1]))
    >>> with TemporaryDirectory() as folder:
    ...     with TrajectoryWriter(f"{folder}/path.extxyz") as trajectory:
    ...         trajectory.write(atom, t=0.9)
    ...         trajectory.write(atom, t=0.8)
    ...     read_structures(f"{folder}/path.extxyz").properties["t"].tolist()
    [0.9, 0.8]
    """

    def __init__(self, path: PathLike, *, overwrite: bool = False) -> None:
        path = Path(path)
        check_output(path, overwrite=overwrite)
        if _format_of_name(path) != "extxyz":
            raise ValueError(f"{path}: a trajectory is written as .extxyz")
        self._replacing: AbstractContextManager[Path] = replacing(path)

    def __enter__(self) -> "TrajectoryWriter":
        self._part = self._replacing.__enter__()
        self._part.touch()
        return self

    def write(self, structures: Structures, **numbers: float) -> None:
        """Append structures, with `numbers` such as the time for each of them."""
        given = {name: torch.full((len(structures),), value, dtype=torch.float64) for name, value in numbers.items()}
        frames = to_ase(replace(structures, properties={**structures.properties, **given}))
        ase.io.write(self._part, frames, format="extxyz", append=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._replacing.__exit__(kind, error, trace)


def check_output(path: PathLike, *, overwrite: bool) -> None:
    """Raise `FileExistsError` for an output that exists: to be asked before the work for it starts."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; use --overwrite to replace it")


def check_structure_file(path: PathLike, n: int, *, overwrite: bool = False) -> str:
    """ASE's name of the format of a file that is to hold `n` structures: to be asked before the work for it starts.

    Errors: `FileExistsError`, `PermissionError`; `ValueError` for a name of no known format or a format that holds one
    structure only.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    form = _format_of_name(path)
    if ioformats[form].single and n > 1:
        raise ValueError(f"{path}: {form} files hold one structure, got {n}; use .extxyz")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise PermissionError(f"{path}: nothing can be written into {there}")
    return form


def write_origin(path: PathLike, told: Mapping[str, Any]) -> None:
    """What made the structures of a file, as JSON beside it: `glass.extxyz.json` beside `glass.extxyz`."""
    path = Path(path)
    content = json.dumps({**told, "sha256": _digest(path)}, indent=1, ensure_ascii=False)
    with replacing(_origin(path)) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8")


def read_origin(path: PathLike) -> Mapping[str, Any]:
    """What is said beside a structure file; nothing where there is nothing, or where it is said of another content."""
    try:
        told = json.loads(_origin(Path(path)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and told.get("sha256") == _digest(Path(path)) else {}


def _origin(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_ase(images: Sequence[Atoms], *, dtype: torch.dtype = torch.float64) -> Structures:
    """ASE's atoms as a batch; numbers in `info` and stored results, such as the energy, become properties.

    >>> from ase.build import bulk
    >>> from_ase([bulk("Si")])
    Structures(1 systems, 2 atoms, elements Si)
    """
    if not images:
        raise ValueError("`images` is empty: nothing to convert")
    return Structures(
        torch.from_numpy(np.concatenate([atoms.positions for atoms in images])),
        torch.from_numpy(np.concatenate([atoms.numbers for atoms in images]).astype(np.int64)),
        torch.from_numpy(np.stack([atoms.cell.array for atoms in images])),
        torch.tensor([len(atoms) for atoms in images]),
        _stacked([_numbers(atoms) for atoms in images]),
    ).to(dtype=dtype)


def to_ase(structures: Structures) -> list[Atoms]:
    """The batch as ASE's atoms; properties that are not NaN go to `info`."""
    structures = structures.to("cpu", dtype=torch.float64)
    ends = torch.cumsum(structures.n_atoms, 0)[:-1].tolist()
    positions, numbers = (np.split(a.detach().numpy(), ends) for a in (structures.positions, structures.species))
    cells = structures.cell.detach().numpy()
    images = [Atoms(z, r, cell=c, pbc=True) for z, r, c in zip(numbers, positions, cells, strict=True)]
    for name, values in structures.properties.items():
        for atoms, value in zip(images, values.numpy(), strict=True):
            if not np.isnan(value).all():
                atoms.info[name] = value if value.ndim else float(value)
    return images


def _images(path: Path, index: str, source: str) -> Iterator[Atoms]:
    """The selected structures of a file, every failure of ASE's readers turned into one line."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path} is a folder, not a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    if not re.fullmatch(r"-?\d+|(-?\d*:){1,2}-?\d*", index):
        raise ValueError(f"`index` must be a number or a slice such as '-10:', got {index!r}")
    form = _format_of_content(path)
    frames = ase.io.iread(path, index, format=form, do_not_split_by_at_sign=True)
    i = 0
    while True:
        try:
            atoms = next(frames, None)
        except Exception as error:  # the readers raise whatever comes up
            raise ValueError(f"{source}: structure {i} cannot be read: {_reason(error)}") from error
        if atoms is None:
            return
        _check_periodic(atoms, f"{source}: structure {i}")
        _check_occupied(atoms, f"{source}: structure {i}")
        if form == "lammps-data":
            _check_masses(atoms, f"{source}: structure {i}")
        yield atoms
        i += 1


def _check_read_whole(path: Path, images: Sequence[Atoms]) -> None:
    """ASE takes a blank line between frames for the end of the file."""
    with path.open("rb") as file:
        n_lines = sum(bool(line.strip()) and not line.lstrip().startswith(b"VEC") for line in file)
    if n_lines > sum(len(atoms) + 2 for atoms in images):
        raise ValueError(
            f"{path}: a blank line follows structure {len(images) - 1}, and more after it; remove the line"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError) and isinstance(error.args[0], str):
        try:
            atomic_number(error.args[0])
        except ValueError as unknown:
            return str(unknown)
    if isinstance(error.__cause__, StopIteration):
        return "the file ends within it"
    return " ".join(str(error).split()) or type(error).__name__


def _check_periodic(atoms: Atoms, what: str) -> None:
    if not atoms.cell.array.any():
        raise ValueError(f"{what} has no cell; amden needs one, periodic in three dimensions")
    if not atoms.pbc.all():
        raise ValueError(f"{what} is not periodic in all three dimensions (pbc {atoms.pbc.tolist()})")


def _check_occupied(atoms: Atoms, what: str) -> None:
    """ASE tells the occupancies of CIF files and puts the most frequent element on every site."""
    told = atoms.info.get("occupancy")
    for site in told.values() if isinstance(told, dict) else ():
        if any(isinstance(share, int | float) and share < 1.0 for share in site.values()):
            shares = ", ".join(f"{name} {share:g}" for name, share in site.items())
            raise ValueError(f"{what} has partly occupied sites ({shares}); amden needs an atom on each")


def _check_masses(atoms: Atoms, what: str) -> None:
    """ASE takes the element whose mass is closest, and a mass of 1 for that of a ghost."""
    masses = atoms.get_masses()
    strange = (atoms.numbers == GHOST) | (abs(masses - atomic_masses[atoms.numbers]) > _MASS_TOLERANCE)
    for mass in masses[strange][:1]:
        raise ValueError(f"{what} has an atom of mass {mass:g}, that of no element; `Masses` must be in amu")


def _format_of_content(path: Path) -> str:
    """ASE's name of the format. `ValueError` where unknown, and for LAMMPS files that do not tell the elements."""
    try:
        form = "lammps-data" if path.suffix in _LAMMPS_DATA else filetype(str(path))
    except UnknownFileTypeError:
        form = ""
    if form not in ioformats:
        raise ValueError(f"{path}: unknown format; extxyz, LAMMPS data, CIF and POSCAR are known")
    if form in _ELEMENTS_TOLD and not _has_line(path, _ELEMENTS_TOLD[form]):
        missing = "`Masses` section" if form == "lammps-data" else "`element` column"
        raise ValueError(f"{path}: no {missing}, so the elements of the atom types are unknown")
    return form


def _has_line(path: Path, pattern: str) -> bool:
    """Whether a line begins like this; nothing is read beyond it."""
    with path.open(errors="replace") as file:
        return any(re.match(pattern, line) for line in file)


def _format_of_name(path: Path) -> str:
    if path.suffix in _LAMMPS_DATA:
        return "lammps-data"
    if get_compression(str(path))[1]:
        raise ValueError(f"{path}: compressed files are read but not written")
    try:
        form = filetype(str(path), read=False)
    except UnknownFileTypeError:
        form = ""
    if form not in ioformats or not ioformats[form].can_write:
        raise ValueError(f"{path}: no known format has this name; use .extxyz")
    return form


def _numbers(atoms: Atoms) -> dict[str, np.ndarray]:
    """Numbers and arrays of numbers that belong to the whole structure."""
    results = atoms.calc.results if isinstance(atoms.calc, SinglePointCalculator) else {}
    whole: Mapping[str, Any] = {k: v for k, v in results.items() if k not in per_atom_properties} | atoms.info
    return {
        name: np.asarray(value, dtype=np.float64)
        for name, value in whole.items()
        if isinstance(value, int | float | np.number | np.ndarray) and np.asarray(value).dtype.kind in "iuf"
    }


def _stacked(frames: Sequence[Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """One array a property; a property that changes its shape between frames is left out with a warning."""
    likes = {name: values for frame in frames for name, values in frame.items()}
    properties = {}
    for name, like in likes.items():
        missing = np.full(like.shape, np.nan)
        values = [frame.get(name, missing) for frame in frames]
        if any(v.shape != like.shape for v in values):
            warnings.warn(f"{name!r} has another shape in another structure and is left out", stacklevel=3)
            continue
        properties[name] = torch.from_numpy(np.stack(values))
    return properties
