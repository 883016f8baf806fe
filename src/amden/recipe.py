"""A recipe: the data, the network, the process and the loop that make a model, as frozen dataclasses."""

from dataclasses import dataclass, field
from math import cos, pi

from amden.diffusion.loss import LossWeights
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig
from amden.structure import Structures


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained."""

    __pydantic_config__ = {"extra": "forbid"}

    steps: int = 20_000
    """Optimiser steps."""
    batch_size: int = 32
    """Structures a step, over all devices."""
    learning_rate: float = 1e-3
    """Of Adam, after the warm-up; falls along a half cosine to `final_rate` of it."""
    final_rate: float = 0.01
    """Learning rate of the last step as a fraction of `learning_rate`."""
    warmup: int = 200
    """Steps of linear warm-up."""
    ema: float = 0.999
    """Decay of the averaged weights a step."""
    clip: float = 1.0
    """Largest gradient norm."""
    validation: int = 256
    """Structures set aside, never trained on."""
    validate_every: int = 1000
    """Steps between validations."""
    log_every: int = 100
    """Steps between rows of `metrics.csv`."""
    save_every: int = 1000
    """Steps between checkpoints."""
    missing: float = 0.1
    """Probability that a property is hidden from the model, so that it learns its null."""
    stratified: bool = True
    """Spread the times of a batch evenly over their range."""
    time_exponent: float = 0.0
    """Density of the times is ∝ t^-exponent: 0 is uniform, as in the paper; up to 1, as the likelihood weights them,
    for more work on small noise, where neighbours and angles are settled."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Weights of the terms of the loss."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "validate_every", "log_every", "save_every", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        for name in ("ema", "missing", "final_rate", "time_exponent"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class Recipe:
    """A model from data: what `amden train` reads from YAML."""

    __pydantic_config__ = {"extra": "forbid"}

    data: str = ""
    """Dataset folder or structure file."""
    properties: tuple[str, ...] = ()
    """Properties of the data to condition on."""
    egnn: EGNNConfig = field(default_factory=EGNNConfig)
    """The network."""
    energy: bool = False
    """Whether the noise is the gradient of a noise energy (eq. 18-22), as Hamiltonian Monte Carlo needs it."""
    diffusion: Diffusion = field(default_factory=Diffusion)
    """The process."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The loop."""


def score_config(recipe: Recipe, structures: Structures) -> ScoreConfig:
    """The model that fits a recipe and its data: elements found, properties scaled.

    Errors: `ValueError` for a property the data lacks or that does not vary.
    """
    scales = {}
    for name in recipe.properties:
        if name not in structures.properties:
            known = ", ".join(sorted(structures.properties)) or "none"
            raise ValueError(f"property {name!r} is not in the data, which has: {known}")
        values = structures.properties[name].double()
        values = values[~values.isnan()]
        scales[name] = PropertyScale(float(values.mean()), float(values.std()))
    species = [int(z) for z in structures.species.unique()]
    vocabulary = Vocabulary(tuple(z for z in species if z > 0), ghosts=0 in species)
    return ScoreConfig(vocabulary, scales, recipe.egnn, energy=recipe.energy)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Rate of a step: linear warm-up, then half a cosine.

    >>> config = TrainingConfig(steps=100, warmup=10, learning_rate=1.0, final_rate=0.0)
    >>> learning_rate(4, config), learning_rate(10, config), round(learning_rate(100, config), 6)
    (0.5, 1.0, 0.0)
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = min((step - config.warmup) / max(config.steps - config.warmup, 1), 1.0)
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * 0.5 * (1 + cos(pi * done)))
