"""Bad input gets one line that says what and where, status 1, no traceback, and leaves nothing half-written."""

import json

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from amden.cli import main


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail; its one line of stderr after the first words."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        assert stopped.value.code == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert "Traceback" not in "".join(lines)
        assert lines[-1].startswith("amden: error: ")
        return lines[-1].removeprefix("amden: error: ")

    return run


@pytest.fixture
def silicon():
    return ase.build.bulk("Si", cubic=True) * (2, 2, 2)


def written(atoms, path):
    ase.io.write(path, atoms, format="extxyz")
    return path


def test_vanishing_cell(fails, silicon, tmp_path):
    silicon.cell[2] = silicon.cell[1]
    path = written(silicon, tmp_path / "flat.extxyz")
    for command in (["train", "--data", path, "--dry-run"], ["analyze", path, "--out", tmp_path / "a"]):
        message = fails(*command)
        assert "flat.extxyz" in message
        assert "structure 0" in message
        assert "volume" in message


def test_negative_volume(fails, silicon, tmp_path):
    silicon.set_cell(silicon.cell[[1, 0, 2]])
    assert "negative volume" in fails("train", "--data", written(silicon, tmp_path / "left.extxyz"), "--dry-run")


def test_nan(fails, silicon, tmp_path):
    silicon.positions[3, 1] = np.nan
    message = fails("analyze", written(silicon, tmp_path / "nan.extxyz"))
    assert "nan.extxyz" in message
    assert "NaN" in message


def test_overlapping_atoms(fails, silicon, tmp_path):
    good = silicon.copy()
    silicon.positions[5] = silicon.positions[9] + [0.1, 0.0, 0.0]
    message = fails("train", "--data", written([good, silicon], tmp_path / "twins.extxyz"), "--dry-run")
    assert "structure 1" in message
    assert "5 and 9" in message
    assert "0.100 Å" in message


def test_element_the_model_does_not_know(fails, silicon, tiny_checkpoint, tmp_path):
    silicon.numbers[0] = 32
    path = written(silicon, tmp_path / "sige.extxyz")
    message = fails("generate", tiny_checkpoint, "--like", path, "--out", tmp_path / "out.extxyz")
    assert "element Ge is unknown to this model, which knows Si" in message
    assert not (tmp_path / "out.extxyz").exists()


def test_unknown_names(fails, tmp_path):
    assert "unknown model 'si-melted'" in fails("generate", "si-melted", "--out", tmp_path / "a.extxyz")
    message = fails("simulate", "si-boil", "--n", 1, "--out", tmp_path / "b")
    assert "unknown protocol 'si-boil': expected one of si-melt, si-quench" in message


@pytest.mark.parametrize("content", ["", "64\nLattice="])
def test_empty_or_truncated_file(fails, content, tmp_path):
    path = tmp_path / "cut.extxyz"
    path.write_text(content)
    assert "cut.extxyz" in fails("analyze", path)


def test_file_cut_within_a_frame(fails, silicon, tmp_path):
    path = written([silicon, silicon], tmp_path / "cut.extxyz")
    path.write_text("\n".join(path.read_text().splitlines()[:-5]))
    message = fails("train", "--data", path, "--dry-run")
    assert "cut.extxyz" in message
    assert "structure 1" in message
    assert "59 atoms, expected 64" in message


def test_missing_file(fails, tmp_path):
    assert "nowhere.extxyz: no such file" in fails("analyze", tmp_path / "nowhere.extxyz")


def test_cutoff_without_neighbours(fails, silicon, tmp_path):
    path = written(silicon, tmp_path / "si.extxyz")
    message = fails("train", "--data", path, "--dry-run", "--set", "egnn.cutoff=2.0")
    assert "has no neighbours: its shortest distance is 2.351 Å, `cutoff` is 2.0 Å" in message


def test_file_that_is_no_checkpoint(fails, tmp_path):
    text, foreign = tmp_path / "text.safetensors", tmp_path / "foreign.safetensors"
    text.write_text("these are not the weights you are looking for")
    save_file({"w": torch.ones(2)}, foreign)
    assert "not a safetensors file" in fails("generate", text, "--out", tmp_path / "a.extxyz")
    assert "not a checkpoint of amden" in fails("generate", foreign, "--out", tmp_path / "a.extxyz")


def test_checkpoint_of_a_newer_format(fails, tmp_path):
    header = json.dumps({"version": 999, "kind": "model", "amden": "99.0"})
    save_file({"w": torch.ones(2)}, tmp_path / "new.safetensors", metadata={"amden": header})
    message = fails("generate", tmp_path / "new.safetensors", "--out", tmp_path / "a.extxyz")
    assert "made by a newer amden (99.0)" in message


def test_output_that_exists(fails, tiny_checkpoint, tmp_path):
    out = tmp_path / "precious.extxyz"
    out.write_text("do not touch")
    message = fails("generate", tiny_checkpoint, "--atoms", 8, "--steps", 1, "--out", out)
    assert "precious.extxyz exists; use --overwrite" in message
    assert out.read_text() == "do not touch"


def test_cells_on_the_command_line(fails, tiny_checkpoint, tmp_path):
    def asked(cell):
        return fails("generate", tiny_checkpoint, "--cell", cell, "--out", tmp_path / "a.extxyz")

    assert "`--cell` must be numbers in Å, got 'a,b,c'" in asked("a,b,c")
    assert "`--cell` takes 1, 3 or 9 numbers, got 2" in asked("9,9")
    assert "vanishing volume" in asked("9,9,0")
    assert "negative volume" in asked("9,9,-9")


def test_unknown_keys_and_devices(fails, silicon, tmp_path):
    path = written(silicon, tmp_path / "si.extxyz")
    message = fails("train", "--data", path, "--set", "egnn.layer=3")
    assert "unknown key `egnn.layer`, did you mean `layers`?" in message
    assert "unknown device 'gpu9x'" in fails("train", "--data", path, "--device", "gpu9x")
    assert "no data: name it in the recipe" in fails("train")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(fails, tiny_checkpoint, tmp_path):
    message = fails("generate", tiny_checkpoint, "--device", "cuda", "--out", tmp_path / "a.extxyz")
    assert message == "no CUDA device was found: use `--device cpu`"


@pytest.mark.parametrize("atoms", ["many", "0", "30:20", "8:9:10", ":"])
def test_sizes_on_the_command_line(fails, tiny_checkpoint, tmp_path, atoms):
    asked = ["generate", tiny_checkpoint, "--out", tmp_path / "a.extxyz"]
    assert "`--atoms` must be a number of atoms, or two as 350:500" in fails(*asked, "--atoms", atoms)
    assert "there can be one number of atoms, got `--atoms 8:9`" in fails(*asked, "--cell", "9", "--atoms", "8:9")
