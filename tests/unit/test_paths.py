from dataclasses import replace

import numpy as np
import pytest
import torch

from amden import progress
from amden.cli import main
from amden.diffusion.corruption import encode
from amden.diffusion.hmc import HMCConfig
from amden.io import write_structures
from amden.model import denoiser_of, save_model
from amden.paths import FORWARD, HMC, STANDARD, energy_paths
from amden.testing import random_structures


@pytest.fixture
def energy_model(tiny_model):
    torch.manual_seed(0)
    denoiser = denoiser_of(replace(tiny_model.denoiser.config, energy=True), tiny_model.diffusion)
    return replace(tiny_model, denoiser=denoiser.eval().requires_grad_(False))


def test_paths_have_the_energies_of_their_samples(energy_model, tiny_model):
    reference = random_structures([8, 10, 9], species=(14,), seed=3, dtype=torch.float32)
    hmc = HMCConfig(n_verlet=2, step=0.05)
    paths = energy_paths(energy_model, reference, n_steps=6, hmc=hmc, hmc_steps=9, batch_size=2)
    assert list(paths) == [FORWARD, STANDARD, HMC]
    assert paths[FORWARD].energy.shape == paths[STANDARD].energy.shape == (7, 3)
    assert paths[HMC].energy.shape == (10, 3)
    for path in paths.values():
        assert (path.t.diff() < 0).all()
        assert path.energy.isfinite().all()
    # near t = 0 forward noising has the energies of the structures themselves
    clean = encode(reference, energy_model.denoiser.config.vocabulary)
    energy, _ = energy_model.denoiser.energy_and_noise(clean, torch.full((3,), 0.01))
    torch.testing.assert_close(paths[FORWARD].energy[-1], energy / reference.n_atoms, rtol=0.05, atol=0.5)
    with pytest.raises(ValueError, match="need an energy model"):
        energy_paths(tiny_model, reference)


def test_command_draws_and_tabulates(energy_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SAY_EVERY", 0.0)
    reference = tmp_path / "reference.extxyz"
    write_structures(reference, random_structures([8], species=(14,), seed=3))
    save_model(tmp_path / "energy.safetensors", energy_model)
    arguments = ["energies", str(tmp_path / "energy.safetensors"), "--reference", str(reference)]
    main([*arguments, "--out", str(tmp_path / "out")])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"paths.png", "paths.pdf", "paths.csv"}
    table = np.genfromtxt(tmp_path / "out" / "paths.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert len(table) == 2 * 201
    told = capsys.readouterr()
    assert "standard denoising" in told.out
    assert "  402 of 402 evaluations, 0 s left" in told.err
