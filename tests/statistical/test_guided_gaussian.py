"""Sampling with guidance reaches the tilted distribution, which for two Gaussians is known."""

from math import sqrt

import pytest
import torch

from amden.diffusion.denoiser import Sample
from amden.diffusion.guidance import Guided
from amden.diffusion.hmc import HMC_DRAW, Chain, hmc_iteration
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.testing import GaussianOracle

DIFFUSION, W, SYSTEMS, ATOMS, T = Diffusion(), 0.7, 1500, 4, 0.3


def test_guided_energy_samples_the_tilted_gaussian():
    narrow = GaussianOracle(DIFFUSION, spread=0.2, element_mean=(1.0,), element_spread=0.3)
    broad = GaussianOracle(DIFFUSION, spread=0.5, element_mean=(0.2,), element_spread=0.8)
    guided = Guided(narrow, broad, weight=W)
    n_atoms = torch.full((SYSTEMS,), ATOMS)
    start = Sample(
        torch.zeros(SYSTEMS * ATOMS, 3, dtype=torch.float64),
        torch.zeros(SYSTEMS * ATOMS, 1, dtype=torch.float64),
        100.0 * torch.eye(3, dtype=torch.float64).expand(SYSTEMS, 3, 3),
        n_atoms,
    )
    t, streams = torch.full((SYSTEMS,), T, dtype=torch.float64), Streams.of(spawn_seeds(3, SYSTEMS), n_atoms)
    chain = Chain.at(guided, start, t)
    for i in range(40):
        step = torch.full_like(t, 0.6)
        draw = HMC_DRAW + 2 * i
        how = {"n_verlet": 4, "diffusion": DIFFUSION, "streams": streams, "draw": draw, "elements": True}
        chain = hmc_iteration(guided, chain, t=t, step=step, **how).chain
    alpha, sigma_e, sigma = (
        float(f(t[:1])) for f in (DIFFUSION.elements.alpha, DIFFUSION.elements.sigma, DIFFUSION.positions.sigma)
    )
    v1, v0 = (alpha * 0.3) ** 2 + sigma_e**2, (alpha * 0.8) ** 2 + sigma_e**2
    precision = (1 + W) / v1 - W / v0
    mean = alpha * ((1 + W) * 1.0 / v1 - W * 0.2 / v0) / precision
    elements = chain.sample.elements
    assert float(elements.mean()) == pytest.approx(mean, abs=5 / sqrt(precision * SYSTEMS * ATOMS))
    assert float(elements.var()) == pytest.approx(1 / precision, rel=5 * sqrt(2 / (SYSTEMS * ATOMS)))
    assert mean > 1.05 * alpha, "beyond the conditional mean"
    v = 1 / ((1 + W) / (0.2**2 + sigma**2) - W / (0.5**2 + sigma**2))
    spread = float(chain.sample.positions.square().mean()) / (1 - 1 / ATOMS)
    assert spread == pytest.approx(v, rel=5 * sqrt(2 / (SYSTEMS * 9)))
