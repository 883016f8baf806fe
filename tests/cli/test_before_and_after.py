"""What is refused before any work is done, what is told meanwhile, and what stands beside the result."""

import json
import os
import re
from dataclasses import replace

import pytest
import torch

from amden import __version__, progress
from amden.blank import cubic_blank
from amden.cli import main
from amden.config import load_config
from amden.diffusion.vocabulary import Vocabulary
from amden.io import write_structures
from amden.model import Model
from amden.nn.score import ScoreModel
from amden.recipe import Recipe
from amden.report.about import source
from amden.testing import random_structures


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    assert stopped.value.code == 1
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("verb", ["generate", "design", "sweep", "train", "simulate", "properties", "analyze"])
def test_help_tells_defaults(verb, capsys):
    main([verb, "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "[default: " in told
    own = {"generate": "[default: 1, or all of --like]", "simulate": "[default: fills the device]"}
    assert own.get(verb, "[default: ") in told


@pytest.mark.parametrize(
    ("name", "n", "message"),
    [
        ("two.lmp", 2, "lammps-data files hold one structure, got 2; use .extxyz"),
        ("a.foo", 1, "no known format has this name; use .extxyz"),
        ("a.extxyz.gz", 1, "compressed files are read but not written"),
        ("file/a.extxyz", 1, "nothing can be written into"),
    ],
)
def test_an_output_that_cannot_be_is_refused_at_once(tiny_checkpoint, tmp_path, capsys, name, n, message):
    (tmp_path / "file").touch()
    told = refused(capsys, "generate", tiny_checkpoint, "--n", n, "--atoms", 8, "--out", tmp_path / name)
    assert message in told
    assert not list(tmp_path.glob(".*.parts"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_named(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    told = refused(capsys, "generate", tiny_checkpoint, "--atoms", 8, "--out", tmp_path / "locked" / "a.extxyz")
    assert "nothing can be written into" in told


def test_structures_have_their_origin_beside_them(tiny_checkpoint, tmp_path):
    out = tmp_path / "a.extxyz"
    main(["generate", str(tiny_checkpoint), "--atoms", "8", "--steps", "3", "--seed", "5", "--out", str(out)])
    told = json.loads((tmp_path / "a.extxyz.json").read_text(encoding="utf-8"))
    assert (told["amden"], told["made_by"], told["seed"], told["steps"]) == (__version__, str(tiny_checkpoint), 5, 3)
    assert re.fullmatch(r"[0-9a-f]{64}", told["model"])
    assert told["command"].startswith("amden")
    assert source("generated", out, structures=1).provenance == told
    out.write_text(out.read_text(encoding="utf-8").replace("Si", "Ge"), encoding="utf-8")
    assert source("generated", out, structures=1).provenance == {}, "said of what it was"


def test_without_a_terminal_lines_tell_how_far_it_is(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SAY_EVERY", 0.0)
    main(["generate", str(tiny_checkpoint), "--atoms", "8", "--steps", "3", "--out", str(tmp_path / "a.extxyz")])
    told = capsys.readouterr().err
    assert "to go" in told
    assert re.search(r"3 of 4 evaluations, \d+ s left", told)


def test_sizes_that_cannot_be_meant(tiny_model):
    with pytest.raises(ValueError, match=r"`atoms` must be at most 10,000,000, got 100,000,000"):
        cubic_blank(tiny_model, 1, atoms=10**8)
    with pytest.raises(ValueError, match=r"`n` must be at most 1,000,000, got 100,000,000"):
        cubic_blank(tiny_model, 10**8, atoms=8)
    with pytest.raises(ValueError, match=r"`density` must be positive and less than 25 g/cm³, got 2400"):
        cubic_blank(tiny_model, 1, atoms=8, density=2400.0)
    config = replace(tiny_model.denoiser.config, vocabulary=Vocabulary((14,), ghosts=True), ghost_density=0.06)
    ghosted = Model(ScoreModel(config), tiny_model.diffusion, tiny_model.provenance)
    with pytest.raises(ValueError, match=r"`density` must be at most 2\.8 g/cm³, what the model has room for, got 6"):
        cubic_blank(ghosted, 1, atoms=8, density=6.0)
    assert int(cubic_blank(ghosted, 1, atoms=8, density=2.79).n_atoms[0]) == 8


def test_a_dry_run_refuses_what_the_run_would(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = random_structures([8] * 12, species=(14,), dtype=torch.float64)
    write_structures("mine.extxyz", replace(made, properties={"hardness": torch.arange(12.0)}))
    dry = ["train", "--data", "mine.extxyz", "--dry-run"]
    told = refused(capsys, *dry, "--set", "properties=[hardnes]")
    assert "property 'hardnes' is not in the data, which has: hardness" in told
    main([*dry, "--set", "properties=[hardness]", "--set", "training.warmup=50", "--set", "training.steps=10"])
    printed = capsys.readouterr()
    (tmp_path / "whole.yaml").write_text(printed.out, encoding="utf-8")
    assert load_config(Recipe, "whole.yaml").data == "mine.extxyz"
    assert "the rate never comes up" in " ".join(printed.err.split())
