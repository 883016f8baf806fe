"""`amden analyze` as a user types it: the page, the table, and what was known of the files."""

import json

import pytest
import torch

from amden.cli import main
from amden.io import write_structures
from amden.shard import save_shard
from amden.structure import Structures, concatenate
from amden.testing import random_structures


def glasses(seed: int) -> Structures:
    return random_structures([24] * 12, seed=seed, skew=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("analyze")
    save_shard(path / "training.safetensors", glasses(1), provenance={"seed": 11})
    write_structures(path / "reference.extxyz", glasses(2))
    write_structures(path / "glass.extxyz", concatenate([glasses(3), glasses(1).select([4])]))
    return path


def test_copies_of_the_training_set_are_found_and_everything_is_told(folder, capsys, monkeypatch):
    given = [str(folder / "glass.extxyz"), "--reference", str(folder / "reference.extxyz")]
    command = ["analyze", *given, "--train", str(folder / "training.safetensors"), "--out", str(folder / "report")]
    monkeypatch.setattr("sys.argv", ["amden", *command])
    main(command)
    told = capsys.readouterr().out
    assert "near copies of the training set: 1 of 13" in told
    assert max(map(len, told.partition(str(folder))[0].splitlines())) <= 80
    assert str(folder / "report" / "index.html") in told
    found = json.loads((folder / "report" / "analysis.json").read_text())
    assert found["novelty"]["near_copies_of_training_set"]["flagged"] == [12]
    assert found["novelty"]["near_copies_of_training_set"]["closest"][12] == 4
    assert found["about"]["command"] == " ".join(["amden", *command])
    assert found["about"]["sources"]["training"]["provenance"]["seed"] == 11
    assert found["about"]["sources"]["generated"]["structures"] == 13
    html = (folder / "report" / "index.html").read_text()
    assert "near copy: generated 12" in html


def test_a_training_set_alone_tells_of_copies(folder, capsys):
    main(["analyze", str(folder / "glass.extxyz"), "--train", str(folder / "training.safetensors")])
    told = capsys.readouterr().out
    assert "near copies of the training set: 1 of 13" in told
    assert "13 structures" in told


def test_targets_in_the_file_make_a_parity_plot(folder, capsys):
    made = glasses(5)
    numbers = torch.linspace(20.0, 30.0, 12, dtype=torch.float64)
    asked = Structures(
        made.positions,
        made.species,
        made.cell,
        made.n_atoms,
        {"target_shear_modulus": numbers, "shear_modulus": numbers + 2.0},
    )
    write_structures(folder / "asked.extxyz", asked)
    main(["analyze", str(folder / "asked.extxyz")])
    assert "shear_modulus against its target: MAE 2, RMSE 2, R² 0.594 (GPa, 12)" in capsys.readouterr().out
    assert (folder / "asked-analysis" / "parity.pdf").exists()


def test_a_small_training_set_is_refused(folder, capsys):
    write_structures(folder / "few.extxyz", glasses(1).select([0, 1]))
    with pytest.raises(SystemExit):
        main(["analyze", str(folder / "asked.extxyz"), "--train", str(folder / "few.extxyz"), "--overwrite"])
    told = capsys.readouterr().err
    assert told == "amden: error: `training` must have 10 structures or more to be looked for, got 2\n"
