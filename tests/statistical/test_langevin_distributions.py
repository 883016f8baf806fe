"""Langevin dynamics on scores known exactly: variances, a mixture with a barrier, and forces that are no gradient."""

from dataclasses import dataclass, replace
from math import sqrt

import pytest
import torch

from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.langevin import LANGEVIN_DRAW, LangevinConfig, langevin_dynamics
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.testing import GaussianOracle, MixtureOracle

DIFFUSION = Diffusion()


def template(systems: int, atoms: int, width: int = 0) -> Sample:
    return Sample(
        torch.zeros(systems * atoms, 3, dtype=torch.float64),
        torch.zeros(systems * atoms, width, dtype=torch.float64),
        100.0 * torch.eye(3, dtype=torch.float64).expand(systems, 3, 3),
        torch.full((systems,), atoms),
    )


def moved(denoiser, sample, *, t=0.3, seed=3, **settings):
    """Sample and temperature."""
    streams = Streams.of(spawn_seeds(seed, len(sample)), sample.n_atoms)
    config = LangevinConfig(**settings)
    how = {"config": config, "diffusion": DIFFUSION, "streams": streams, "draw": LANGEVIN_DRAW}
    end, _, temperature = langevin_dynamics(denoiser, sample, t=t, **how)
    return end, temperature


def test_gaussian_from_a_wrong_start_at_a_large_step():
    """In a harmonic well positions and elements have the variance of p_t at any stable step."""
    oracle = GaussianOracle(DIFFUSION, spread=0.3, element_mean=(0.7, 0.3), element_spread=0.2)
    end, temperature = moved(oracle, template(1500, 4, 2), step=1.0, n_steps=60, elements=True)
    alpha, sigma = (f(torch.tensor(0.3)).item() for f in (DIFFUSION.elements.alpha, DIFFUSION.elements.sigma))
    v_x, v_e = 0.3**2 + 0.45**2, (alpha * 0.2) ** 2 + sigma**2
    got = end.positions.square().mean().item() / (1 - 1 / 4)
    assert got == pytest.approx(v_x, rel=5 * sqrt(2 / (1500 * 9)))
    off = end.elements - alpha * torch.tensor([0.7, 0.3])
    assert off.square().mean().item() == pytest.approx(v_e, rel=5 * sqrt(2 / (1500 * 8)))
    # momenta pay for it: their temperature is 1 - dt² ω²/4, ω = σ/√v the same for all but elements
    stiff = torch.tensor([0.45**2 / v_x] * 9 + [sigma**2 / v_e] * 8)
    assert temperature.mean().item() == pytest.approx((1 - stiff / 4).mean().item(), rel=5 * sqrt(2 / (1500 * 17)))


def test_a_mixture_beyond_a_barrier_keeps_its_weights():
    half = 0.5 * torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    oracle = MixtureOracle(
        DIFFUSION,
        weights=torch.tensor([0.3, 0.7], dtype=torch.float64),
        sites=torch.stack([half, -half], 1),
        elements=torch.zeros(2, 2, 0),
        spread=0.15,
    )
    start = template(1200, 2)
    start = replace(start, positions=torch.stack([half[0], -half[0]]).repeat(1200, 1))  # all in the rarer well
    end, _ = moved(oracle, start, t=0.3, step=0.4, n_steps=150)
    bond = (end.positions[0::2] - end.positions[1::2]).square()
    # the wells overlap at this noise: the mean of Δx² - Δy² tells the weights, ±1 Å² of the bonds themselves
    got = (bond[:, 0] - bond[:, 1]).mean().item()
    assert got == pytest.approx(0.3 - 0.7, abs=5 * (bond[:, 0] - bond[:, 1]).std().item() / sqrt(1200))


@dataclass(frozen=True)
class Swirl:
    """A Gaussian's score with a part that goes round in circles, as a network's may."""

    inner: GaussianOracle
    strength: float

    def __call__(self, sample: Sample, t: torch.Tensor) -> Noise:
        found = self.inner(sample, t)
        x = sample.positions / sample.positions.square().mean().sqrt().clamp(min=1e-3)
        round_and_round = torch.stack([-x[:, 1], x[:, 0], torch.zeros_like(x[:, 0])], 1)
        return replace(found, positions=found.positions + self.strength * round_and_round)


def test_friction_carries_away_the_heat_of_forces_that_are_no_gradient():
    swirl = Swirl(GaussianOracle(DIFFUSION, spread=0.3), 0.3)
    calm, hot = (
        moved(swirl, template(300, 4), step=0.3, n_steps=200, friction=friction)[1].mean().item()
        for friction in (2.0, 0.05)
    )
    assert calm == pytest.approx(1.0, abs=0.1)
    assert hot > 1.3
