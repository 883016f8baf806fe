"""Elements diffused as noisy one-hot vectors come back as the classes that they were, in the right numbers."""

from math import sqrt

import pytest
import torch

from amden.diffusion.corruption import prior
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.sampler import euler_maruyama, time_grid
from amden.diffusion.schedule import Diffusion
from amden.nn.classes import class_noise, scales
from amden.random import Streams

DIFFUSION, ATOMS = Diffusion(), 6000
SHARE = torch.tensor([0.5, 0.25, 0.24, 0.01], dtype=torch.float64)


def independent_classes(sample: Sample, t: torch.Tensor) -> Noise:
    """Exact where every atom is of class c with probability `SHARE[c]`, whatever the others are."""
    logits = SHARE.log().expand(len(sample.elements), -1)
    noise = class_noise(logits, sample.elements, scales(DIFFUSION.elements, t, sample.system))
    return Noise(torch.zeros_like(sample.positions), noise)


def test_classes_have_their_frequencies_and_end_one_hot():
    n_atoms = torch.tensor([ATOMS])
    cell, streams = 60.0 * torch.eye(3, dtype=torch.float64)[None], Streams.of(torch.tensor([5]), n_atoms)
    start = prior(cell, n_atoms, width=4, diffusion=DIFFUSION, streams=streams)
    times = time_grid(DIFFUSION, n_steps=200)
    end = euler_maruyama(independent_classes, start, diffusion=DIFFUSION, times=times, streams=streams)
    found = torch.bincount(end.elements.argmax(1), minlength=4) / ATOMS
    for got, share in zip(found.tolist(), SHARE.tolist(), strict=True):
        assert got == pytest.approx(share, abs=4 * sqrt(share * (1 - share) / ATOMS) + 0.005)
    torch.testing.assert_close(end.elements.max(1).values, torch.ones(ATOMS, dtype=torch.float64), rtol=0, atol=1e-3)
    assert float(end.elements.sum(1).std()) < 1e-3
