from math import sqrt

import pytest
import torch

from amden.diffusion.corruption import gaussian_noise
from amden.diffusion.denoiser import Noise
from amden.diffusion.loss import Losses, LossWeights, TimeBand, noise_error, sample_times, score_matching
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.testing import GaussianOracle, random_sample


def test_errors_are_means_over_the_atoms_of_each_system():
    sample = random_sample([2, 3], width=2)
    noise = Noise(torch.zeros_like(sample.positions), torch.zeros_like(sample.elements))
    predicted = Noise(noise.positions.clone(), noise.elements.clone())
    predicted.positions[0, 0] = 3.0
    predicted.elements[2:] = 0.5
    losses = noise_error(predicted, noise, sample)
    assert losses.positions.tolist() == pytest.approx([9.0 / 6, 0.0])
    assert losses.elements.tolist() == pytest.approx([0.0, 0.25])
    assert losses.total(LossWeights()).tolist() == pytest.approx([1.5, 0.125])
    assert losses.total(LossWeights(elements=2.0)).tolist() == pytest.approx([1.5, 0.5])


def test_a_single_element_costs_nothing():
    sample = random_sample([2, 3])
    noise = gaussian_noise(sample, torch.Generator().manual_seed(0))
    losses = noise_error(noise, noise, sample)
    assert losses.elements.tolist() == [0.0, 0.0]
    assert losses.positions.tolist() == [0.0, 0.0]


def test_the_exact_score_has_the_loss_of_the_posterior():
    """E|ε - E[ε|x]|² = α²s²/v a coordinate for Gaussian data, (1 - 1/n) of it for positions."""
    n, diffusion = 4, Diffusion()
    oracle = GaussianOracle(diffusion, spread=0.4, element_mean=(0.5, -0.5), element_spread=0.7)
    template = random_sample([n] * 2000, width=2)
    streams = Streams.of(spawn_seeds(0, 2000), template.n_atoms)
    clean = oracle.drawn(template, torch.zeros(2000).double(), streams, draw=0)
    for value in (0.1, 0.5, 0.9):
        t = torch.full((2000,), value, dtype=torch.float64)
        losses = score_matching(oracle, clean, t=t, noise=gaussian_noise(clean, streams, draw=1), diffusion=diffusion)
        sigma2, alpha_e, sigma2_e = (1.5 * value) ** 2, *_element_levels(diffusion, value)
        for got, signal2, noise2, share in (
            (losses.positions, 0.16, sigma2, 1 - 1 / n),
            (losses.elements, 0.49 * alpha_e**2, sigma2_e, 1.0),
        ):
            error = 5 * got.std().item() / sqrt(2000)
            assert got.mean().item() == pytest.approx(share * signal2 / (signal2 + noise2), abs=error)


def _element_levels(diffusion: Diffusion, t: float) -> tuple[float, float]:
    now = torch.tensor(t, dtype=torch.float64)
    return diffusion.elements.alpha(now).item(), diffusion.elements.sigma(now).item() ** 2


@pytest.mark.parametrize("stratified", [False, True])
def test_each_time_is_uniform(stratified):
    generator, diffusion = torch.Generator().manual_seed(0), Diffusion(t_min=0.1, t_max=0.9)
    times = torch.stack([sample_times(8, diffusion, generator, stratified=stratified) for _ in range(4000)])
    assert times.min() >= 0.1
    assert times.max() <= 0.9
    first = times[:, 0]
    assert first.mean().item() == pytest.approx(0.5, abs=5 * 0.8 / sqrt(12 * 4000))
    assert first.var().item() == pytest.approx(0.64 / 12, abs=5 * 0.64 / sqrt(180 * 4000))


def test_stratified_times_cover_the_range():
    diffusion = Diffusion()
    for seed in range(20):
        times = sample_times(16, diffusion, torch.Generator().manual_seed(seed), stratified=True)
        fraction = ((times - diffusion.t_min) / (diffusion.t_max - diffusion.t_min)).sort().values
        assert (fraction.diff() - 1 / 16).abs().max() < 1e-5


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_times_have_the_density_asked_for(exponent):
    diffusion = Diffusion(t_min=0.1, t_max=0.9)
    times = sample_times(40_000, diffusion, torch.Generator().manual_seed(0), stratified=True, exponent=exponent)
    counts = torch.histc(times, bins=8, min=0.1, max=0.9)
    edges = torch.linspace(0.1, 0.9, 9)
    mass = edges.log().diff() if exponent == 1.0 else (edges ** (1 - exponent)).diff()
    assert torch.allclose(counts, 40_000 * mass / mass.sum(), atol=2.0)


def test_a_band_takes_its_share_of_the_times():
    diffusion, band = Diffusion(t_min=0.1, t_max=0.9), TimeBand(0.3, 0.5, 0.75)
    generator = torch.Generator().manual_seed(0)
    times = sample_times(40_000, diffusion, generator, stratified=True, exponent=0.5, band=band)
    edges = torch.linspace(0.1, 0.9, 9)
    others = (edges**0.5).diff()
    share = 0.25 * others / others.sum()
    share[2:4] += 0.375
    assert torch.allclose(torch.histc(times, bins=8, min=0.1, max=0.9), 40_000 * share, atol=2.0)
    few = sample_times(8, diffusion, generator, stratified=True, exponent=0.5, band=band)
    assert ((few >= 0.3) & (few < 0.5)).sum() >= 6
    with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\), got 1.0"):
        TimeBand(0.3, 0.5, 1.0)
    with pytest.raises(ValueError, match="`low` < `high` must lie in"):
        TimeBand(0.5, 0.3, 0.5)


def test_the_weight_of_the_elements_must_not_be_negative():
    with pytest.raises(ValueError, match=r"`elements` must not be negative, got -0\.5"):
        LossWeights(elements=-0.5)


def test_losses_carry_gradients_to_the_denoiser():
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    sample = random_sample([4], width=2)

    def denoiser(noisy, t):
        return Noise(scale * noisy.positions, scale * noisy.elements)

    noise = gaussian_noise(sample, torch.Generator().manual_seed(0))
    losses: Losses = score_matching(
        denoiser, sample, t=torch.tensor([0.5], dtype=torch.float64), noise=noise, diffusion=Diffusion()
    )
    losses.total(LossWeights()).mean().backward()
    assert scale.grad is not None
    assert scale.grad.abs() > 0
