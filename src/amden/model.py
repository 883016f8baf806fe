"""A denoiser with the process it was trained for: what a checkpoint of a model holds, and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amden.checkpoint import Header, load_checkpoint, save_checkpoint
from amden.config import from_dict, to_dict
from amden.diffusion.schedule import Diffusion
from amden.nn.energy import EnergyModel
from amden.nn.score import ScoreConfig, ScoreModel
from amden.storage import entry


@dataclass(frozen=True, eq=False)
class Model:
    """A score model ready to sample from."""

    denoiser: ScoreModel
    """An `EnergyModel` where its configuration says so."""
    diffusion: Diffusion
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Data, recipe, steps, losses of the training."""


def denoiser_of(config: ScoreConfig, diffusion: Diffusion) -> ScoreModel:
    """The network of a configuration, with random weights."""
    return EnergyModel(config, diffusion) if config.energy else ScoreModel(config, diffusion)


def save_model(path: str | Path, model: Model, *, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a model; `weights` stand in for those of the denoiser, an average for instance."""
    config = to_dict(model.denoiser.config)
    header = Header(
        kind="model",
        vocabulary=config.pop("vocabulary"),
        statistics=config.pop("properties"),
        config={"score": config, "diffusion": to_dict(model.diffusion)},
        provenance=model.provenance,
    )
    save_checkpoint(path, dict(weights or model.denoiser.state_dict()), header)


def load_model(path: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """Read a model.

    Errors: `FileNotFoundError`; `ValueError` for a file that is not a model of amden, of a newer format, or whose
    weights do not fit its configuration or are NaN or infinite.
    """
    checkpoint = load_checkpoint(path)
    header = asdict(checkpoint.header)
    score, process = (entry(header["config"], name, dict, source=path) for name in ("score", "diffusion"))
    parts = {**score, "vocabulary": header["vocabulary"], "properties": header["statistics"]}
    diffusion = from_dict(Diffusion, process, source=str(path))
    denoiser = denoiser_of(from_dict(ScoreConfig, parts, source=str(path)), diffusion)
    try:
        denoiser.load_state_dict(dict(checkpoint.tensors))
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit the configuration: {str(error).splitlines()[-1]}") from None
    for name, values in denoiser.state_dict().items():
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{path}: the weights {name!r} are NaN or infinite")
    return Model(denoiser.to(device).eval().requires_grad_(False), diffusion, header["provenance"])
