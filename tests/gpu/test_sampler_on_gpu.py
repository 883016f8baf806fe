"""The samplers on a GPU: the CPU's results in float64, and no wait for the device inside a step."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from amden.diffusion.corruption import add_ghosts, corrupt, gaussian_noise, prior
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.sampler import euler_maruyama, probability_flow, probability_flow_heun, time_grid
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.testing import GaussianOracle, random_structures

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

DIFFUSION = Diffusion()
TIMES = time_grid(DIFFUSION, n_steps=50)
STRUCTURES = random_structures([64, 17, 1, 30])
SEEDS = spawn_seeds(0, 4)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Any synchronisation with the device is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def started(device: str) -> tuple[Sample, Streams]:
    structures = STRUCTURES.to(device)
    streams = Streams.of(SEEDS, structures.n_atoms)
    return prior(structures.cell, structures.n_atoms, width=2, diffusion=DIFFUSION, streams=streams), streams


def sampled(name: str, denoiser, start: Sample, streams: Streams) -> Sample:
    if name == "sde":
        return euler_maruyama(denoiser, start, diffusion=DIFFUSION, times=TIMES, streams=streams)
    flow = {"flow": probability_flow, "heun": probability_flow_heun}[name]
    return flow(denoiser, start, diffusion=DIFFUSION, times=TIMES)


@pytest.mark.parametrize("name", ["sde", "flow", "heun"])
def test_the_gpu_gives_what_the_cpu_gives(name):
    """To the float32 precision of the random numbers."""
    oracle = GaussianOracle(DIFFUSION, element_mean=(0.2, 0.8))
    expected, got = (sampled(name, oracle, *started(device)) for device in ("cpu", "cuda"))
    assert got.positions.device.type == "cuda"
    for quantity in ("positions", "elements"):
        assert (getattr(got, quantity).cpu() - getattr(expected, quantity)).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["sde", "flow", "heun"])
def test_no_step_waits_for_the_device(name):
    def denoiser(sample: Sample, t: torch.Tensor) -> Noise:
        return Noise(0.1 * sample.positions, t[sample.system, None] * sample.elements)

    start, streams = started("cuda")
    sampled(name, denoiser, start, streams)
    with no_waiting():
        end = sampled(name, denoiser, start, streams)
    assert torch.isfinite(end.positions).all()


def test_corruption_waits_for_no_device_and_agrees():
    results = []
    for device in ("cpu", "cuda"):
        sample, streams = started(device)
        t = torch.linspace(0.1, 0.9, 4, dtype=torch.float64).to(device)
        sample = replace(sample, positions=STRUCTURES.positions.to(device))
        if device == "cuda":
            with no_waiting():
                noisy = corrupt(sample, t, gaussian_noise(sample, streams, draw=9), DIFFUSION)
        else:
            noisy = corrupt(sample, t, gaussian_noise(sample, streams, draw=9), DIFFUSION)
        results.append(noisy.positions.cpu())
    assert (results[0] - results[1]).abs().max() < 1e-5


def test_ghosts_are_the_same():
    filled = []
    for device in ("cpu", "cuda"):
        structures = STRUCTURES.to(device)
        filled.append(add_ghosts(structures, 0.1, Streams.of(SEEDS, structures.n_atoms)))
    assert filled[0].n_atoms.tolist() == filled[1].n_atoms.tolist()
    assert torch.allclose(filled[0].positions, filled[1].positions.cpu())
