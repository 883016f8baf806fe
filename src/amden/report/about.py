"""Where the structures of an analysis came from, and what it was made with."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from amden import __version__
from amden.dataset import SUFFIX
from amden.io import read_origin
from amden.shard import load_provenance

_PACKAGES: Final = ("ase", "matplotlib", "numba", "numpy", "scipy", "torch")


@dataclass(frozen=True)
class Source:
    """A file of structures, or a folder of them."""

    role: str
    """`generated`, `reference` or `training`."""
    name: str
    structures: int
    sha256: str
    """Of the file; of a folder, of its files in the order of their names."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What amden wrote into it or beside it: protocol or model, seed, versions; of a folder, into its first file."""


@dataclass(frozen=True)
class About:
    """What is said of an analysis as a whole."""

    command: str = ""
    sources: tuple[Source, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        sources = {s.role: {**vars(s), "provenance": dict(s.provenance)} for s in self.sources}
        return {"command": self.command, "versions": dict(self.versions), "sources": sources}


def versions() -> dict[str, str]:
    """Versions of amden, Python and the packages that numbers depend on."""
    found = {"amden": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in _PACKAGES}


def source(role: str, path: Path, *, structures: int) -> Source:
    """What can be said of a file or folder that has been read."""
    files = sorted(f for f in path.glob(f"*{SUFFIX}") if not f.name.startswith(".")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    packed = bool(files) and files[0].suffix == SUFFIX
    provenance = load_provenance(files[0]) if packed else read_origin(path) if path.is_file() else {}
    return Source(role, path.name, structures, digest.hexdigest(), provenance)
