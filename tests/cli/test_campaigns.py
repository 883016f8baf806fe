"""The verbs that make datasets, as a user calls them; what they refuse, in one line."""

import json
from dataclasses import replace

import pytest

from amden import data_commands, progress
from amden.cli import main
from amden.dataset import load_dataset
from amden.io import read_structures
from amden.simulate import catalogue
from amden.simulate.stages import Stage


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    short = replace(catalogue.PROTOCOLS["si-melt"], n_atoms=64, stages=(Stage(0.02, (2500.0, 2500.0)),))
    monkeypatch.setattr(catalogue, "PROTOCOLS", {**catalogue.PROTOCOLS, "si-melt": short})


@pytest.fixture
def fails(capsys):
    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        assert stopped.value.code == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert "Traceback" not in "".join(lines)
        return lines[-1].removeprefix("amden: error: ")

    return run


def call(*arguments: object) -> None:
    main([str(a) for a in arguments])


def simulate(out, *more: object) -> list[str]:
    return ["simulate", "si-melt", "--n", "4", "--seed", "1", "--device", "cpu", "--out", str(out), *map(str, more)]


def test_parts_are_simulated_and_merged(tmp_path, capsys, fails):
    call(*simulate(tmp_path / "whole"))
    call(*simulate(tmp_path / "a", "--shard", "1/2"))
    call(*simulate(tmp_path / "b", "--shard", "2/2", "--batch-size", 1))
    capsys.readouterr()
    call("merge", tmp_path / "a", "--out", tmp_path / "c")
    told = capsys.readouterr()
    assert "cells 2 to 4 are missing" in told.err
    assert told.out == f"{tmp_path / 'c'}: 2 structures, 0 set aside\n"
    call("merge", tmp_path / "b", tmp_path / "a", "--out", tmp_path / "c")
    assert load_dataset(tmp_path / "c").positions.equal(load_dataset(tmp_path / "whole").positions)
    assert json.loads((tmp_path / "c" / "manifest.json").read_text())["n"] == 4

    call("simulate", "si-melt", "--n", 4, "--seed", 2, "--device", "cpu", "--out", tmp_path / "other")
    message = fails("merge", tmp_path / "a", tmp_path / "other", "--out", tmp_path / "d")
    assert message.endswith("other: holds a campaign of seed 2, not 1; choose another folder")
    message = fails("merge", tmp_path / "a", tmp_path / "whole", "--out", tmp_path / "d")
    assert "a cell must come once" in message
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("text", ["3/2", "0/2", "1", "a/b", "-1/2"])
def test_parts_that_are_none(fails, tmp_path, text):
    message = fails(*simulate(tmp_path / "d", f"--shard={text}"))
    assert message == f"`--shard` must be i/M with 1 ≤ i ≤ M, such as 1/4, got {text!r}"
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "gromacs"], "unknown engine 'gromacs': expected amden or lammps"),
        (["--calculator", "nowhere:make"], "calculator 'nowhere:make': No module named 'nowhere'"),
        (["--calculator", "make"], "`calculator` must be module:function, such as mymodule:make, got 'make'"),
        (["--calculator", "a:b", "--engine", "lammps"], "`--calculator` and `--engine lammps` exclude each other"),
        (["--workers", "2", "--dask", "x"], "`--workers` and `--dask` exclude each other: dask brings its own workers"),
        (["--dask", "nonsense"], "`--dask`: no scheduler answers at 'nonsense'"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_engines_and_executors_that_are_not_there(fails, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(data_commands, "SCHEDULER_ANSWERS_IN", 0.5)
    assert fails(*simulate(tmp_path / "d", *options)) == message
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(("missing", "option"), [("lammps", "--engine=lammps"), ("distributed", "--dask=tcp://a:1")])
def test_extras_that_are_not_installed(fails, tmp_path, monkeypatch, missing, option):
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    assert "pip install 'amden[" in fails(*simulate(tmp_path / "d", option))
    assert not (tmp_path / "d").exists()


def test_lammps_input(tmp_path, capsys, fails):
    call(*simulate(tmp_path / "decks", "--deck", "--shard", "2/4"))
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'decks'}: LAMMPS input of 1 cells; in each folder, lmp")
    (cell,) = (tmp_path / "decks").iterdir()
    assert cell.name == "cell-0000001"
    assert {path.name for path in cell.iterdir()} == {"in.lammps", "start.data", "potential.txt"}
    assert read_structures(cell / "start.data").n_atoms.tolist() == [64]
    assert fails(*simulate(tmp_path / "decks", "--deck")).endswith("decks exists and is not empty")


def test_progress_is_told_without_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SAY_EVERY", 0.0)
    call(*simulate(tmp_path / "d", "--batch-size", 2))
    lines = capsys.readouterr().err.splitlines()
    assert "  0 of 4 cells, batch of 2: 100 %, 0 s left" in lines or any("2 of 4 cells" in line for line in lines)
    assert any("s left" in line for line in lines)
