"""The folder of a training run: what lies in it, and whether a run may go on from that.

| file | content |
|---|---|
| `config.yaml` | the resolved recipe |
| `model.safetensors` | the averaged weights: what samples |
| `state.safetensors` | all that going on needs |
| `metrics.csv` | a row now and then (`metrics`) |
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from amden.checkpoint import Checkpoint, Header, load_checkpoint, save_checkpoint
from amden.config import to_dict, to_yaml
from amden.model import Model, save_model
from amden.recipe import Recipe
from amden.storage import replacing

CONFIG: Final = "config.yaml"
MODEL: Final = "model.safetensors"
STATE: Final = "state.safetensors"
METRICS: Final = "metrics.csv"

_FIXED: Final = ("egnn", "energy", "diffusion", "properties", "ghosts")
"""Keys of a recipe that a run keeps."""


def write_run(folder: Path, recipe: Recipe, model: Model, tensors: Mapping[str, Tensor]) -> None:
    """The checkpoints of a run, each file whole or not at all; `tensors` are those of its state."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(to_yaml(recipe), encoding="utf-8")
    save_model(folder / MODEL, model)
    header = Header("state", config=to_dict(recipe), provenance=model.provenance)
    save_checkpoint(folder / STATE, tensors, header)


def read_state(folder: Path, recipe: Recipe, *, facts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Checkpoint:
    """The state of a run that goes on with this recipe, data of these facts, and a network of such weights.

    Errors: `FileNotFoundError` if there is none; `ValueError` if it belongs to another recipe or to other data.
    """
    state = load_checkpoint(folder / STATE, kind="state")
    kept, asked = dict(state.header.config), to_dict(recipe)
    different = [key for key in _FIXED if kept.get(key, asked[key]) != asked[key]]
    if different:
        raise ValueError(f"{folder}: the run was made with another `{different[0]}`, it cannot be resumed")
    anew = "a run on other data begins anew, with `--start` from these weights if they fit"
    known = dict(state.header.provenance.get("data", {}))
    for key in ("elements", "structures"):
        if key in known and known[key] != facts[key]:
            raise ValueError(f"{folder}: the run's data had {key} {known[key]}, these have {facts[key]}; {anew}")
    for name, own in weights.items():
        found = state.tensors.get(f"weights.{name}")
        if found is None or found.shape != own.shape:
            raise ValueError(f"{folder}: the run's network has other weights ({name}); {anew}")
        if name.endswith((".mean", ".std")) and not torch.allclose(found, own.cpu(), rtol=1e-4, atol=0.0):
            raise ValueError(f"{folder}: a property of the data has changed ({name}); {anew}")
    return state
