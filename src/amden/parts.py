"""Finished batches of a generation, kept beside its output so that an interrupted one goes on."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amden import storage
from amden.structure import Structures

_ARRAYS = ("positions", "species", "cell", "n_atoms")


class Parts:
    """A hidden folder beside the output, with one file a batch; bits are kept as they are.

    Batches of another `request` (model, seed, cells, settings: any JSON mapping) are not ours and are removed.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> atom = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.0 * torch.eye(3)[None], torch.tensor([1]))
    >>> with TemporaryDirectory() as folder:
    ...     Parts(Path(folder) / "glass.extxyz", {"seed": 1}).save(4, atom)
    ...     sorted(Parts(Path(folder) / "glass.extxyz", {"seed": 1}).load())
    ...     sorted(Parts(Path(folder) / "glass.extxyz", {"seed": 2}).load())
    [4]
    []
    """

    def __init__(self, out: Path, request: Mapping[str, Any]) -> None:
        self.folder = out.with_name(f".{out.name}.parts")
        self._request = json.loads(json.dumps(request))

    def save(self, first: int, structures: Structures) -> None:
        """Keep a batch whose first structure has this number."""
        tensors = {name: getattr(structures, name) for name in _ARRAYS}
        storage.write(self.folder / f"{first:07d}.safetensors", tensors, {"request": self._request})

    def load(self) -> dict[int, Structures]:
        """The batches kept, by the number of their first structure."""
        kept = {}
        for path in self.folder.glob("*.safetensors"):
            stored = storage.read(path)
            if (stored.header or {}).get("request") == self._request:
                positions, species, cell, n_atoms = (stored.tensors[name] for name in _ARRAYS)
                kept[int(path.stem)] = Structures(positions, species, cell, n_atoms)
            else:
                path.unlink()
        return kept

    def remove(self) -> None:
        """Forget the batches: the output is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
