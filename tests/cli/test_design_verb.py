"""`amden design` as a user types it, with an untrained model: what it makes cannot be right, but it is measured."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from amden import measuring
from amden.cli import main
from amden.compositions import counts_of
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.io import read_structures, write_structures
from amden.model import Model, save_model
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig, ScoreModel
from amden.properties import Tools, measured
from amden.shard import load_shard, save_shard
from amden.simulate.catalogue import PROTOCOLS, find_protocol
from amden.simulate.oxides import parse_composition
from amden.simulate.potentials import StillingerWeber
from amden.simulate.relaxation import relax_structures
from amden.simulate.stages import Stage
from amden.testing import random_structures

SCALES = {
    "density": PropertyScale(2.4, 0.1, quantiles=(2.0, 2.3, 2.4, 2.5, 2.8)),
    "beauty": PropertyScale(0.0, 1.0, quantiles=(-2.0, 0.0, 2.0)),
}


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    """Half the time of a design of tiny structures; `test_analyze` and `test_report` have them drawn."""
    monkeypatch.setattr("amden.report.files.rendered", lambda figure, form: f"<svg>{form}</svg>".encode())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    egnn = EGNNConfig(layers=1, hidden=8, channels=1, cutoff=4.0, n_norm=10.0)
    denoiser = ScoreModel(ScoreConfig(Vocabulary((14,)), egnn=egnn, properties=SCALES))
    save_model(
        "model.safetensors", Model(denoiser.eval(), Diffusion(), {"data": {"density": 2.4, "mean_mass": 28.085}})
    )
    return tmp_path


def design(*options: str) -> None:
    sizes = ["--atoms", "24", "--steps", "8", "--device", "cpu", "--out", "best"]
    main(["design", "model.safetensors", *sizes, *options])


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_is_kept_is_at_rest_and_as_measured(folder, capsys):
    design("--target", "density=2400 kg/m³", "--tolerance", "0.4", "--n", "3", "--per-round", "4", "--rounds", "3")
    found = read_structures("best/designs.extxyz")
    assert 1 <= len(found) <= 3
    assert found.properties["density"].numpy() == pytest.approx(found.density.numpy(), abs=1e-4)
    assert np.all(abs(found.properties["density"].numpy() - 2.4) <= 0.4)
    assert found.properties["target_density"].tolist() == [2.4] * len(found)
    again = relax_structures(found, StillingerWeber(), device="cpu")
    assert again.energy / 24 == pytest.approx(found.properties["potential_energy"].numpy(), abs=1e-4)
    rows = table("best/designs.csv")
    assert [float(row["density"]) for row in rows] == pytest.approx(found.properties["density"].tolist(), abs=1e-6)
    assert [float(row["off_by_tolerances"]) for row in rows] == sorted(float(row["off_by_tolerances"]) for row in rows)
    assert {row["meets"] for row in rows} == {"yes"}
    told = capsys.readouterr()
    assert "structures meet the targets" in told.out
    plan = "model.safetensors on cpu: until 3 structures meet the targets, at most 3 rounds of 4 structures of 24 atoms"
    assert f"{plan}, 8 steps, seed 0" in " ".join(told.err.split())


def test_how_new_designs_are_is_told_beside_the_training_set(folder):
    write_structures("known.extxyz", random_structures([24] * 12, skew=0.0))
    design("--target", "density=2.4", "--tolerance", "0.5", "--n", "2", "--rounds", "1", "--train", "known.extxyz")
    rows = table("best/designs.csv")
    assert len(rows) == 2
    assert all(float(row["novelty"]) > 0.1 for row in rows)
    assert "near copies of the training set" in Path("best/report/index.html").read_text(encoding="utf-8")


def test_more_rounds_go_on_from_those_that_are_there(folder, capsys):
    hopeless = ["--target", "density=2.79", "--tolerance", "1e-6", "--n", "2"]
    design(*hopeless, "--rounds", "1")
    told = capsys.readouterr()
    assert "none meets the targets; the closest" in told.out
    assert (
        "0 of 2 structures meet the targets after 1 rounds. The same command with `--overwrite` and larger "
        "`--rounds` goes on" in " ".join(told.err.split())
    )
    assert {row["meets"] for row in table("best/designs.csv")} == {"no"}
    first = Path("best/rounds/round-000.safetensors").read_bytes()
    design(*hopeless, "--rounds", "2", "--overwrite")
    assert "going on after 1 rounds" in capsys.readouterr().err
    assert Path("best/rounds/round-000.safetensors").read_bytes() == first
    rounds = table("best/rounds.csv")
    assert [row["round"] for row in rounds] == ["1", "2"]
    assert float(rounds[1]["asked"]) > float(rounds[0]["asked"]) == 2.79  # what came out was too thin


def test_a_larger_tolerance_keeps_more_of_the_rounds_that_are_there(folder, capsys):
    asked = ["--target", "density=2.4", "--n", "2", "--rounds", "1"]
    design(*asked, "--tolerance", "1e-6")
    first = Path("best/rounds/round-000.safetensors")
    before = first.read_bytes(), [row["meets"] for row in table("best/designs.csv")]
    design(*asked, "--tolerance", "0.5", "--overwrite")
    assert "going on after 1 rounds" in capsys.readouterr().err
    assert (first.read_bytes(), before[1]) == (before[0], ["no", "no"])
    assert [row["meets"] for row in table("best/designs.csv")] == ["yes", "yes"]


def test_rounds_of_an_earlier_version_are_understood(folder, capsys):
    """Their origin held targets with tolerances, and settings without names."""
    asked = ["--target", "density=2.4", "--tolerance", "0.5", "--n", "1", "--rounds", "1"]
    design(*asked)
    path = Path("best/rounds/round-000.safetensors")
    shard = load_shard(path)
    origin = dict(shard.provenance["origin"])
    names = ("seed", "steps", "refine", "settings")
    settings = [*(origin["settings"][name] for name in names), "cuda"]
    old = {**origin, "goals": {"density": [2.4, 0.5]}, "settings": settings}
    save_shard(path, shard.structures, provenance={**shard.provenance, "origin": old})
    design(*asked, "--overwrite")
    assert "going on after 1 rounds" in capsys.readouterr().err


def test_batches_of_another_design_are_no_part_of_it(folder, monkeypatch, capsys):
    """Interrupted in its first round, then asked for with other sizes."""
    asked = ["--target", "density=2.4", "--tolerance", "0.5", "--n", "1", "--per-round", "2", "--rounds", "1"]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "at_rest", interrupted)
        with pytest.raises(SystemExit):
            design(*asked)
    (kept,) = {path.parent for path in Path("best").rglob("*.safetensors")}
    content = sorted(path.name for path in kept.iterdir())
    capsys.readouterr()
    for other, message in (["--atoms", "30"], "other cells"), (["--plain", "--steps", "9"], "steps was 8, is 9"):
        with pytest.raises(SystemExit):
            design(*asked, *other)
        assert message in " ".join(capsys.readouterr().err.split())
        assert sorted(path.name for path in kept.iterdir()) == content
    design(*asked)
    assert len(read_structures("best/designs.extxyz")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "beauty=1"], "'beauty' cannot be measured by amden"),
        (
            ["--target", "density=2.4", "--tolerance", "beauty=1"],
            "`--tolerance beauty`: there is no target of that name",
        ),
        (["--target", "density=2.4", "--tolerance", "-1"], "the tolerance of a target must be positive"),
        (
            ["--target", "density=2.4", "--tolerance", "density=abc"],
            "`--tolerance density` needs a number, with or without a unit, got 'abc'",
        ),
        (["--target", "density=2.4", "--target", "beauty=0", "--tolerance", "1"], "write `--tolerance NAME=1`"),
        (["--target", "density=2.4", "--requench", "magic"], "unknown protocol 'magic': expected one of si-melt"),
        (["--target", "density=9"], "outside the training data"),
        (["--target", "density=2.4", "--train", "gone.extxyz"], "gone.extxyz: no such file"),
        (["--target", "density=2.4", "--guidance-kind", "magic"], "must be null, model or icg"),
    ],
)
def test_what_cannot_be_designed_is_one_line(folder, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        design(*options)
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
    assert not Path("best").exists()


def test_the_compositions_of_designs_are_requenched(folder, monkeypatch, capsys):
    protocol = replace(find_protocol("si-melt"), name="si-short", stages=(Stage(0.1, (1000.0, 1000.0)),))
    monkeypatch.setitem(PROTOCOLS, "si-short", protocol)
    asked = ["--target", "density=2.4", "--tolerance", "0.5", "--n", "2", "--per-round", "4", "--rounds", "1"]
    design(*asked)
    first = read_structures("best/designs.extxyz")
    design(*asked, "--requench", "si-short", "--overwrite")
    told = capsys.readouterr()
    assert "going on after 1 rounds" in told.err
    found, anew = read_structures("best/designs.extxyz"), read_structures("best/requenched.extxyz")
    assert found.properties["density"].tolist() == first.properties["density"].tolist()
    values = found.properties["requenched_density"]
    assert values.tolist() == pytest.approx(anew.density.tolist(), abs=1e-4)
    assert [float(row["requenched_density"]) for row in table("best/designs.csv")] == pytest.approx(values.tolist())
    assert [row["requench_failure"] for row in table("best/designs.csv")] == ["", ""]
    errors = [float(abs(x - 2.4).mean()) for x in (found.properties["density"], values)]
    assert f"density: mean absolute error {errors[0]:.3g}, requenched {errors[1]:.3g} g/cm³" in told.out
    assert "density, requenched, against its target" in Path("best/report/index.html").read_text(encoding="utf-8")


def test_compositions_of_oxide_glasses_are_told_in_mole_per_cent(folder, monkeypatch, capsys):
    egnn = EGNNConfig(layers=1, hidden=8, channels=1, cutoff=4.0, n_norm=10.0)
    denoiser = ScoreModel(ScoreConfig(Vocabulary((3, 8, 14)), egnn=egnn, properties=SCALES)).eval()
    save_model("model.safetensors", Model(denoiser, Diffusion(), {"data": {"density": 2.4, "mean_mass": 20.0}}))
    monkeypatch.setattr(measuring, "at_rest", lambda made, *_, **__: measured(made, ["density"], Tools(None, "cpu")))
    design("--target", "density=2.4", "--tolerance", "2", "--n", "1", "--per-round", "2", "--rounds", "1")
    rows, found = table("best/designs.csv"), read_structures("best/designs.extxyz")
    for row, counts in zip(rows, counts_of(found), strict=True):
        assert parse_composition(row["oxides"]) == pytest.approx({k: n / 24 for k, n in counts.items()}, abs=1e-3)
    told = " ".join(capsys.readouterr().out.split())
    assert "oxides" in told
    assert "charge error before balancing: " in told
    assert "after: 1 of 1 exactly neutral" in told
    assert "elements changed to be neutral: " in told


def test_the_rounds_of_another_design_are_refused(folder, capsys):
    design("--target", "density=2.4", "--tolerance", "0.5", "--n", "1", "--rounds", "1")
    with pytest.raises(SystemExit):
        design("--target", "density=2.5", "--tolerance", "0.5", "--n", "1", "--rounds", "1", "--overwrite")
    assert "holds another design (targets density was 2.4, is 2.5, other cells)" in " ".join(
        capsys.readouterr().err.split()
    )
