"""One safetensors file of structures: the unit a dataset on disk is made of. Folders of them are `dataset`'s matter.

========================== ============= =========================================
tensor                     type          content
========================== ============= =========================================
`positions`  [atoms, 3]    float32       Å, atoms of all systems one after the other
`species`    [atoms]       uint8         atomic numbers, 0 a ghost
`cell`       [systems,3,3] float         lattice vectors as rows, Å
`n_atoms`    [systems]     int32
`property.<name>`          float         [systems, ...]
========================== ============= =========================================

The header holds `kind` ("structures"), `version` of this layout, the `amden` that wrote it, and `provenance`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from amden import __version__, storage
from amden.elements import MASSES
from amden.structure import Structures

VERSION: Final = 1
"""Version of the layout above."""

_ARRAYS: Final = {"positions": True, "species": False, "cell": True, "n_atoms": False}
"""Arrays of every file, and whether their numbers are real."""
_PREFIX: Final = "property."


@dataclass(frozen=True, eq=False)
class Shard:
    """Structures and where they come from."""

    structures: Structures
    provenance: Mapping[str, Any]


def save_shard(path: str | Path, structures: Structures, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write structures as one file, whole or not at all; `provenance` is any JSON mapping.

    >>> from tempfile import TemporaryDirectory
    >>> one = Structures(torch.zeros(1, 3), torch.tensor([14]), torch.eye(3)[None], torch.tensor([1]))
    >>> with TemporaryDirectory() as folder:
    ...     save_shard(f"{folder}/one.safetensors", one)
    ...     load_shard(f"{folder}/one.safetensors").structures
    Structures(1 systems, 1 atoms, elements Si)
    """
    with storage.replacing(Path(path)) as temporary:
        temporary.write_bytes(encoded(structures, provenance=provenance))


def encoded(structures: Structures, *, provenance: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a file of structures, for whoever makes it in one process and writes it in another."""
    tensors = {
        "positions": structures.positions.to(torch.float32),
        "species": structures.species.to(torch.uint8),
        "cell": structures.cell,
        "n_atoms": structures.n_atoms.to(torch.int32),
        **{f"{_PREFIX}{name}": values for name, values in structures.properties.items()},
    }
    header = {"kind": "structures", "version": VERSION, "amden": __version__, "provenance": dict(provenance or {})}
    return storage.encoded(tensors, header)


def load_shard(path: str | Path) -> Shard:
    """Read one file of structures; properties that are whole numbers or truth values become real.

    Errors: `FileNotFoundError`; `ValueError` for a file that is damaged, not ours, or of a newer layout.
    """
    stored = storage.read(Path(path))
    provenance = _provenance(path, stored.header or {})
    try:
        return Shard(_structures(stored.tensors), provenance)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_provenance(path: str | Path) -> Mapping[str, Any]:
    """Where a file of structures comes from, without reading the structures; errors as `load_shard`."""
    return _provenance(path, storage.read_header(Path(path)) or {})


def _provenance(path: str | Path, header: Mapping[str, Any]) -> Mapping[str, Any]:
    if header.get("kind") != "structures":
        raise ValueError(f"{path}: holds no structures written by amden but {header.get('kind', 'something else')}")
    storage.layout(header, known=VERSION, source=path)
    return storage.entry(header, "provenance", dict, source=path)


def _structures(tensors: Mapping[str, Tensor]) -> Structures:
    for name, real in _ARRAYS.items():
        if name not in tensors:
            raise ValueError(f"array {name!r} is missing")
        if tensors[name].is_floating_point() != real:
            raise ValueError(f"`{name}` must be {'real' if real else 'whole'} numbers, got {tensors[name].dtype}")
    species, n_atoms = tensors["species"].long(), tensors["n_atoms"].long()
    unknown = species[(species < 0) | (species >= len(MASSES))]
    if len(unknown):
        raise ValueError(f"`species` must be atomic numbers up to {len(MASSES) - 1}, got {int(unknown[0])}")
    empty = (n_atoms < 1).nonzero().flatten()
    if len(empty):
        raise ValueError(f"structure {int(empty[0])} has {int(n_atoms[empty[0]])} atoms")
    properties = {
        name.removeprefix(_PREFIX): values if values.is_floating_point() else values.double()
        for name, values in tensors.items()
        if name.startswith(_PREFIX)
    }
    return Structures(tensors["positions"], species, tensors["cell"], n_atoms, properties)
