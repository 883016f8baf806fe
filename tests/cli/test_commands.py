"""The verbs as a user types them."""

import os
import subprocess
import sys
from dataclasses import replace

import ase.io
import numpy as np
import pytest

from amden import __version__, generation
from amden.cli import main
from amden.io import read_structures, write_structures
from amden.model import denoiser_of, save_model
from amden.pretrained import model_names, model_path
from amden.refinement import Asked
from amden.sampling_commands import sampled_model
from amden.testing import random_structures


def amden(*arguments, cwd):
    command = [sys.executable, "-m", "amden", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_a_process_generates_and_refuses(tiny_checkpoint, tmp_path):
    done = amden("generate", tiny_checkpoint, "--n", 2, "--atoms", 12, "--steps", 3, "--out", "g.extxyz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "g.extxyz: 2 structures" in done.stdout
    frames = ase.io.read(tmp_path / "g.extxyz", ":")
    assert [len(f) for f in frames] == [12, 12]
    again = amden("generate", tiny_checkpoint, "--out", "g.extxyz", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.strip() == "amden: error: g.extxyz exists; use --overwrite to replace it"


def test_sizes_are_spread_from_the_fewest_atoms_to_the_most(tiny_checkpoint, tmp_path):
    arguments = ["generate", str(tiny_checkpoint), "--n", "4", "--atoms", "8:14", "--steps", "2"]
    main([*arguments, "--out", str(tmp_path / "g.extxyz")])
    frames = ase.io.read(tmp_path / "g.extxyz", ":")
    assert [len(f) for f in frames] == [8, 10, 12, 14]
    densities = [len(f) / f.cell.volume for f in frames]
    np.testing.assert_allclose(densities, densities[0], rtol=1e-4)


def test_seed_decides(tiny_checkpoint, tmp_path):
    def made(name, *options):
        arguments = ["generate", tiny_checkpoint, "--atoms", 12, "--steps", 3, "--out", tmp_path / name, *options]
        main([str(a) for a in arguments])
        return [f.positions for f in ase.io.read(tmp_path / name, ":")]

    a = made("a.extxyz", "--seed", 3)
    b = made("b.extxyz", "--seed", 3, "--n", 2, "--batch-size", 2)
    c = made("c.extxyz", "--seed", 4)
    np.testing.assert_allclose(a[0], b[0], atol=2e-4)
    assert np.abs(a[0] - c[0]).max() > 0.1


def test_like_a_file_and_the_path_there(tiny_checkpoint, tmp_path):
    main(["generate", str(tiny_checkpoint), "--cell", "9,10,11", "--steps", "2", "--out", str(tmp_path / "a.extxyz")])
    (first,) = ase.io.read(tmp_path / "a.extxyz", ":")
    np.testing.assert_allclose(first.cell.lengths(), [9, 10, 11])
    assert len(first) == 51  # 990 Å³ at 2.4 g/cm³
    film = tmp_path / "film.extxyz"
    arguments = ["--like", str(tmp_path / "a.extxyz"), "--steps", "2", "--trajectory", str(film)]
    main(["generate", str(tiny_checkpoint), "--out", str(tmp_path / "b.extxyz"), *arguments])
    (second,) = ase.io.read(tmp_path / "b.extxyz", ":")
    np.testing.assert_allclose(second.cell.array, first.cell.array)
    assert len(ase.io.read(film, ":")) == 3


def test_train_tells_what_it_found_and_goes_on(tmp_path, capsys):
    data, run = tmp_path / "mine.extxyz", tmp_path / "run"
    write_structures(data, random_structures([12] * 6, species=(14,), seed=2))
    options = ["--data", str(data), "--out", str(run), "--device", "cpu", "--set", "egnn.hidden=16"]
    loop = ["--set", "training.batch_size=2", "--set", "training.steps=2"]
    main(["train", *options, "--dry-run"])
    told = capsys.readouterr()
    assert "6 structures, 12 atoms" in told.err
    assert "no properties" in told.err
    assert "hidden: 16" in told.out
    assert not run.exists()
    main(["train", *options, *loop])
    main(["train", *options, *loop[:2], "--set", "training.steps=3", "--resume"])
    assert (run / "metrics.csv").read_text().count("\n") == 3
    main(["generate", str(run), "--atoms", "8", "--steps", "1", "--out", str(tmp_path / "last.extxyz")])


def test_an_interrupted_generation_goes_on(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    """Finished batches are kept, taken up only by the same request, and the result is that of an unbroken run."""
    out, steps = tmp_path / "g.extxyz", generation.denoised
    arguments = ["generate", str(tiny_checkpoint), "--n", "3", "--atoms", "12", "--steps", "3", "--device", "cpu"]
    made: list[int] = []

    def interrupted(*given, **options):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(1)
        return steps(*given, **options)

    monkeypatch.setattr(generation, "denoised", interrupted)
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(out)])
    assert not out.exists()
    parts = tmp_path / ".g.extxyz.parts"
    assert len(list(parts.iterdir())) == 2
    made.clear()
    main([*arguments, "--out", str(out)])
    assert len(made) == 1
    assert not parts.exists()
    monkeypatch.setattr(generation, "denoised", steps)
    main([*arguments, "--out", str(tmp_path / "whole.extxyz")])
    assert out.read_bytes() == (tmp_path / "whole.extxyz").read_bytes()


def test_generation_with_hmc_needs_an_energy_model(tiny_checkpoint, tiny_model, tmp_path, capsys):
    arguments = ["--atoms", "8", "--steps", "4", "--out", str(tmp_path / "a.extxyz"), "--hmc"]
    with pytest.raises(SystemExit):
        main(["generate", str(tiny_checkpoint), *arguments])
    assert "Hamiltonian Monte Carlo needs an energy model" in capsys.readouterr().err
    config = replace(tiny_model.denoiser.config, energy=True)
    energy = replace(tiny_model, denoiser=denoiser_of(config, tiny_model.diffusion))
    save_model(tmp_path / "energy.safetensors", energy)
    main(["generate", str(tmp_path / "energy.safetensors"), *arguments])
    assert len(read_structures(tmp_path / "a.extxyz")) == 1


def test_version_and_models(capsys):
    main(["--version"])
    assert capsys.readouterr().out.strip() == f"amden {__version__}"
    main(["models"])
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    kinds = {name.strip(): kind.strip() for name, kind in rows if name.strip()}
    assert kinds == {name: "energy" if name.endswith("-energy") else "score" for name in model_names()}


def test_hamiltonian_monte_carlo_takes_the_energy_model_of_a_glass(capsys):
    assert sampled_model("si-anneal", Asked("hmc")) == model_path("si-anneal-energy")
    assert "takes the energy model si-anneal-energy" in " ".join(capsys.readouterr().err.split())
    assert sampled_model("si-anneal", Asked("langevin")) == model_path("si-anneal")
    assert sampled_model("si-melt", Asked("hmc")) == model_path("si-melt")


def test_threads_are_told_to_wait_before_torch_starts_them(tmp_path):
    code = (
        "import os, sys, amden.cli as c; early = 'torch' in sys.modules; c.main(['--version']); "
        "print(early, os.environ['OMP_WAIT_POLICY'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert done.stdout.splitlines()[-1] == "False PASSIVE"


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["generate", "si-melt", "--out", "g.extxyz"], "finished batches are kept, the same command goes on"),
        (["train"], "a checkpoint is kept, the same command with --resume goes on"),
        (["simulate", "si-melt", "--n", "1", "--out", "d"], "finished cells are kept, the same command goes on"),
        (["merge", "a", "--out", "d"], "merged files are kept, the same command goes on"),
        (["properties", "d", "--rings"], "finished properties of a dataset are kept, the same command goes on"),
    ],
)
def test_an_interrupt_says_what_is_left(arguments, left, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    module = {"generate": "generation_commands", "train": "training_commands"}.get(arguments[0], "data_commands")
    monkeypatch.setattr(f"amden.{module}.run_{arguments[0]}", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"amden: interrupted; {left}"


def test_an_interrupt_before_the_verb_is_one_line_as_well(monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("amden.cli.program.app", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(["merge", "a", "--out", "d"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "amden: interrupted; merged files are kept, the same command goes on\n"
