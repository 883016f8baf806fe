from math import cos, pi, sin, sqrt, tan

import pytest
import torch

from amden.diffusion.corruption import gaussian_noise, prior
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.sampler import STEP_DRAW, euler_maruyama, probability_flow, probability_flow_heun, time_grid
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.segment import centred, segment_mean
from amden.testing import GaussianOracle, random_sample

DIFFUSION = Diffusion()
SHORT = time_grid(DIFFUSION, n_steps=8)


def by_sde(denoiser, sample, *, times=SHORT, seeds=None, callback=None):
    seeds = spawn_seeds(0, len(sample)) if seeds is None else seeds
    streams = Streams.of(seeds, sample.n_atoms)
    return euler_maruyama(denoiser, sample, diffusion=DIFFUSION, times=times, streams=streams, callback=callback)


def by_flow(denoiser, sample, *, times=SHORT, seeds=None, callback=None):
    return probability_flow(denoiser, sample, diffusion=DIFFUSION, times=times, callback=callback)


def by_heun(denoiser, sample, *, times=SHORT, seeds=None, callback=None):
    return probability_flow_heun(denoiser, sample, diffusion=DIFFUSION, times=times, callback=callback)


SAMPLERS = [by_sde, by_flow, by_heun]


def knowing(clean: Sample):
    """The exact denoiser of a data set of one structure."""

    def denoiser(sample: Sample, t: torch.Tensor) -> Noise:
        def noise(schedule, x, x0):
            return (x - schedule.alpha(t)[sample.system, None] * x0) / schedule.sigma(t)[sample.system, None]

        return Noise(
            noise(DIFFUSION.positions, sample.positions, clean.positions),
            noise(DIFFUSION.elements, sample.elements, clean.elements),
        )

    return denoiser


def test_the_grid_is_that_of_the_paper():
    times = time_grid(DIFFUSION)
    assert len(times) == 202
    assert times[[0, -2, -1]].tolist() == pytest.approx([0.99, 0.01, 0.0])
    assert times[:-1].diff().tolist() == pytest.approx([-0.0049] * 200)


def test_a_grid_needs_a_step():
    with pytest.raises(ValueError, match="`n_steps` must be at least 1, got 0"):
        time_grid(DIFFUSION, n_steps=0)


@pytest.mark.parametrize("times", [[0.5], [0.1, 0.5], [0.5, 0.5], [1.0, 0.5], [0.5, -0.1], [0.5, float("nan")]])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_times_must_fall(sampler, times):
    with pytest.raises(ValueError, match="`times` must fall strictly from below 1 to 0 or above, got"):
        sampler(GaussianOracle(DIFFUSION), random_sample([2]), times=torch.tensor(times, dtype=torch.float64))


def test_a_step_is_that_printed_in_the_paper():
    """Eq. 6 and 7 with s = -ε/σ, but for the sign of z, which has no meaning."""
    sample = random_sample([4], width=2)
    streams = Streams.of(spawn_seeds(3, 1), sample.n_atoms)
    oracle = GaussianOracle(DIFFUSION, element_mean=(0.3, 0.7))
    t, dt = 0.6, 0.2
    noise = oracle(sample, torch.tensor([t], dtype=torch.float64))
    z = gaussian_noise(sample, streams, draw=STEP_DRAW)
    alpha, sigma, beta = cos(pi / 2 * t), 1.5 * sin(pi / 2 * t), pi / 2 * tan(pi / 2 * t)
    g2 = pi * alpha * sigma * 1.5 + pi * tan(pi / 2 * t) * sigma**2
    drift = 2 * 1.5**2 * t * noise.positions / (1.5 * t)
    positions = sample.positions - (drift * dt - sqrt(2 * 1.5**2 * t * dt) * z.positions)
    drift = -beta * sample.elements + g2 * noise.elements / sigma
    elements = sample.elements - (drift * dt - sqrt(g2 * dt) * z.elements)
    step = euler_maruyama(
        oracle, sample, diffusion=DIFFUSION, times=torch.tensor([t, t - dt], dtype=torch.float64), streams=streams
    )
    assert torch.allclose(step.positions, positions, rtol=1e-6)
    assert torch.allclose(step.elements, elements, rtol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_known_structure_is_reached_exactly(sampler):
    """Up to the centre of mass, which stays where it began."""
    clean = random_sample([3, 5], width=2, seed=1)
    start = random_sample([3, 5], width=2, seed=2)
    end = sampler(knowing(clean), start)
    about, expected = (centred(s.positions, s.system, n_systems=2) for s in (end, clean))
    assert torch.allclose(about, expected, atol=1e-10)
    assert torch.allclose(end.elements, clean.elements, atol=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_last_step_is_the_posterior_mean(sampler):
    """E[x_0 | x_t] = μ + α s² (x_t - α μ)/(α² s² + σ²)."""
    oracle = GaussianOracle(DIFFUSION, spread=0.3, element_mean=(0.2, 0.8), element_spread=0.1)
    start = random_sample([6], width=2)
    end = sampler(oracle, start, times=torch.tensor([0.05, 0.0], dtype=torch.float64))
    about = centred(start.positions, start.system, n_systems=1)
    moved = centred(end.positions, end.system, n_systems=1)
    assert torch.allclose(moved, 0.09 / (0.09 + (1.5 * 0.05) ** 2) * about)
    alpha, sigma, mean = cos(pi / 2 * 0.05), 1.5 * sin(pi / 2 * 0.05), torch.tensor([0.2, 0.8]).double()
    gain = alpha * 0.01 / (alpha**2 * 0.01 + sigma**2)
    assert torch.allclose(end.elements, mean + gain * (start.elements - alpha * mean))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [0, 1, 3])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_shape_and_precision_stay(sampler, width, dtype):
    start = random_sample([4, 1, 2], width=width, conditions=["modulus"], dtype=dtype)
    before = start.positions.clone(), start.elements.clone()
    end = sampler(GaussianOracle(DIFFUSION, element_mean=(0.5,) * width), start)
    assert end.positions.shape == start.positions.shape
    assert end.elements.shape == (7, width)
    assert end.positions.dtype == end.elements.dtype == dtype
    assert end.cell is start.cell
    assert end.conditions is start.conditions
    assert torch.equal(start.positions, before[0])
    assert torch.equal(start.elements, before[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_system_drifts_whatever_the_denoiser_predicts(sampler):
    def drifting(sample: Sample, t: torch.Tensor) -> Noise:
        return Noise(sample.positions + 3.0, sample.elements)

    start = random_sample([4, 7])
    end = sampler(drifting, start)
    mean = [segment_mean(s.positions, s.system, n_systems=2) for s in (start, end)]
    assert torch.allclose(mean[0], mean[1], atol=1e-6)
    assert (end.positions - start.positions).abs().max() > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_callback_sees_every_step(sampler):
    seen = []
    end = sampler(
        GaussianOracle(DIFFUSION), random_sample([4]), callback=lambda step, t, sample: seen.append((step, t, sample))
    )
    assert [step for step, _, _ in seen] == list(range(1, 10))
    assert [t for _, t, _ in seen] == SHORT[1:].tolist()
    assert seen[-1][2] is end


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_result_is_the_same_in_any_batch_to_the_last_bit(sampler):
    oracle = GaussianOracle(DIFFUSION, element_mean=(0.2, 0.8))
    sizes, seeds = [5, 64, 1, 17], spawn_seeds(7, 4)
    n_atoms = torch.tensor(sizes)
    cell = (10.0 + torch.arange(4))[:, None, None] * torch.eye(3)

    def generated(systems: list[int]) -> list[Sample]:
        streams = Streams.of(seeds[systems], n_atoms[systems])
        start = prior(cell[systems], n_atoms[systems], width=2, diffusion=DIFFUSION, streams=streams)
        end = sampler(oracle, start, seeds=seeds[systems])
        x, e = (v.split(n_atoms[systems].tolist()) for v in (end.positions, end.elements))
        return list(zip(x, e, strict=True))

    alone = [generated([i])[0] for i in range(4)]
    for systems in ([0, 1, 2, 3], [3, 1], [2, 0, 3]):
        for i, got in zip(systems, generated(systems), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, alone[i], strict=True))


def test_the_seed_alone_makes_the_difference():
    start = random_sample([5])
    oracle = GaussianOracle(DIFFUSION)
    one, again, other = (by_sde(oracle, start, seeds=spawn_seeds(s, 1)).positions for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_keeps_no_graph(sampler):
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    end = sampler(lambda sample, t: Noise(scale * sample.positions, sample.elements), random_sample([4]))
    assert not end.positions.requires_grad
