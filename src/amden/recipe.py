"""A recipe: the data, the network, the process and the loop that make a model, as frozen dataclasses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from amden.diffusion.corruption import filled_size
from amden.diffusion.hmc import HMCConfig
from amden.diffusion.langevin import LangevinConfig
from amden.diffusion.loss import LossWeights, TimeBand
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig
from amden.structure import Structures

N_QUANTILES: Final = 101
"""Quantiles that a model keeps of a property: every per cent."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained."""

    __pydantic_config__ = {"extra": "forbid"}

    steps: int = 20_000
    """Optimiser steps."""
    minutes: float | None = None
    """Time that training takes at most, all sittings together: the learning rate falls with the time or the steps,
    whichever are further, so that it is at its end at the end of the one or the other."""
    batch_size: int = 32
    """Structures a step, over all devices; the most there may be where `max_atoms` decides."""
    max_atoms: int | None = None
    """For structures of mixed sizes: atoms a step with their ghosts, over all devices, at most. A step then takes as
    many structures as fit, and costs the same whatever they are."""
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
    time_band: TimeBand | None = None
    """Where training dwells: `{low: 0.15, high: 0.5, share: 0.6}` draws so many of the times there, evenly."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Weights of the terms of the loss."""
    teacher: str | None = None
    """Model (name or path) of the same elements, properties and process whose noise is learned in the place of the
    drawn one, which scatters far more. Validation keeps to the drawn noise."""
    seed: int = 0
    """Of the initial weights, the order of the structures, times and noise."""

    def __post_init__(self) -> None:
        if self.max_atoms is not None and self.max_atoms < 1:
            raise ValueError(f"`max_atoms` must be positive, got {self.max_atoms}")
        for name in ("steps", "batch_size", "learning_rate", "validate_every", "log_every", "save_every", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"`minutes` must be positive, got {self.minutes}")
        for name in ("warmup", "validation", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}")
        for name in ("ema", "missing", "final_rate", "time_exponent"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class GhostConfig:
    """Ghost atoms, which let a model choose the density (section II.A)."""

    __pydantic_config__ = {"extra": "forbid"}

    density: float
    """Number density in atoms/Å³ up to which ghosts fill a system; that of the densest structure to be generated."""

    def __post_init__(self) -> None:
        if not 0.0 < self.density < 0.5:
            raise ValueError(f"`density` of ghosts must lie in (0, 0.5) atoms/Å³, got {self.density}")


@dataclass(frozen=True)
class GuidanceConfig:
    """How targets are strengthened (classifier-free guidance, eq. 16)."""

    __pydantic_config__ = {"extra": "forbid"}

    weight: float = 1.0
    """Weight w; 0 is none. The paper takes 0.25 for its multi-element glass and 1 for silica."""
    kind: Literal["null", "icg"] = "null"
    """Where the unconditional noise comes from: the model's own null, or random conditions (icg)."""
    above: float = 0.0
    """Guide at diffusion times from here on only, and relax unguided below."""

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"`weight` of guidance must not be negative, got {self.weight}")
        if not 0.0 <= self.above <= 1.0:
            raise ValueError(f"`above` must lie in [0, 1], got {self.above}")


@dataclass(frozen=True)
class SamplingConfig:
    """How the finished model is best sampled, where nobody says otherwise; it travels in the checkpoint."""

    __pydantic_config__ = {"extra": "forbid"}

    relax: Literal["none", "hmc", "langevin"] = "none"
    """What is done before each denoising step where nobody asks: nothing, or one of the two below."""
    steps: int = 200
    """Steps of standard denoising."""
    hmc_steps: int = 2000
    """Denoising steps with Hamiltonian Monte Carlo, on a GPU."""
    hmc: HMCConfig = field(default_factory=HMCConfig)
    """Hamiltonian Monte Carlo."""
    hmc_denoiser: str | None = None
    """Score model (name or path) of the same data that denoises while this energy model moves samples by Hamiltonian
    Monte Carlo; by default the energy model denoises too."""
    langevin_steps: int = 500
    """Denoising steps with Langevin dynamics, on a GPU."""
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    """Langevin dynamics."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    """Guidance by targets."""

    def __post_init__(self) -> None:
        for name in ("steps", "hmc_steps", "langevin_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")


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
    ghosts: GhostConfig | None = None
    """Ghost atoms; none by default."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The loop."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """What generation with the model takes by default."""

    def __post_init__(self) -> None:
        band, low, high = self.training.time_band, self.diffusion.t_min, self.diffusion.t_max
        if band is not None and not low <= band.low < band.high <= high:
            raise ValueError(
                f"`training.time_band` must lie within the times of the process, {low} to {high}, "
                f"got {band.low} to {band.high}"
            )


def score_config(recipe: Recipe, structures: Structures, *, unseen: Structures | None = None) -> ScoreConfig:
    """The model that fits a recipe and its data: elements found, those of `unseen` structures too, properties scaled.

    Errors: `ValueError` for a property that the data lacks or that does not vary, for ghosts of too low a density.
    """
    scales = {}
    for name in recipe.properties:
        if name not in structures.properties:
            known = ", ".join(sorted(structures.properties)) or "none"
            raise ValueError(f"property {name!r} is not in the data, which has: {known}")
        others = [other for other in recipe.properties if other != name]
        scales[name] = property_scale(structures.properties, name, others)
    species = sorted({int(z) for each in (structures, unseen) if each is not None for z in each.species.unique()})
    density = None if recipe.ghosts is None else recipe.ghosts.density
    if density is not None:
        numbers = structures.n_atoms / structures.volume
        if not bool((filled_size(structures.cell, structures.n_atoms, density) > structures.n_atoms).any()):
            span = f"{float(numbers.min()):.4f} to {float(numbers.max()):.4f}"
            raise ValueError(f"`ghosts.density` {density} adds no ghosts: the data have {span} atoms/Å³")
    vocabulary = Vocabulary(tuple(z for z in species if z > 0), ghosts=density is not None or 0 in species)
    return ScoreConfig(vocabulary, scales, recipe.egnn, energy=recipe.energy, ghost_density=density)


def property_scale(
    properties: Mapping[str, Float[Tensor, "systems *shape"]], name: str, others: Sequence[str] = ()
) -> PropertyScale:
    """What a model keeps of a property of its training set; unknown values are left out.

    Errors: `ValueError` for a property that is never known or does not vary.

    >>> property_scale({"x": torch.tensor([1.0, 2.0, 3.0])}, "x").mean
    2.0
    """
    values = properties[name].double()
    flat = values.reshape(len(values), -1)
    known = ~flat.isnan().any(1)
    if int(known.sum()) < 2:
        raise ValueError(f"property {name!r} is known of less than two structures")
    mean, std = float(flat[known].mean()), float(flat[known].std())
    if values.ndim > 1:
        return PropertyScale(mean, std, size=flat.shape[1])
    quantiles = torch.quantile(values[known].cpu(), torch.linspace(0.0, 1.0, N_QUANTILES, dtype=torch.float64))
    return PropertyScale(mean, std, None, tuple(quantiles.tolist()), _correlations(properties, name, others))


def _correlations(properties: Mapping[str, Tensor], name: str, others: Sequence[str]) -> dict[str, float]:
    """Pearson's coefficients with the other numbers, of structures of which both are known."""
    found = {}
    for other in others:
        if other not in properties or properties[other].ndim > 1:
            continue
        pair = torch.stack([properties[name].double(), properties[other].double()])
        pair = pair[:, ~pair.isnan().any(0)]
        if pair.shape[1] > 2 and bool((pair.std(1) > 0).all()):
            found[other] = float(torch.corrcoef(pair)[0, 1])
    return found


def learning_rate(step: int, config: TrainingConfig, *, seconds: float = 0.0) -> float:
    """Rate of a step that begins after so many seconds of training: linear warm-up, then half a cosine.

    >>> config = TrainingConfig(steps=100, warmup=10, learning_rate=1.0, final_rate=0.0)
    >>> learning_rate(4, config), learning_rate(10, config), round(learning_rate(100, config), 6)
    (0.5, 1.0, 0.0)
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    if config.minutes is not None:
        done = max(done, seconds / (60.0 * config.minutes))
    falling = 0.5 * (1 + cos(pi * min(done, 1.0)))
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * falling)
