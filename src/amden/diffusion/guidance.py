"""Classifier-free guidance (eq. 16) as denoisers made of denoisers: energy denoisers, if made of those."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden.diffusion.denoiser import Denoiser, EnergyDenoiser, Noise, Sample
from amden.random import Streams
from amden.structure import sent

CONDITION_DRAW: Final = 4 << 32
"""Draw of the random conditions of independent condition guidance."""

_TICKS: Final = 2**20
"""Times nearer to each other than one part in so many have the same random conditions."""


@dataclass(frozen=True)
class Unconditional:
    """A denoiser that is asked for no property: every condition is NaN."""

    denoiser: Denoiser

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """Noise predicted without conditions."""
        return self.denoiser(self._blank(sample), t)

    def energy_and_noise(self, sample: Sample, t: Float[Tensor, " systems"]) -> tuple[Float[Tensor, " systems"], Noise]:
        """Energy and noise without conditions."""
        return _energetic(self.denoiser).energy_and_noise(self._blank(sample), t)

    def _blank(self, sample: Sample) -> Sample:
        return replace(
            sample, conditions={name: torch.full_like(values, torch.nan) for name, values in sample.conditions.items()}
        )


@dataclass(frozen=True, eq=False)
class Independent:
    """A denoiser that is asked for random values of the properties asked for, as if for none: independent condition
    guidance (ICG; Sadat et al. 2024, arXiv:2407.02687), for models that never learned to do without a condition.

    Values are drawn from the distribution in the training set by a Gaussian copula, anew for each system at each time:
    normal numbers z ~ N(0, R) with the correlations R of the properties, and of each property its quantile Φ(z). They
    are a function of the system's seed and the time, so that one time has one value, however often it is asked for.
    """

    denoiser: Denoiser
    quantiles: Mapping[str, Float[Tensor, " quantiles"]]
    """Evenly spaced quantiles of each property in the training set."""
    seeds: Int[Tensor, " systems"]
    factor: Float[Tensor, "properties properties"]
    """A with A Aᵀ = R, properties in alphabetical order."""

    @staticmethod
    def of(
        denoiser: Denoiser,
        quantiles: Mapping[str, Float[Tensor, " quantiles"]],
        streams: Streams,
        *,
        correlation: Mapping[str, Mapping[str, float]] | None = None,
    ) -> "Independent":
        """With the seeds of `streams`, and the `correlation` of each property with others; 0 where none is given.

        Those are coefficients of the values and stand for those of the normal numbers, which are a little larger where
        values are not normal.
        """
        factor = _copula_factor(sorted(quantiles), correlation or {})
        return Independent(denoiser, quantiles, streams.seeds, sent(factor, streams.seeds.device))

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """Noise predicted for random conditions."""
        return self.denoiser(self.shuffled(sample, t), t)

    def energy_and_noise(self, sample: Sample, t: Float[Tensor, " systems"]) -> tuple[Float[Tensor, " systems"], Noise]:
        """Energy and noise for random conditions."""
        return _energetic(self.denoiser).energy_and_noise(self.shuffled(sample, t), t)

    def shuffled(self, sample: Sample, t: Float[Tensor, " systems"]) -> Sample:
        """The sample with a random value of each property that it asks for."""
        tick = torch.round(t * _TICKS).long()  # so that t may be wrong by a rounding
        streams = Streams(self.seeds, torch.arange(len(t), device=t.device), tick)
        z = streams.normal((len(self.quantiles),), draw=CONDITION_DRAW)
        # a sum, as matrix products are rounded differently in batches of different sizes
        level = torch.special.ndtr((z[:, None] * self.factor).sum(-1))
        places = dict(zip(sorted(self.quantiles), level.unbind(1), strict=True))
        drawn = {}
        for name, asked in sample.conditions.items():
            table = self.quantiles[name].to(asked)
            place = places[name].to(asked) * (len(table) - 1)
            below = place.long().clamp(max=len(table) - 2)
            value = torch.lerp(table[below], table[below + 1], place - below)
            drawn[name] = torch.where(torch.isnan(asked), asked, value)
        return replace(sample, conditions=drawn)


def _copula_factor(
    names: list[str], correlation: Mapping[str, Mapping[str, float]]
) -> Float[Tensor, "properties properties"]:
    """The symmetric root of the correlation matrix, rows of unit length.

    Coefficients measured pair by pair may belong to no distribution: negative eigenvalues count as 0 then.
    """
    rows = [[1.0 if a == b else correlation.get(a, {}).get(b, 0.0) for b in names] for a in names]
    values, vectors = torch.linalg.eigh(torch.tensor(rows, dtype=torch.float64))
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    return torch.nn.functional.normalize(root, dim=1).float()


@dataclass(frozen=True)
class Guided:
    """Noise pushed away from the unconditional prediction, ε' = (1 + w) ε - w ε̃ (eq. 16).

    It is the noise of p(x|y)^(1 + w) / p(x)^w, whose energy is (1 + w) E - w Ẽ.

    >>> from amden.testing import PairDenoiser, random_sample
    >>> model = PairDenoiser()
    >>> guided = Guided(model, Unconditional(model), weight=1.0)
    >>> guided(random_sample([4], conditions=["modulus"]), torch.tensor([0.5], dtype=torch.float64)).positions.shape
    torch.Size([4, 3])
    """

    conditional: Denoiser
    unconditional: Denoiser
    """Another model, `Unconditional(conditional)` for one that was trained with its conditions left out at times, or
    `Independent`."""
    weight: float
    """w, the condition weight; the paper takes 0.25 for its multi-element glass and 1 for silica."""
    above: float = 0.0
    """Samplers guide at times from here on only (guidance in an interval; Kynkäänniemi et al. 2024, arXiv:2404.07724):
    below, they follow `conditional`, at half the cost."""

    def at(self, t: float) -> Denoiser:
        """What samplers follow at a time."""
        return self if t >= self.above else self.conditional

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """Guided noise."""
        return self._combined(self.conditional(sample, t), self.unconditional(sample, t))

    def energy_and_noise(self, sample: Sample, t: Float[Tensor, " systems"]) -> tuple[Float[Tensor, " systems"], Noise]:
        """Energy and noise of the guided distribution."""
        energy, asked = _energetic(self.conditional).energy_and_noise(sample, t)
        reference, free = _energetic(self.unconditional).energy_and_noise(sample, t)
        return (1 + self.weight) * energy - self.weight * reference, self._combined(asked, free)

    def _combined(self, asked: Noise, free: Noise) -> Noise:
        w = self.weight
        return Noise(
            (1 + w) * asked.positions - w * free.positions,
            (1 + w) * asked.elements - w * free.elements,
        )


def _energetic(denoiser: Denoiser) -> EnergyDenoiser:
    if not isinstance(denoiser, EnergyDenoiser):
        raise TypeError(f"{type(denoiser).__name__} predicts the noise alone: it has no energy to be guided by")
    return denoiser
