"""Langevin dynamics in the score: relaxes samples along p_t while they are denoised, without an energy.

The score is the force of p_t = exp(-E), so dynamics with friction γ sample it (eq. 1 of the paper, with inertia; a
corrector of Song et al. 2021, arXiv:2011.13456). In units of σ(t) and of mass 1, for each atom

    dx = σ p ds,    dp = -ε ds - γ p ds + √(2γ) dW,    ε = -σ ∇ log p_t

by the splitting BAOAB (Leimkuhler and Matthews 2013, 10.1093/amrx/abs010), one evaluation of the network a step; in a
harmonic well its positions have the exact distribution at any stable step, elsewhere they are off by order dt². There
is no rejection, and none is missed: the error is spread over hundreds of coordinates, of which Metropolis sees the sum.
A network's score is not quite a gradient and does work on closed paths; friction carries the heat away, and the kinetic
temperature, 1 in equilibrium, tells whether it does.
"""

from dataclasses import dataclass, replace
from math import exp, sqrt
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from amden.diffusion.corruption import gaussian_noise
from amden.diffusion.denoiser import Denoiser, Noise, Sample, predicted
from amden.diffusion.schedule import Diffusion
from amden.random import Streams
from amden.segment import segment_sum

LANGEVIN_DRAW: Final = 5 << 32
"""Draw of the first denoising step's momenta; each step of the dynamics takes another."""


@dataclass(frozen=True)
class LangevinConfig:
    """How samples are refined."""

    __pydantic_config__ = {"extra": "forbid"}

    n_steps: int = 45
    """Steps of the dynamics before each denoising step."""
    t_min: float = 0.08
    """They are done at times from here …"""
    t_max: float = 0.18
    """… to here."""
    step: float = 0.3
    """dt; the stiffest motion has the period 2π or more, as noise is added to whatever the data are."""
    friction: float = 1.0
    """γ, per unit of the time of the dynamics."""
    elements: bool = False
    """Move elements too, not positions alone."""

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise ValueError(f"`n_steps` must be at least 1, got {self.n_steps}")
        if not 0.0 <= self.t_min < self.t_max <= 1.0:
            raise ValueError(f"`t_min` < `t_max` must lie in [0, 1], got {self.t_min} and {self.t_max}")
        if not 0.0 < self.step < 2.0:
            raise ValueError(f"`step` must lie in (0, 2), beyond which nothing is stable, got {self.step}")
        if not self.friction > 0.0:
            raise ValueError(f"`friction` must be positive, got {self.friction}")


class Warmth(NamedTuple):
    """How the last dynamics went."""

    temperature: float
    """Mean kinetic temperature at its end; 1 in equilibrium."""

    def __str__(self) -> str:
        return f"temperature {self.temperature:.3f} (1 in equilibrium)"


@torch.no_grad()
def langevin_dynamics(
    denoiser: Denoiser,
    sample: Sample,
    *,
    t: float,
    config: LangevinConfig,
    diffusion: Diffusion,
    streams: Streams,
    draw: int,
) -> tuple[Sample, Noise, Float[Tensor, " systems"]]:
    """The sample after `config.n_steps` steps at time t, the noise in it and the kinetic temperature of each system.

    Momenta begin at random, with the numbers of `draw`; the steps take the next `n_steps` draws.

    >>> from amden.testing import GaussianOracle, random_sample
    >>> oracle, sample = GaussianOracle(Diffusion()), random_sample([4])
    >>> end, noise, temperature = langevin_dynamics(
    ...     oracle, sample, t=0.3, config=LangevinConfig(n_steps=5), diffusion=Diffusion(),
    ...     streams=Streams.of(torch.tensor([7]), sample.n_atoms), draw=LANGEVIN_DRAW,
    ... )
    >>> end.positions.shape, temperature.shape
    (torch.Size([4, 3]), torch.Size([1]))
    """
    now = sample.positions.new_full((), t)
    reach = 0.5 * config.step * diffusion.positions.sigma(now), 0.5 * config.step * diffusion.elements.sigma(now)
    keep = exp(-config.friction * config.step)
    momentum = _drawn(sample, streams, draw, config)
    noise = predicted(denoiser, sample, t)
    for k in range(config.n_steps):
        momentum = _kicked(momentum, noise, 0.5 * config.step, config)
        sample = _drifted(sample, momentum, reach)
        kick = _drawn(sample, streams, draw + 1 + k, config)
        momentum = Noise(
            keep * momentum.positions + sqrt(1 - keep**2) * kick.positions,
            keep * momentum.elements + sqrt(1 - keep**2) * kick.elements,
        )
        sample = _drifted(sample, momentum, reach)
        noise = predicted(denoiser, sample, t)
        momentum = _kicked(momentum, noise, 0.5 * config.step, config)
    return sample, noise, _temperature(momentum, sample, config)


class LangevinRefinement:
    """Langevin dynamics before each denoising step with t in the range of `config`: a `refine` of `euler_maruyama`.

    Nothing is carried from one denoising step to the next, so that going on needs no state but the sample.

    >>> from amden.diffusion.sampler import euler_maruyama, time_grid
    >>> from amden.testing import GaussianOracle, random_sample
    >>> oracle, start = GaussianOracle(Diffusion()), random_sample([4])
    >>> streams = Streams.of(torch.tensor([7]), start.n_atoms)
    >>> relax = LangevinRefinement(oracle, LangevinConfig(n_steps=3), diffusion=Diffusion(), streams=streams)
    >>> times = time_grid(Diffusion(), n_steps=20)
    >>> end = euler_maruyama(oracle, start, diffusion=Diffusion(), times=times, streams=streams, refine=relax)
    >>> round(relax.steering().temperature, 1) > 0
    True
    """

    def __init__(
        self, denoiser: Denoiser, config: LangevinConfig, *, diffusion: Diffusion, streams: Streams, done: int = 0
    ) -> None:
        """`done` is the number of denoising steps that an interrupted run has made."""
        self._denoiser, self._config, self._diffusion, self._streams = denoiser, config, diffusion, streams
        self._done = done
        self._temperatures: list[Tensor] = []

    def __call__(self, number: int, t: float, sample: Sample) -> tuple[Sample, Noise]:
        """The sample after the dynamics, and the noise in it; nothing here waits for a GPU."""
        config = self._config
        if not config.t_min <= t <= config.t_max:
            return sample, predicted(self._denoiser, sample, t)
        draw = LANGEVIN_DRAW + (self._done + number) * (config.n_steps + 1)
        how = {"config": config, "diffusion": self._diffusion, "streams": self._streams}
        sample, noise, temperature = langevin_dynamics(self._denoiser, sample, t=t, draw=draw, **how)
        self._temperatures.append(temperature.mean())
        return sample, noise

    def steering(self, *, last: int = 20) -> Warmth:
        """How the `last` dynamics went, over all systems; waits for a GPU."""
        if not self._temperatures:
            return Warmth(float("nan"))
        return Warmth(float(torch.stack(self._temperatures[-last:]).mean()))

    def state(self) -> None:
        """What going on needs beside the sample: nothing."""

    def record(self) -> None:
        """Langevin dynamics know no energies to take down."""


def _drawn(sample: Sample, streams: Streams, draw: int, config: LangevinConfig) -> Noise:
    found = gaussian_noise(sample, streams, draw=draw)
    return found if config.elements else replace(found, elements=torch.zeros_like(found.elements))


def _kicked(momentum: Noise, noise: Noise, step: float, config: LangevinConfig) -> Noise:
    elements = momentum.elements - step * noise.elements if config.elements else momentum.elements
    return Noise(momentum.positions - step * noise.positions, elements)


def _drifted(sample: Sample, momentum: Noise, reach: tuple[Tensor, Tensor]) -> Sample:
    return replace(
        sample,
        positions=sample.positions + reach[0] * momentum.positions,
        elements=sample.elements + reach[1] * momentum.elements,
    )


def _temperature(momentum: Noise, sample: Sample, config: LangevinConfig) -> Float[Tensor, " systems"]:
    """Σ p² over the degrees of freedom, without the three of a system as a whole."""
    squares = momentum.positions.double().square().sum(1)
    freedom = 3.0 * (sample.n_atoms - 1).clamp(min=1)
    if config.elements:
        squares = squares + momentum.elements.double().square().sum(1)
        freedom = freedom + sample.elements.shape[1] * sample.n_atoms
    return segment_sum(squares, sample.system, n_systems=len(sample)) / freedom
