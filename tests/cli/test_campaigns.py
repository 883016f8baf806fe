"""The verbs that make datasets, as a user calls them; what they refuse, in one line."""

import json
import re
from contextlib import contextmanager
from dataclasses import replace

import pytest

from amden import data_commands, progress, workers
from amden.cli import main
from amden.dataset import load_dataset
from amden.io import read_structures
from amden.simulate import catalogue
from amden.simulate.campaign import Campaign, Progress
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
    monkeypatch.setattr(workers, "SCHEDULER_ANSWERS_IN", 0.5)
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
    _, *lines = capsys.readouterr().err.splitlines()
    told = [re.fullmatch(r"  (.*?)(, [\d.]+ (?:s|min|h) left)?", line) for line in lines]
    shares = ["2 under way: 0 %", "2 under way: 50 %", "2 under way: 100 %"]
    assert [line[1] for line in told] == [
        "0 of 4 cells",
        *(f"0 of 4 cells, {share}" for share in shares),
        "2 of 4 cells",
        *(f"2 of 4 cells, {share}" for share in shares),
        "4 of 4 cells",
    ]
    assert [line[2] is not None for line in told] == [False] * 2 + [True] * 7


def test_the_time_that_is_left_is_told_by_the_work_done_now(tmp_path, capsys, monkeypatch):
    """Three of four cells were done before; by a clock that is read once a line, a fifth of the last takes a second."""
    ticks = iter(range(100))
    monkeypatch.setattr(progress, "SAY_EVERY", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))
    with progress.campaign_bar(catalogue.PROTOCOLS["si-melt"], 4) as show:
        for steps in (0, 2, 4):
            show(Progress(4, 3, 0, 1, steps, note="[one]" if steps == 4 else ""))
    assert capsys.readouterr().err.splitlines() == [
        "  3 of 4 cells, 1 under way: 0 %",
        "  3 of 4 cells, 1 under way: 20 %, 4 s left",
        "  note: [one]",
        "  3 of 4 cells, 1 under way: 40 %, 3 s left",
    ]


@pytest.mark.parametrize(
    ("options", "workers", "where"),
    [
        ([], 2, "amden on cuda, 2 workers on GPU 3, 5"),
        (["--n", "1"], 1, "amden on cuda"),
        (["--workers", "1"], 1, "amden on cuda"),
        (["--workers", "3"], 3, "amden on cuda, 3 workers on GPU 3, 5"),
        (["--device", "cpu"], 1, "amden on cpu"),
        (["--device", "cpu", "--workers", "2"], 2, "amden on cpu, 2 workers on GPU 3, 5"),
        (["--dask", "x"], 1, "amden on cuda"),
    ],
)
def test_one_worker_a_gpu(tmp_path, capsys, monkeypatch, options, workers, where):
    """Where there are several GPUs and nothing else is asked for."""

    @contextmanager
    def executor(**given):
        asked.update(given)
        yield "the executor"

    def campaign(*_, **given):
        asked.update(given)
        return Campaign(tmp_path, 4, {})

    asked = {}
    monkeypatch.setattr(data_commands, "visible_gpus", lambda: ["3", "5"])
    monkeypatch.setattr(data_commands, "choose_device", lambda device: "cpu" if device == "cpu" else "cuda")
    monkeypatch.setattr(data_commands, "batch_executor", executor)
    monkeypatch.setattr(data_commands, "run_campaign", campaign)
    call("simulate", "si-melt", "--n", 4, "--out", tmp_path / "d", *options)
    assert (asked["workers"], asked["executor"], asked["gpus"]) == (workers, "the executor", ["3", "5"])
    assert f"si-melt by {where}: " in " ".join(capsys.readouterr().err.split())


def test_too_few_atoms_are_refused_at_once(tmp_path, fails):
    message = fails("simulate", "meg", "--atoms", 180, "--n", 1, "--out", tmp_path / "d")
    assert message.startswith("`n_atoms` (--atoms) must be at least 181 for bmp-shrm, got 180")
    assert not (tmp_path / "d").exists()
