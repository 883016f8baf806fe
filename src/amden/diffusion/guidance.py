"""Classifier-free guidance (eq. 16) as denoisers made of denoisers."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from amden.diffusion.denoiser import Denoiser, Noise, Sample


@dataclass(frozen=True)
class Unconditional:
    """A denoiser that is asked for no property: every condition is NaN."""

    denoiser: Denoiser

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """Noise predicted without conditions."""
        blank = {name: torch.full_like(values, torch.nan) for name, values in sample.conditions.items()}
        return self.denoiser(replace(sample, conditions=blank), t)


@dataclass(frozen=True)
class Guided:
    """Noise pushed away from the unconditional prediction, ε' = (1 + w) ε - w ε̃ (eq. 16).

    >>> from amden.testing import PairDenoiser, random_sample
    >>> model = PairDenoiser()
    >>> guided = Guided(model, Unconditional(model), weight=1.0)
    >>> guided(random_sample([4], conditions=["modulus"]), torch.tensor([0.5], dtype=torch.float64)).positions.shape
    torch.Size([4, 3])
    """

    conditional: Denoiser
    unconditional: Denoiser
    """Another model, or `Unconditional(conditional)` for one that was trained with its conditions left out at times."""
    weight: float
    """w, the condition weight; the paper takes 0.25 for its multi-element glass and 1 for silica."""

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """Guided noise."""
        asked, free = self.conditional(sample, t), self.unconditional(sample, t)
        w = self.weight
        return Noise(
            (1 + w) * asked.positions - w * free.positions,
            (1 + w) * asked.elements - w * free.elements,
        )
