"""`amden generate --hmc` and `--langevin` as a user meets them."""

from dataclasses import replace

import pytest
import torch

from amden import denoising, generation, progress, refinement
from amden.cli import main
from amden.diffusion.schedule import Diffusion, VarianceExploding
from amden.io import read_structures
from amden.model import denoiser_of, load_model, save_model


@pytest.fixture
def energy_checkpoint(tiny_model, tmp_path):
    config = replace(tiny_model.denoiser.config, energy=True)
    path = tmp_path / "energy.safetensors"
    save_model(path, replace(tiny_model, denoiser=denoiser_of(config, tiny_model.diffusion)))
    return path


def test_generation_tells_what_it_does_and_how_long(energy_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(refinement, "STEPS_CPU", 8)
    monkeypatch.setattr(progress, "SAY_EVERY", 0.0)
    monkeypatch.setattr(denoising, "STEERING_EVERY", 2)
    out = tmp_path / "g.extxyz"
    main(["generate", str(energy_checkpoint), "--hmc", "--atoms", "8", "--device", "cpu", "--out", str(out)])
    told = " ".join(capsys.readouterr().err.split())
    assert "note: 8 steps on a CPU; 2000, as on a GPU (`--steps`), relax further" in told
    plain = "standard denoising (`--plain`) takes 9"
    assert f"relaxed while denoising: 84 evaluations of the network a structure; {plain}" in told
    assert "s to go" in told
    assert "68 of 84 evaluations, acceptance" in told
    assert ", dt₀ 0." in told
    assert len(read_structures(out)) == 1
    assert not list(tmp_path.glob(".*.parts"))


@pytest.mark.parametrize("apart", [False, True])
def test_an_interrupted_chain_goes_on(energy_checkpoint, tiny_checkpoint, tmp_path, monkeypatch, apart):
    monkeypatch.setattr(generation, "SAVE_SECONDS", 0.0)
    models = [str(tiny_checkpoint), "--hmc-energy", str(energy_checkpoint)] if apart else [str(energy_checkpoint)]
    arguments = ["generate", *models, "--hmc", "--atoms", "8", "--steps", "6", "--device", "cpu"]
    main([*arguments, "--out", str(tmp_path / "whole.extxyz")])
    keep, kept = generation.StateKeeper.now, []

    def interrupted(self, state):
        keep(self, state)
        kept.append(1)
        if len(kept) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(generation.StateKeeper, "now", interrupted)
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path / "g.extxyz")])
    assert [path.name for path in (tmp_path / ".g.extxyz.parts").iterdir()] == ["0000000.state"]
    main([*arguments, "--out", str(tmp_path / "g.extxyz")])
    assert len(kept) == 6
    assert (tmp_path / "g.extxyz").read_bytes() == (tmp_path / "whole.extxyz").read_bytes()


def test_one_model_denoises_and_the_energy_of_another_moves(energy_checkpoint, tiny_checkpoint, tmp_path, capsys):
    arguments = ["--atoms", "8", "--steps", "6", "--device", "cpu", "--hmc-set", "t_max=0.4", "--hmc-set", "n_verlet=3"]

    def made(name, *models):
        out = tmp_path / f"{name}.extxyz"
        main(["generate", *models, *arguments, "--out", str(out)])
        return read_structures(out).positions, " ".join(capsys.readouterr().err.split())

    both, told = made("both", str(tiny_checkpoint), "--hmc-energy", str(energy_checkpoint))
    assert "relaxed while denoising: 19 evaluations" in told
    alone, told = made("alone", str(energy_checkpoint))
    assert "relaxed while denoising: 16 evaluations" in told
    assert not torch.allclose(both, alone)
    model = load_model(energy_checkpoint)
    recipe = {"recipe": {"sampling": {"hmc_denoiser": str(tiny_checkpoint)}}}
    save_model(energy_checkpoint, replace(model, provenance={**model.provenance, **recipe}))
    by_recipe, told = made("recipe", str(energy_checkpoint))
    assert torch.equal(by_recipe, both)
    assert "denoises, as the energy model's recipe says" in told


def test_an_energy_that_does_not_go_with_the_model_is_refused(energy_checkpoint, tiny_checkpoint, tmp_path, capsys):
    def refused(*arguments):
        with pytest.raises(SystemExit):
            main(["generate", *arguments, "--atoms", "8", "--steps", "2", "--out", str(tmp_path / "g.extxyz")])
        return " ".join(capsys.readouterr().err.split())

    score, energy = str(tiny_checkpoint), str(energy_checkpoint)
    assert "`--hmc-energy` is for `--hmc`" in refused(score, "--hmc-energy", energy)
    assert "Hamiltonian Monte Carlo needs an energy model" in refused(score, "--hmc", "--hmc-energy", score)
    assert "the energy model knows Si, the model O, Si" in refused("sio2", "--hmc", "--hmc-energy", energy)
    model = load_model(energy_checkpoint)
    wide = Diffusion(positions=VarianceExploding(sigma_max=2.0))
    save_model(energy_checkpoint, replace(model, diffusion=wide))
    assert "trained with another diffusion process" in refused(score, "--hmc", "--hmc-energy", energy)


def test_settings_are_taken_and_wrong_ones_refused(energy_checkpoint, tmp_path, capsys):
    arguments = ["generate", str(energy_checkpoint), "--atoms", "8", "--steps", "6", "--device", "cpu"]
    arguments += ["--out", str(tmp_path / "g.extxyz")]
    main([*arguments, "--hmc-set", "t_max=0.4", "--hmc-set", "n_verlet=3", "--hmc-set", "acceptance=null"])
    assert "relaxed while denoising: 16 evaluations" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main([*arguments, "--overwrite", "--hmc-set", "verlet=3"])
    assert "verlet" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--overwrite", "--hmc-set", "t_max=1.4"])
    assert "`t_min` < `t_max` must lie in [0, 1], got 0.0 and 1.4" in " ".join(capsys.readouterr().err.split())


def test_a_model_is_sampled_as_its_recipe_says(energy_checkpoint, tmp_path, capsys):
    model = load_model(energy_checkpoint)
    sampling = {"steps": 4, "hmc_steps": 7, "hmc": {"t_max": 0.3, "n_verlet": 2}}
    save_model(energy_checkpoint, replace(model, provenance={**model.provenance, "recipe": {"sampling": sampling}}))
    arguments = ["generate", str(energy_checkpoint), "--atoms", "8", "--device", "cpu", "--overwrite"]
    arguments += ["--out", str(tmp_path / "g.extxyz")]
    main(arguments)
    assert "4 steps" in capsys.readouterr().err
    main([*arguments, "--hmc"])
    told = " ".join(capsys.readouterr().err.split())
    assert "7 steps" in told
    assert "14 evaluations" in told
    main([*arguments, "--hmc-set", "t_max=0.5"])
    assert "16 evaluations" in " ".join(capsys.readouterr().err.split())


def test_langevin_dynamics_take_any_model_and_show_the_temperature(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SAY_EVERY", 0.0)
    monkeypatch.setattr(denoising, "STEERING_EVERY", 2)
    arguments = ["generate", str(tiny_checkpoint), "--atoms", "8", "--steps", "10", "--device", "cpu", "--langevin"]
    arguments += ["--out", str(tmp_path / "g.extxyz"), "--langevin-set", "t_max=0.5", "--langevin-set", "n_steps=3"]
    main(arguments)
    told = " ".join(capsys.readouterr().err.split())
    assert "relaxed while denoising: 26 evaluations of the network a structure" in told
    assert "evaluations, temperature" in told
    assert len(read_structures(tmp_path / "g.extxyz")) == 1
    with pytest.raises(SystemExit):
        main([*arguments, "--overwrite", "--hmc"])
    assert "choose one of --hmc, --langevin and --plain" in capsys.readouterr().err


def test_a_model_may_be_relaxed_by_default(tiny_checkpoint, tmp_path, capsys):
    model = load_model(tiny_checkpoint)
    sampling = {"relax": "langevin", "langevin_steps": 10, "langevin": {"t_max": 0.5, "n_steps": 3}}
    save_model(tiny_checkpoint, replace(model, provenance={**model.provenance, "recipe": {"sampling": sampling}}))
    arguments = ["generate", str(tiny_checkpoint), "--atoms", "8", "--device", "cpu", "--overwrite"]
    arguments += ["--out", str(tmp_path / "g.extxyz")]
    main(arguments)
    assert "relaxed while denoising: 26 evaluations" in " ".join(capsys.readouterr().err.split())
    main([*arguments, "--plain"])
    told = capsys.readouterr().err
    assert "200 steps" in told
    assert "relaxed while denoising" not in told
