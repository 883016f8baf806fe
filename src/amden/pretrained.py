"""The catalogue of shipped models: their names, and the files behind them.

What a model was trained on is in the header of its file; how well it does, in docs/validation.md.
"""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from amden import model
from amden.checkpoint import load_checkpoint
from amden.model import Model

SUFFIX = ".safetensors"
ENERGY = "-energy"
"""Ending of the name of an energy model, behind that of the score model of the same glass."""


@dataclass(frozen=True)
class ShippedModel:
    """A model in the package."""

    name: str
    path: Path
    provenance: dict[str, Any]


def model_names() -> list[str]:
    """Names of the shipped models."""
    folder = files("amden") / "models"
    return sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))


def shipped_models() -> list[ShippedModel]:
    """The catalogue."""
    found = [(name, _path(name)) for name in model_names()]
    return [ShippedModel(name, path, dict(load_checkpoint(path).header.provenance)) for name, path in found]


def model_path(name_or_path: str | Path) -> Path:
    """The checkpoint of a shipped model, of a run folder, or the file itself.

    Errors: `ValueError` for a name that is neither, with the names there are.
    """
    if str(name_or_path) in model_names():
        return _path(str(name_or_path))
    path = Path(name_or_path)
    if path.is_dir() and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    if path.is_file():
        return path
    choices = ", ".join(model_names()) or "none"
    raise ValueError(f"unknown model {str(name_or_path)!r}: neither a file nor one of the shipped models ({choices})")


def load_model(name_or_path: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """A shipped model by its name, or the model of a run folder or a checkpoint.

    Errors: those of `model_path` and of `amden.model.load_model`.

    >>> load_model("si-melt").diffusion.positions.sigma_max
    1.5
    """
    return model.load_model(model_path(name_or_path), device=device)


def energy_model(name_or_path: str) -> str:
    """The energy model of the same glass, where a shipped score model has one; else what was given.

    >>> energy_model("si-anneal"), energy_model("si-anneal-energy"), energy_model("runs/mine")
    ('si-anneal-energy', 'si-anneal-energy', 'runs/mine')
    """
    other = f"{name_or_path}{ENERGY}"
    return other if other in model_names() else name_or_path


def _path(name: str) -> Path:
    with as_file(files("amden") / "models" / f"{name}{SUFFIX}") as path:
        return path
