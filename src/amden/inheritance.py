"""What a trained model gives to another one: weights to begin with, or the noise that it predicts."""

from typing import Any

from torch import Tensor

from amden.model import Model
from amden.nn.score import ScoreModel


def inherited(model: Model, heir: ScoreModel) -> dict[str, Tensor]:
    """The state of `heir` with the weights of a model of the same shape in it; scales of properties stay its own.

    An energy model may begin with a score model: it takes the layers and keeps a head of its own.

    Errors: `ValueError` for a model of another shape.
    """
    given, asked = model.denoiser.config, heir.config
    if given.egnn != asked.egnn:
        raise ValueError(f"the model to start from has another `egnn`: {given.egnn}")
    if given.vocabulary != asked.vocabulary:
        raise ValueError(f"the model to start from knows {given.vocabulary}, the data hold {asked.vocabulary}")
    if sorted(given.properties) != sorted(asked.properties):
        raise ValueError(
            f"the model to start from is conditioned on {sorted(given.properties)}, "
            f"the recipe asks for {sorted(asked.properties)}"
        )
    for name, scale in asked.properties.items():
        if given.properties[name].size != scale.size:
            raise ValueError(
                f"property {name!r} has {_components(scale.size)} in the data, "
                f"{_components(given.properties[name].size)} in the model to start from"
            )
    if given.energy and not asked.energy:
        raise ValueError("the model to start from is an energy model, the recipe asks for a score model")
    own, weights = heir.state_dict(), dict(model.denoiser.state_dict())
    if asked.energy and not given.energy:
        weights = {k.replace("network.", "network.energies.", 1): v for k, v in weights.items()}
        weights = {k: weights.get(k, v) for k, v in own.items()}
    scales = {k: v for k, v in own.items() if k.endswith((".mean", ".std"))}
    return {**weights, **scales}


def check_teacher(teacher: Model, student: ScoreModel) -> None:
    """See to it that a model can say what noise is in the samples of another one.

    Errors: `ValueError` for a model of other elements, properties or noise.
    """
    given, asked = teacher.denoiser.config, student.config
    if given.vocabulary != asked.vocabulary:
        raise ValueError(f"the teacher knows {given.vocabulary}, the data hold {asked.vocabulary}")
    unknown = sorted(set(given.properties) - set(asked.properties))
    if unknown:
        raise ValueError(f"the teacher is conditioned on {', '.join(unknown)}, the recipe is not")
    if teacher.diffusion != student.diffusion:
        raise ValueError(f"the teacher's noise is {teacher.diffusion}, the recipe's {student.diffusion}")


def origin(model: Model) -> dict[str, Any]:
    """What a later model's provenance says of this one."""
    return {k: model.provenance[k] for k in ("name", "steps", "start", "teacher") if k in model.provenance}


def _components(size: int | None) -> str:
    return "one number" if size is None else f"{size} components"
