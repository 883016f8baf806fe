"""HMC on a GPU: what the CPU does, in float64; nothing in an iteration waits for the device."""

import warnings
from dataclasses import replace

import pytest
import torch

from amden.blank import cubic_blank
from amden.diffusion.corruption import prior
from amden.diffusion.hmc import HMCConfig, HMCRefinement
from amden.generation import generate
from amden.model import denoiser_of
from amden.neighbors import expected_capacity, neighbor_plan
from amden.random import Streams, spawn_seeds

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

HMC = HMCConfig(n_verlet=3, step=0.1)


@pytest.fixture
def model(tiny_model):
    torch.manual_seed(0)
    denoiser = denoiser_of(replace(tiny_model.denoiser.config, energy=True), tiny_model.diffusion)
    return replace(tiny_model, denoiser=denoiser.eval().requires_grad_(False))


class Planned:
    """An energy denoiser with a fixed plan, as generation has it."""

    def __init__(self, denoiser, plan) -> None:
        self.denoiser, self.plan = denoiser, plan

    def __call__(self, sample, t):
        return self.energy_and_noise(sample, t)[1]

    def energy_and_noise(self, sample, t):
        return self.denoiser.energy_and_noise(sample, t, plan=self.plan)


def chains(model, device, dtype):
    blank = cubic_blank(model, 3, atoms=30)
    cell, n_atoms = blank.cell.to(device, dtype), blank.n_atoms.to(device)
    capacity = expected_capacity(blank.cell, blank.n_atoms, cutoff=4.0)
    denoiser = Planned(model.denoiser.to(device, dtype), neighbor_plan(cell, n_atoms, cutoff=4.0, capacity=capacity))
    streams = Streams.of(spawn_seeds(0, 3).to(device), n_atoms)
    start = prior(cell, n_atoms, width=0, diffusion=model.diffusion, streams=streams)
    return HMCRefinement(denoiser, HMC, diffusion=model.diffusion, streams=streams), start


def test_the_gpu_moves_as_the_cpu_does(model):
    found = []
    for device in ("cpu", "cuda"):
        refine, sample = chains(model, device, torch.float64)
        for number, t in enumerate((0.4, 0.3, 0.2)):
            sample, _ = refine(number, t, sample)
        found.append((sample.positions.cpu(), refine.record()))
    (here, own), (there, other) = found
    torch.testing.assert_close(there, here, rtol=0, atol=1e-5)
    torch.testing.assert_close(other.probability, own.probability, rtol=0, atol=1e-4)


def test_an_iteration_waits_for_nothing(model):
    refine, sample = chains(model, "cuda", torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls the mode a prototype
        sample, _ = refine(0, 0.4, sample)
        torch.cuda.set_sync_debug_mode("error")
        try:
            sample, _ = refine(1, 0.3, sample)
            sample, _ = refine(2, 0.2, sample)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert refine.record().probability.isfinite().all()


def test_generation_on_a_gpu_tells_its_time(model):
    told = []
    made = generate(
        model, cubic_blank(model, 4, atoms=30), n_steps=8, refine=HMC, device="cuda", on_estimate=told.append
    )
    assert made.positions.isfinite().all()
    assert len(told) == 1
    assert told[0] > 0
