"""The only reader and writer of weights: safetensors with a JSON header. Nothing is ever unpickled.

Knows no network: tensors go by name, the configuration is a plain mapping. A run keeps two files: the weights, which
is what ships, and the state (`kind="state"`), which by itself is all that going on exactly needs: it holds the weights
too, as they are and averaged. Old files are brought to the present layout by `MIGRATIONS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from amden import __version__, storage

VERSION: Final = 1
"""Version of the layout that this amden writes."""

Migration = Callable[[dict[str, Tensor], dict[str, Any]], tuple[dict[str, Tensor], dict[str, Any]]]
"""Tensors and header of one version to those of the next."""

MIGRATIONS: Final[dict[int, Migration]] = {}
"""For each old version the step to the next; empty as long as version 1 is the only one."""


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself; every value is JSON."""

    kind: str
    """What the tensors are: `model` for the weights that ship, `state` for what training goes on from."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The dataclasses the model is built from, as nested plain values."""
    vocabulary: Mapping[str, Any] = field(default_factory=dict)
    """Elements the model knows."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """Of each property its mean and standard deviation in the training set."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Training: data, recipe, seed, steps, losses, versions."""
    amden: str = __version__
    """The amden that wrote the file."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Named tensors and what they are."""

    tensors: Mapping[str, Tensor]
    header: Header


def save_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Write a checkpoint, whole or not at all; an existing file is replaced.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/m", {"w": torch.ones(2)}, Header("model", config={"layers": 4}))
    ...     load_checkpoint(f"{folder}/m").header.config
    {'layers': 4}
    """
    storage.write(Path(path), tensors, {"version": VERSION, **asdict(header)})


def load_checkpoint(path: str | Path, *, kind: str = "model") -> Checkpoint:
    """Read a checkpoint of the given kind, tensors on the CPU.

    Errors: `FileNotFoundError`; `ValueError` for a file that is damaged, not ours, of another kind, or of a newer
    layout.
    """
    stored = storage.read(Path(path))
    if stored.header is None:
        raise ValueError(f"{path}: not a checkpoint of amden (it has no amden header)")
    tensors, header = dict(stored.tensors), dict(stored.header)
    if header.get("kind") != kind:
        raise ValueError(f"{path}: not a checkpoint of kind {kind!r} but of {header.get('kind')!r}")
    first = storage.layout(header, known=VERSION, source=path)
    del header["version"]
    for version in range(first, VERSION):
        tensors, header = MIGRATIONS[version](tensors, header)
    kinds = {f.name: str if f.type is str else dict for f in fields(Header)}
    unknown = header.keys() - kinds.keys()
    if unknown:
        raise ValueError(f"{path}: unknown entry {min(unknown)!r} in the header")
    checked: dict[str, Any] = {name: storage.entry(header, name, kinds[name], source=path) for name in header}
    return Checkpoint(tensors, Header(**checked))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser (moments, step counts) as named tensors; its settings belong to the configuration.

    >>> optimizer_tensors(torch.optim.Adam([torch.zeros(1)]))
    {}
    """
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took; tensors of other names are left alone.

    Errors: `ValueError` if the state is of an optimiser with other parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shapes = {i: v["exp_avg"].shape for i, v in state.items() if "exp_avg" in v}
    if any(i >= len(parameters) or parameters[i].shape != shape for i, shape in shapes.items()):
        raise ValueError("the optimiser state belongs to a model of another shape")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
