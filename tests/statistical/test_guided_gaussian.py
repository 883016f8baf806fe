"""Sampling with guidance reaches the tilted distribution, which for two Gaussians is known; random conditions are
distributed and correlated as the training set."""

from math import asin, pi, sqrt

import pytest
import torch

from amden.diffusion.denoiser import Sample
from amden.diffusion.guidance import Guided, Independent
from amden.diffusion.hmc import HMC_DRAW, Chain, hmc_iteration
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.testing import GaussianOracle, PairDenoiser, random_sample

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


def drawn(correlation: float, *, t: float = 0.3, n: int = 20_000) -> dict[str, torch.Tensor]:
    """Conditions of many systems at one time: uniform numbers, and the exponential of normal ones."""
    sample = random_sample([1], width=0, conditions=["level", "size"])
    sample = Sample(
        sample.positions.repeat(n, 1),
        sample.elements.repeat(n, 1),
        sample.cell.repeat(n, 1, 1),
        sample.n_atoms.repeat(n),
        {name: values.repeat(n) for name, values in sample.conditions.items()},
    )
    normal = torch.special.ndtri(torch.linspace(0.0, 1.0, 1001, dtype=torch.float64)[1:-1])
    tables = {"level": torch.linspace(10.0, 20.0, 101), "size": torch.exp(0.25 * normal)}
    streams = Streams.of(spawn_seeds(11, n), sample.n_atoms)
    both = {"level": {"size": correlation}, "size": {"level": correlation}}
    independent = Independent.of(PairDenoiser(), tables, streams, correlation=both)
    return dict(independent.shuffled(sample, torch.full((n,), t, dtype=torch.float64)).conditions)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_random_conditions_have_the_quantiles_of_the_training_set(correlation):
    seen, p = drawn(correlation), torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    error = 5 * (p * (1 - p) / 20_000).sqrt()  # of a quantile, as a share of structures
    exact = {"level": (seen["level"] - 10.0) / 10.0, "size": torch.special.ndtr(4.0 * seen["size"].log())}
    for name, share in exact.items():
        assert ((torch.quantile(share, p) - p).abs() < error + 1e-3).all(), name


@pytest.mark.parametrize("correlation", [0.0, 0.8, -0.8])
def test_random_conditions_are_correlated_as_the_training_set(correlation):
    """Spearman's coefficient of a Gaussian copula is (6/π) asin(ρ/2); Pearson's of the logarithm with Φ(z) is
    ρ sqrt(3/π)."""
    seen = drawn(correlation)
    ranks = torch.stack([values.argsort().argsort().double() for values in seen.values()])
    assert float(torch.corrcoef(ranks)[0, 1]) == pytest.approx(6 / pi * asin(correlation / 2), abs=5 / sqrt(20_000))
    pair = torch.stack([seen["level"], seen["size"].log()])
    assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(correlation * sqrt(3 / pi), abs=5 / sqrt(20_000))


def test_random_conditions_of_two_times_are_independent():
    one, other = drawn(0.8), drawn(0.8, t=0.3049)
    pairs = [(one[a], other[b]) for a in one for b in other]
    assert all(abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 5 / sqrt(20_000) for pair in pairs)
