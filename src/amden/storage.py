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
from typing import Any, Final, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

Value = TypeVar("Value")

_KEY: Final = "amden"
_KINDS: Final[dict[type, str]] = {int: "a whole number", str: "text", dict: "a mapping"}


@dataclass(frozen=True, eq=False)
class Stored:
    """Content of one file."""

    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any] | None
    """The JSON header; None in a safetensors file that amden did not write."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes the place of `path` when the block ends well and is removed else.

    Errors: what the system says of the block, such as that the disk is full, names `path` unless it names another file.

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
    except OSError as error:
        nameless = error.filename is None or str(error.filename) == str(temporary)
        if error.errno is None or not nameless:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
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


def entry(header: Mapping[str, Any], name: str, kind: type[Value], *, source: str | Path) -> Value:
    """What a header of the file `source` says under a name; `ValueError` where it says nothing or no `kind`.

    >>> entry({"version": 1}, "version", int, source="a.safetensors")
    1
    """
    if name not in header:
        raise ValueError(f"{source}: damaged: the header has no entry {name!r}")
    value = header[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{source}: damaged: the entry {name!r} of the header is {value!r:.50}, not {_KINDS[kind]}")
    return value


def layout(header: Mapping[str, Any], *, known: int, source: str | Path) -> int:
    """The version of a file's layout; `ValueError` for one that amden, which reads 1 to `known`, does not know."""
    version = entry(header, "version", int, source=source)
    if version > known:
        made = f"made by a newer amden ({header.get('amden')})"
        raise ValueError(f"{source}: {made}: format {version}, this one reads up to {known}; upgrade amden")
    if version < 1:
        raise ValueError(f"{source}: damaged: there is no format {version}")
    return version


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
        header = None if text is None else json.loads(text)
    except (SafetensorError, json.JSONDecodeError):
        raise ValueError(f"{path}: truncated, damaged or not a safetensors file") from None
    if header is not None and not isinstance(header, dict):
        raise ValueError(f"{path}: damaged: its header is no mapping but {header!r:.50}")
    return Stored(tensors, header)
