"""Files that are whole or not there, and safetensors files with a JSON header. Knows no structure and no model.

A safetensors file keeps text beside its tensors; ours is JSON under the one key `amden`, which also tells our files
from others'. Nothing is ever unpickled.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

_KEY: Final = "amden"


@dataclass(frozen=True, eq=False)
class Stored:
    """Content of one file."""

    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any] | None
    """The JSON header; None in a safetensors file that amden did not write."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes the place of `path` when the block ends well and is removed else.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     [p.name for p in Path(folder).iterdir()]
    ['a.txt']
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Onto the disk: a machine that dies after the renaming must not leave an empty file of the right name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def encoded(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """Tensors and a JSON header as the bytes of a safetensors file; the same content gives the same bytes."""
    own = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    return save(own, metadata={_KEY: json.dumps(header, sort_keys=True)})


def write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header."""
    with replacing(path) as temporary:
        temporary.write_bytes(encoded(tensors, header))


def read(path: Path) -> Stored:
    """Read a safetensors file.

    Errors: `FileNotFoundError`; `ValueError` for a file that is empty, truncated, damaged or no safetensors file.
    """
    return _read(path, with_tensors=True)


def read_header(path: Path) -> Mapping[str, Any] | None:
    """The JSON header alone, which costs nothing however large the file; errors as `read`."""
    return _read(path, with_tensors=False).header


def _read(path: Path, *, with_tensors: bool) -> Stored:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            names = list(file.keys()) if with_tensors else []
            tensors = {name: file.get_tensor(name) for name in names}
        return Stored(tensors, None if text is None else json.loads(text))
    except (SafetensorError, json.JSONDecodeError):
        raise ValueError(f"{path}: truncated, damaged or not a safetensors file") from None
