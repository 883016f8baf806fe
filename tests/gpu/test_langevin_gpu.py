"""Langevin dynamics on a GPU: what the CPU does, in float64; nothing waits for the device."""

import warnings

import pytest
import torch

from amden.blank import cubic_blank
from amden.diffusion.corruption import prior
from amden.diffusion.langevin import LangevinConfig, LangevinRefinement
from amden.neighbors import expected_capacity, neighbor_plan
from amden.random import Streams, spawn_seeds

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

LANGEVIN = LangevinConfig(n_steps=4, t_max=0.5)


class Planned:
    """A denoiser with a fixed plan, as generation has it."""

    def __init__(self, denoiser, plan) -> None:
        self.denoiser, self.plan = denoiser, plan

    def __call__(self, sample, t):
        return self.denoiser(sample, t, plan=self.plan)


def relaxing(model, device, dtype):
    blank = cubic_blank(model, 3, atoms=30)
    cell, n_atoms = blank.cell.to(device, dtype), blank.n_atoms.to(device)
    capacity = expected_capacity(blank.cell, blank.n_atoms, cutoff=4.0)
    denoiser = Planned(model.denoiser.to(device, dtype), neighbor_plan(cell, n_atoms, cutoff=4.0, capacity=capacity))
    streams = Streams.of(spawn_seeds(0, 3).to(device), n_atoms)
    start = prior(cell, n_atoms, width=0, diffusion=model.diffusion, streams=streams)
    return LangevinRefinement(denoiser, LANGEVIN, diffusion=model.diffusion, streams=streams), start


def test_the_gpu_moves_as_the_cpu_does(tiny_model):
    found = []
    for device in ("cpu", "cuda"):
        refine, sample = relaxing(tiny_model, device, torch.float64)
        for number, t in enumerate((0.4, 0.3, 0.2)):
            sample, _ = refine(number, t, sample)
        found.append((sample.positions.cpu(), refine.steering().temperature))
    (here, own), (there, other) = found
    torch.testing.assert_close(there, here, rtol=0, atol=1e-5)
    assert other == pytest.approx(own, abs=1e-5)


def test_the_dynamics_wait_for_nothing(tiny_model):
    refine, sample = relaxing(tiny_model, "cuda", torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls the mode a prototype
        sample, _ = refine(0, 0.4, sample)
        torch.cuda.set_sync_debug_mode("error")
        try:
            sample, _ = refine(1, 0.3, sample)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert refine.steering().temperature > 0
