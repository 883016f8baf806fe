"""What bfloat16 leaves of the energy of an energy model."""

from dataclasses import replace

import torch
from torch import nn

from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.nn.egnn import EGNNConfig, PreciseLinear
from amden.nn.energy import EnergyModel
from amden.nn.score import ScoreConfig
from amden.testing import random_sample


def error(model):
    """Standard deviation over samples of what bfloat16 does to the energy."""
    found, sample, t = [], random_sample([24], width=0), torch.tensor([0.1])
    for i in range(8):
        shift = 0.1 * torch.randn(sample.positions.shape, generator=torch.Generator().manual_seed(i))
        moved = replace(sample, positions=(sample.positions + shift).float(), cell=sample.cell.float())
        moved = replace(moved, elements=moved.elements.float())
        exact, _ = model.energy_and_noise(moved, t)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            energy, noise = model.energy_and_noise(moved, t)
        assert noise.positions.dtype == torch.float32
        found.append(energy - exact)
    return float(torch.cat(found).std())


def test_products_over_atoms_stay_precise(monkeypatch):
    torch.manual_seed(0)
    size = EGNNConfig(layers=3, hidden=32, channels=4, cutoff=4.0, n_norm=10.0)
    model = EnergyModel(ScoreConfig(Vocabulary((14,)), egnn=size, energy=True), Diffusion())
    model = model.eval().requires_grad_(False)
    precise = error(model)
    assert precise > 0
    monkeypatch.setattr(PreciseLinear, "forward", nn.Linear.forward)
    assert precise < 0.6 * error(model)
