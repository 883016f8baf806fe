"""From noise to structures: the reverse SDE (eq. 6, 7) and the probability-flow ODE as flat functions over a denoiser.

Every method is one formula with other coefficients, for positions and for elements:

    x ← keep · x + drift · ε + kick · z

with ε the predicted and z fresh noise, neither of which moves a system as a whole. The coefficients follow from the
schedule, are computed on the CPU in float64 and enter as plain numbers, so nothing in a step waits for a GPU. Samplers
run without autograd: a denoiser that differentiates must enable it for itself.

========= ============================== ===========================
symbol    variable                       meaning
========= ============================== ===========================
α, σ      `schedule.alpha`, `.sigma`     x_t = α x_0 + σ ε
β         `schedule.beta`                -d ln α/dt
g²        `schedule.g2`                  dσ²/dt + 2βσ²
t, s      `times[i]`, `times[i + 1]`     start and end of a step
Δt        t - s                          positive: time runs back
========= ============================== ===========================

A last step to s = 0 is the same in all of them, the posterior mean (Tweedie's formula) x_0 = (x - σ ε)/α.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from amden.diffusion.corruption import gaussian_noise
from amden.diffusion.denoiser import Denoiser, Noise, Sample, predicted
from amden.diffusion.schedule import Diffusion, Schedule
from amden.random import Streams

Callback = Callable[[int, float, Sample], None]
"""Called after each step with the number of steps done, the time reached and the sample there."""

Refinement = Callable[[int, float, Sample], tuple[Sample, Noise]]
"""Called before each step with its number, the time and the sample there; returns the sample to go on from and
the noise in it. `hmc` has one."""

STEP_DRAW: Final = 1 << 32
"""Draw of a sampler's first step; each step takes the next."""


def time_grid(diffusion: Diffusion, *, n_steps: int = 200) -> Float[Tensor, " times"]:
    """Times from t_max to t_min in `n_steps` equal intervals, then 0 (section IV.B.1); float64 on the CPU.

    >>> time_grid(Diffusion(), n_steps=2).tolist()
    [0.99, 0.5, 0.01, 0.0]
    """
    if n_steps < 1:
        raise ValueError(f"`n_steps` must be at least 1, got {n_steps}")
    times = torch.linspace(diffusion.t_max, diffusion.t_min, n_steps + 1, dtype=torch.float64)
    return torch.cat([times, times.new_zeros(1)])


@torch.no_grad()
def euler_maruyama(
    denoiser: Denoiser,
    sample: Sample,
    *,
    diffusion: Diffusion,
    times: Float[Tensor, " times"],
    streams: Streams,
    refine: Refinement | None = None,
    callback: Callback | None = None,
    first_draw: int = STEP_DRAW,
) -> Sample:
    """The reverse SDE by the Euler-Maruyama method (eq. 6, 7), from the sample at `times[0]` down the grid `times`.

        x ← x + β Δt x - (g²/σ) Δt ε + g √Δt z,   weak order 1 in Δt

    A step to t = 0 is not of this form: there g²Δt/σ = 2σ would take away twice the noise that is left, and the kick
    would add √2 σ: the result would be noisier than its start. The posterior mean takes away what is left; all
    that it lacks is the posterior's own spread, below σ(t_min) (0.015 Å for σ_max = 1.5 Å).

    Each system's result depends on its own start and seed, not on the batch, as far as the denoiser keeps to that.
    `refine` may move the sample before each step, along the distribution p_t, and then stands for the denoiser.

    >>> from amden.testing import GaussianOracle, random_sample
    >>> diffusion, start = Diffusion(), random_sample([4])
    >>> streams = Streams.of(torch.tensor([7]), start.n_atoms)
    >>> oracle, times = GaussianOracle(diffusion), time_grid(diffusion, n_steps=10)
    >>> euler_maruyama(oracle, start, diffusion=diffusion, times=times, streams=streams).positions.shape
    torch.Size([4, 3])
    """
    for i, (t, s) in enumerate(pairwise(_checked(times))):
        if refine is None:
            noise = predicted(denoiser, sample, t)
        else:
            sample, noise = refine(i, t, sample)
        if s == 0.0:
            sample = _stepped(sample, noise, _steps(_flow, diffusion, t, s))
        else:
            kick = gaussian_noise(sample, streams, draw=first_draw + i)
            sample = _stepped(sample, noise, _steps(_diffusive, diffusion, t, s), kick)
        if callback is not None:
            callback(i + 1, s, sample)
    return sample


@torch.no_grad()
def probability_flow(
    denoiser: Denoiser,
    sample: Sample,
    *,
    diffusion: Diffusion,
    times: Float[Tensor, " times"],
    callback: Callback | None = None,
) -> Sample:
    """The probability-flow ODE by Euler's method, one evaluation a step, order 1: no noise, the same marginals p_t.

    dx/dt = -β x + ½ (g²/σ) ε reads d(x/α) = ε d(σ/α), which leaves nothing stiff (DDIM: Song et al. 2021,
    arXiv:2010.02502, eq. 13):

        x ← (α_s/α_t) x + (σ_s - σ_t α_s/α_t) ε

    >>> from amden.testing import GaussianOracle, random_sample
    >>> oracle, start, times = GaussianOracle(Diffusion()), random_sample([4]), time_grid(Diffusion(), n_steps=10)
    >>> probability_flow(oracle, start, diffusion=Diffusion(), times=times).positions.shape
    torch.Size([4, 3])
    """
    for i, (t, s) in enumerate(pairwise(_checked(times))):
        sample = _stepped(sample, predicted(denoiser, sample, t), _steps(_flow, diffusion, t, s))
        if callback is not None:
            callback(i + 1, s, sample)
    return sample


@torch.no_grad()
def probability_flow_heun(
    denoiser: Denoiser,
    sample: Sample,
    *,
    diffusion: Diffusion,
    times: Float[Tensor, " times"],
    callback: Callback | None = None,
) -> Sample:
    """The probability-flow ODE by Heun's method, two evaluations a step, order 2.

    The step of `probability_flow` with the mean of ε at its start and at its predicted end. A step to t = 0, where no
    noise is left to predict, has one evaluation (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

    >>> from amden.testing import GaussianOracle, random_sample
    >>> oracle, start, times = GaussianOracle(Diffusion()), random_sample([4]), time_grid(Diffusion(), n_steps=10)
    >>> probability_flow_heun(oracle, start, diffusion=Diffusion(), times=times).positions.shape
    torch.Size([4, 3])
    """
    for i, (t, s) in enumerate(pairwise(_checked(times))):
        steps = _steps(_flow, diffusion, t, s)
        start = predicted(denoiser, sample, t)
        ahead = _stepped(sample, start, steps)
        sample = ahead if s == 0.0 else _stepped(sample, _mean(start, predicted(denoiser, ahead, s)), steps)
        if callback is not None:
            callback(i + 1, s, sample)
    return sample


@dataclass(frozen=True)
class _Step:
    """Coefficients of x ← keep · x + drift · ε + kick · z."""

    keep: float
    drift: float
    kick: float = 0.0


_Rule = Callable[[Schedule, float, float], _Step]


def _diffusive(schedule: Schedule, t: float, s: float) -> _Step:
    now = torch.tensor(t, dtype=torch.float64)
    beta, g2, sigma = (f(now).item() for f in (schedule.beta, schedule.g2, schedule.sigma))
    return _Step(1.0 + beta * (t - s), -g2 / sigma * (t - s), sqrt(g2 * (t - s)))


def _flow(schedule: Schedule, t: float, s: float) -> _Step:
    times = torch.tensor([t, s], dtype=torch.float64)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    return _Step(alpha_s / alpha_t, sigma_s - sigma_t * alpha_s / alpha_t)


def _steps(rule: _Rule, diffusion: Diffusion, t: float, s: float) -> tuple[_Step, _Step]:
    return rule(diffusion.positions, t, s), rule(diffusion.elements, t, s)


def _stepped(sample: Sample, noise: Noise, steps: tuple[_Step, _Step], kick: Noise | None = None) -> Sample:
    def moved(step: _Step, x: Tensor, epsilon: Tensor, z: Tensor | None) -> Tensor:
        flown = torch.add(step.keep * x, epsilon, alpha=step.drift)
        return flown if z is None else torch.add(flown, z, alpha=step.kick)

    return replace(
        sample,
        positions=moved(steps[0], sample.positions, noise.positions, kick.positions if kick else None),
        elements=moved(steps[1], sample.elements, noise.elements, kick.elements if kick else None),
    )


def _mean(a: Noise, b: Noise) -> Noise:
    return Noise(0.5 * (a.positions + b.positions), 0.5 * (a.elements + b.elements))


def _checked(times: Float[Tensor, " times"]) -> list[float]:
    values = times.tolist()
    if len(values) < 2 or not all(1.0 > t > s >= 0.0 for t, s in pairwise(values)):
        raise ValueError(f"`times` must fall strictly from below 1 to 0 or above, got {values}")
    return values
