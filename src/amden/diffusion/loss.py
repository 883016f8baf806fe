"""Score matching (eq. 17): what training minimises, for each system, and the times it is taken at.

The loop, the optimiser and the logs live in `training`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from amden.diffusion.corruption import corrupt
from amden.diffusion.denoiser import Denoiser, Noise, Sample
from amden.diffusion.schedule import Diffusion
from amden.segment import segment_mean


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss; that of the positions is 1."""

    __pydantic_config__ = {"extra": "forbid"}

    elements: float = 0.5
    """λ of eq. 17: weight of the error in the elements' noise."""

    def __post_init__(self) -> None:
        if not self.elements >= 0:
            raise ValueError(f"`elements` must not be negative, got {self.elements}")


@dataclass(frozen=True)
class TimeBand:
    """Times that training dwells on, such as those at which a network of bonds comes about."""

    __pydantic_config__ = {"extra": "forbid"}

    low: float
    """The least of them."""
    high: float
    """The largest."""
    share: float
    """Share of the times that is drawn evenly between the two."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError(f"`low` < `high` must lie in [0, 1], got {self.low} and {self.high}")
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"`share` must lie in (0, 1), got {self.share}")


@dataclass(frozen=True, eq=False)
class Losses:
    """Mean squared error of the predicted noise of each system; a prediction of zero scores 1."""

    positions: Float[Tensor, " systems"]
    """Mean over atoms and the three directions."""
    elements: Float[Tensor, " systems"]
    """Mean over atoms and classes; zero where there is nothing to tell apart."""

    def total(self, weights: LossWeights) -> Float[Tensor, " systems"]:
        """Loss of each system, positions + λ · elements (eq. 17)."""
        return self.positions + weights.elements * self.elements


def noise_error(predicted: Noise, noise: Noise, sample: Sample) -> Losses:
    """Mean squared difference between predicted and true noise of each system."""

    def error(a: Tensor, b: Tensor) -> Tensor:
        squared = (a - b).square()
        each = squared.mean(1) if squared.shape[1] else squared.sum(1)
        return segment_mean(each, sample.system, n_systems=len(sample))

    return Losses(error(predicted.positions, noise.positions), error(predicted.elements, noise.elements))


def score_matching(
    denoiser: Denoiser,
    sample: Sample,
    *,
    t: Float[Tensor, " systems"],
    noise: Noise,
    diffusion: Diffusion,
    teacher: Denoiser | None = None,
) -> Losses:
    """Errors of a denoiser on clean samples to which `noise` was added at times `t` (eq. 3, 17).

    With a `teacher` they are the differences from what that one predicts: nearly the mean of all noise that leads to
    the same noisy sample, about which a drawn noise scatters by most of its variance. A student that has far to go
    gains by that, but it inherits the teacher's errors.

    >>> from amden.testing import random_sample
    >>> sample, t = random_sample([2]), torch.tensor([0.5], dtype=torch.float64)
    >>> noise = Noise(torch.ones_like(sample.positions), sample.elements)
    >>> silent = lambda noisy, t: Noise(torch.zeros_like(noisy.positions), noisy.elements)
    >>> score_matching(silent, sample, t=t, noise=noise, diffusion=Diffusion()).positions.tolist()
    [1.0]
    """
    noisy = corrupt(sample, t, noise, diffusion)
    if teacher is not None:
        with torch.no_grad():
            noise = teacher(noisy, t)
    return noise_error(denoiser(noisy, t), noise, sample)


def sample_times(
    n: int,
    diffusion: Diffusion,
    generator: torch.Generator,
    *,
    stratified: bool = False,
    exponent: float = 0.0,
    band: TimeBand | None = None,
) -> Float[Tensor, " n"]:
    """Times of `n` systems in (t_min, t_max), each of density ∝ t^-exponent, but for the share that a `band` takes.

    0 is uniform, as in the paper. 1 weights the levels as the likelihood of the data does: there the squared error of
    the noise counts g²/(2σ²) = 1/t (Song et al. 2021, arXiv:2101.09258; eq. 4, 7).

    `stratified` spreads the batch evenly over the range: system i takes the quantile (u + i/n) mod 1 with one random u,
    so that each time has the same density but the batch's mean loss varies less (Kingma et al. 2021, arXiv:2107.00630,
    appendix I.1).

    >>> times = sample_times(4, Diffusion(), torch.Generator().manual_seed(0), stratified=True)
    >>> torch.floor(4 * (times - 0.01) / 0.98).sort().values.tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    device = generator.device
    if stratified:
        u = torch.rand((1,), generator=generator, device=device)
        quantile = torch.remainder(u + torch.arange(n, device=device) / n, 1.0)
    else:
        quantile = torch.rand((n,), generator=generator, device=device)
    if band is None:
        return _power_law(quantile, diffusion, exponent)
    low, high = max(band.low, diffusion.t_min), min(band.high, diffusion.t_max)
    others = _power_law(((quantile - band.share) / (1.0 - band.share)).clamp(min=0.0), diffusion, exponent)
    return torch.where(quantile < band.share, low + (high - low) * quantile / band.share, others)


def _power_law(quantile: Float[Tensor, " n"], diffusion: Diffusion, exponent: float) -> Float[Tensor, " n"]:
    """Where the integral of t^-exponent has come to this share."""
    low, high, power = diffusion.t_min, diffusion.t_max, 1.0 - exponent
    if abs(power) < 1e-6:
        return low * (high / low) ** quantile
    return (low**power + (high**power - low**power) * quantile) ** (1.0 / power)
