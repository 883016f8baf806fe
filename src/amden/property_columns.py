"""Columns of properties in the files of a dataset: computed, kept beside the structures, read.

What was computed how travels with the numbers: a shard's provenance holds for every column its unit and meaning, and
for every property the convention and the potential. Which properties there are is in `amden.properties`.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from amden import __version__
from amden.properties import PROPERTIES, Device, Progress, Tools, check_known, fitting_potential, measured
from amden.shard import load_provenance, load_shard, save_shard
from amden.simulate.folder import ALL, MANIFEST, CampaignFolder


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
    check_known(names, potential)
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
    own = provenance.get("protocol", {}).get("potential")
    tools = Tools(potential or fitting_potential(structures, own), device)
    records = {name: PROPERTIES[name].record(tools) for name in names}
    lacking = [name for name in names if {**recorded.get(name, {}), "amden": None} != {**records[name], "amden": None}]
    for name in lacking:
        structures = measured(structures, [name], tools, tell=tell)
        recorded[name] = {**records[name], "amden": __version__}
        save_shard(file, structures, provenance={**provenance, "properties": recorded})
