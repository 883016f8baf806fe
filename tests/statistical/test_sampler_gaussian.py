"""Every sampler against the exact score of a Gaussian: moments of positions and elements after a full run."""

from math import sqrt

import pytest
import torch

from amden.diffusion.corruption import corrupt, gaussian_noise, prior
from amden.diffusion.denoiser import Sample
from amden.diffusion.sampler import euler_maruyama, probability_flow, probability_flow_heun, time_grid
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.segment import centred
from amden.testing import GaussianOracle

DIFFUSION = Diffusion()
ORACLE = GaussianOracle(DIFFUSION, spread=0.3, element_mean=(0.8, 0.2), element_spread=0.2)
N_STEPS = {"euler_maruyama": 200, "probability_flow": 250, "probability_flow_heun": 50}
BIAS = 0.02
"""Of the variance, from the steps and from the last step, s²/(s² + σ²) for each of positions and elements."""


def sampled(name: str, start: Sample, streams: Streams) -> Sample:
    times = time_grid(DIFFUSION, n_steps=N_STEPS[name])
    if name == "euler_maruyama":
        return euler_maruyama(ORACLE, start, diffusion=DIFFUSION, times=times, streams=streams)
    flow = {"probability_flow": probability_flow, "probability_flow_heun": probability_flow_heun}[name]
    return flow(ORACLE, start, diffusion=DIFFUSION, times=times)


def check_moments(end: Sample) -> None:
    """Means and variances of the data; with n atoms a system, 1 - 1/n of the positions' variance."""
    n = len(end.positions)
    about = centred(end.positions, end.system, n_systems=len(end))
    variance = 0.09 * (1 - len(end) / n)
    assert about.square().mean().item() == pytest.approx(variance, rel=BIAS + 4 * sqrt(2 / (3 * n)))
    assert end.elements.mean(0).tolist() == pytest.approx([0.8, 0.2], abs=0.005 + 4 * 0.2 / sqrt(n))
    assert end.elements.var(0).tolist() == pytest.approx([0.04] * 2, rel=2 * BIAS + 4 * sqrt(2 / n))
    independent = torch.corrcoef(torch.cat([about, end.elements], 1).T) - torch.eye(5)
    assert independent.abs().max() < 5 / sqrt(n)


@pytest.mark.parametrize("sampler", N_STEPS)
@pytest.mark.parametrize("n_atoms", [[4000], [4] * 1000])
def test_data_is_recovered_from_its_own_corruption(sampler, n_atoms):
    """Forward to t_max, then back by independent random numbers."""
    counts = torch.tensor(n_atoms)
    streams = Streams.of(spawn_seeds(0, len(n_atoms)), counts)
    empty = Sample(
        torch.zeros(sum(n_atoms), 3), torch.zeros(sum(n_atoms), 2), torch.eye(3).expand(len(n_atoms), 3, 3), counts
    )
    clean = ORACLE.drawn(empty, torch.zeros(len(n_atoms)), streams, draw=0)
    t_max = torch.full((len(n_atoms),), DIFFUSION.t_max)
    start = corrupt(clean, t_max, gaussian_noise(clean, streams, draw=1), DIFFUSION)
    end = sampled(sampler, start, streams)
    check_moments(end)
    if sampler == "euler_maruyama":
        forgotten = torch.corrcoef(torch.stack([end.elements[:, 0], clean.elements[:, 0]]))[0, 1]
        assert forgotten.abs() < 5 / sqrt(sum(n_atoms))


def test_elements_are_reached_from_the_prior():
    """The prior N(0, σ_max²) stands for the exact marginal at t_max; the positions' prior needs a periodic oracle."""
    n_atoms = torch.tensor([6000])
    streams = Streams.of(spawn_seeds(1, 1), n_atoms)
    start = prior(torch.eye(3)[None], n_atoms, width=2, diffusion=DIFFUSION, streams=streams)
    end = sampled("euler_maruyama", start, streams)
    assert end.elements.mean(0).tolist() == pytest.approx([0.8, 0.2], abs=0.005 + 4 * 0.2 / sqrt(6000))
    assert end.elements.var(0).tolist() == pytest.approx([0.04] * 2, rel=2 * BIAS + 4 * sqrt(2 / 6000))
