"""`amden sweep` as a user types it, with an untrained model, and what its numbers mean."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from amden import measuring, sweep_commands
from amden import requench as requench_module
from amden.cli import main
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.io import read_structures
from amden.model import Model, save_model
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig, ScoreModel
from amden.properties import Tools, measured
from amden.report.sweep import Held, Sweep, read_sweep, sweep_figure
from amden.simulate.catalogue import PROTOCOLS, find_protocol
from amden.simulate.oxides import parse_composition
from amden.simulate.stages import Stage


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scales = {
        "mean_ring_size": PropertyScale(5.0, 0.2, quantiles=(4.0, 4.8, 5.0, 5.2, 6.0)),
        "density": PropertyScale(2.4, 0.1, quantiles=(2.0, 2.3, 2.4, 2.5, 2.8)),
        "beauty": PropertyScale(0.0, 1.0, quantiles=(-2.0, 0.0, 2.0)),
    }
    save("model.safetensors", Vocabulary((14,)), scales, {"density": 2.4, "mean_mass": 28.085})
    return tmp_path


def save(path: str, vocabulary: Vocabulary, scales: dict[str, PropertyScale], data: dict[str, float]) -> None:
    egnn = EGNNConfig(layers=1, hidden=8, channels=1, cutoff=4.0, n_norm=10.0)
    denoiser = ScoreModel(ScoreConfig(vocabulary, egnn=egnn, properties=scales)).eval()
    save_model(path, Model(denoiser, Diffusion(), {"data": data}))


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def short(monkeypatch):
    """A protocol that only warms a random start."""
    protocol = replace(find_protocol("si-melt"), name="si-short", stages=(Stage(0.1, (1000.0, 1000.0)),))
    monkeypatch.setitem(PROTOCOLS, "si-short", protocol)


def sweep(*options: str) -> None:
    main(["sweep", "model.safetensors", "--out", "fig4", "--steps", "6", "--device", "cpu", *options])


def test_every_target_has_its_structures_measured(folder, capsys):
    sweep("--target", "mean_ring_size=4.5:5.5:3", "--n", "2", "--atoms", "20:30")
    found = read_structures("fig4/sweep.extxyz")
    assert found.properties["target_mean_ring_size"].tolist() == [4.5, 4.5, 5.0, 5.0, 5.5, 5.5]
    assert found.n_atoms.tolist() == [20, 30] * 3
    rows = table("fig4/sweep.csv")
    assert "oxides" not in rows[0]
    assert [float(row["mean_ring_size"]) for row in rows] == pytest.approx(
        found.properties["mean_ring_size"].tolist(), nan_ok=True
    )
    targets = table("fig4/targets.csv")
    means = [float(row["mean"]) for row in targets]
    values = found.properties["mean_ring_size"].reshape(3, 2).double().numpy()
    assert means == pytest.approx(np.nanmean(values, axis=1), abs=1e-6, nan_ok=True)
    assert Path("fig4/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "Pearson r of the means over the targets" in capsys.readouterr().out


def test_a_cell_is_taken_as_given(folder):
    sweep("--target", "mean_ring_size=4.5:5.5:2", "--n", "1", "--cell", "6,6,12", "--atoms", "22")
    found = read_structures("fig4/sweep.extxyz")
    assert found.n_atoms.tolist() == [22, 22]
    edges = found.cell.norm(dim=2)
    assert bool((edges[:, 2] > 1.4 * edges[:, :2].amax(1)).all()), "relaxed, but still the long cell"


def test_what_is_held_is_told_and_what_is_requenched_stands_beside(folder, short, monkeypatch, capsys):
    asked = ["--target", "mean_ring_size=4.5:5.5:2", "--target", "density=2.3", "--n", "2", "--atoms", "24"]
    sweep(*asked, "--requench", "si-short", "--target", "beauty=1")
    found = read_structures("fig4/sweep.extxyz")
    assert found.properties["target_density"].tolist() == pytest.approx([2.3] * 4)
    assert found.properties["target_mean_ring_size"].tolist() == [4.5, 4.5, 5.5, 5.5]
    known = found.properties["density"].double().numpy()
    told = " ".join(capsys.readouterr().out.split())
    assert (
        f"density held at 2.3 g/cm³: mean {known.mean():.4g}, standard deviation {known.std(ddof=1):.2g} of 4" in told
    )
    assert f"mean error {known.mean() - 2.3:+.2g}, mean absolute error {abs(known - 2.3).mean():.2g} g/cm³" in told
    assert "beauty held at 1: not measured" in told

    anew = read_structures("fig4/requenched.extxyz")
    assert anew.properties["structure"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert anew.n_atoms.tolist() == [24] * 4
    values = found.properties["requenched_density"].tolist()
    assert values == pytest.approx(anew.properties["density"].tolist())
    assert not set(values) & set(found.properties["density"].tolist())
    error = abs(found.properties["requenched_mean_ring_size"] - found.properties["target_mean_ring_size"])
    assert f"requenched: {int(error.isfinite().sum())} of 4 measured, mean absolute error" in told
    rows = table("fig4/sweep.csv")
    assert [float(row["requenched_density"]) for row in rows] == pytest.approx(values, abs=1e-6)
    assert [row["requench_failure"] for row in rows] == [""] * 4
    assert {row["property"] for row in table("fig4/targets.csv")} == {"mean_ring_size", "mean_ring_size (requenched)"}

    Path("fig4/requenched.extxyz").unlink()
    with monkeypatch.context() as patch:  # finished sweeps are not made again
        patch.setattr(sweep_commands, "generate_shown", None)
        patch.setattr(sweep_commands, "kept_at_rest", None)
        sweep(*asked, "--target", "beauty=1", "--requench", "si-short", "--overwrite")
    assert "4 of 4 structures are there from before" in capsys.readouterr().err
    assert read_structures("fig4/sweep.extxyz").properties["requenched_density"].tolist() == pytest.approx(values)
    assert table("fig4/sweep.csv") == rows

    sweep(*asked, "--seed", "1", "--beside", "before=fig4", "--overwrite")
    told = " ".join(capsys.readouterr().out.split())
    assert f"before: {int(found.properties['mean_ring_size'].isfinite().sum())} of 4 measured" in told


@pytest.mark.parametrize(("options", "further"), [((), ["moduli-vrh"]), (("--no-converged",), [])])
def test_the_converged_convention_may_be_left_out(folder, monkeypatch, options, further):
    save("model.safetensors", Vocabulary((14,)), {"shear_modulus": PropertyScale(30.0, 3.0)}, {"density": 2.4})
    asked = []

    def seen(made, names, **_):
        asked.append(names)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_commands, "kept_at_rest", seen)
    with pytest.raises(SystemExit):
        sweep("--target", "shear_modulus=25:35:2", "--n", "1", "--atoms", "20", *options)
    assert asked == [["density", "rings", "moduli", *further]]


def test_an_interrupted_requench_goes_on(folder, short, monkeypatch, capsys):
    asked = ["--target", "mean_ring_size=4.5:5.5:2", "--n", "1", "--atoms", "24", "--requench", "si-short"]
    run_campaign = requench_module.run_campaign

    def interrupted(*arguments, **options):
        run_campaign(*arguments, **options | {"batch_size": 1, "progress": stop})

    def stop(now):
        if now.done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(requench_module, "run_campaign", interrupted)
    with pytest.raises(SystemExit) as stopped:
        sweep(*asked)
    assert stopped.value.code == 130
    assert not Path("fig4/sweep.extxyz").exists()
    (begun,) = Path("fig4/requenched").glob("*/*.safetensors")
    content = begun.read_bytes()
    monkeypatch.setattr(requench_module, "run_campaign", run_campaign)
    sweep(*asked)
    assert begun.read_bytes() == content
    assert read_structures("fig4/sweep.extxyz").properties["requenched_density"].isfinite().all()


def test_compositions_are_told_in_oxides_and_balanced(folder, monkeypatch, capsys):
    """Elements as an untrained model has them: neutral after balancing, whatever the held fraction of lithium is."""
    scales = {
        "density": PropertyScale(2.4, 0.1),
        "li_fraction": PropertyScale(0.1, 0.05, quantiles=(0.0, 0.0, 0.1, 0.3)),
    }
    save("glass.safetensors", Vocabulary((3, 8, 14)), scales, {"density": 2.4, "mean_mass": 20.0})
    monkeypatch.setattr(
        measuring, "at_rest", lambda made, *_, **__: measured(made, ["density", "fractions"], Tools(None, "cpu"))
    )
    sizes = ["--n", "2", "--atoms", "30", "--out", "fig2", "--steps", "6", "--device", "cpu"]
    main(["sweep", "glass.safetensors", "--target", "density=2:3:2", "--target", "li_fraction=0.15", *sizes])
    told = " ".join(capsys.readouterr().out.split())
    assert "not measured" not in told
    assert "charge error before balancing: " in told
    assert "after: 4 of 4 exactly neutral" in told
    assert "li_fraction held at 0.15: mean " in told
    rows = table("fig2/sweep.csv")
    found = read_structures("fig2/sweep.extxyz")
    for row, species in zip(rows, found.species.split(found.n_atoms.tolist()), strict=True):
        fractions = parse_composition(row["oxides"])
        assert fractions == pytest.approx({k: float((species == z).sum()) / 30 for k, z in ELEMENTS.items()}, abs=1e-3)
        assert float(row["li_fraction"]) == pytest.approx(fractions["Li"], abs=1e-3)


ELEMENTS = {"Li": 3, "O": 8, "Si": 14}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "mean_ring_size=5"], "must look like 'shear_modulus=20:42:12 GPa'"),
        (["--target", "mean_ring_size=4:6:1"], "must look like 'shear_modulus=20:42:12 GPa'"),
        (["--target", "wit=4:6:3"], "does not know the property 'wit'"),
        (
            ["--target", "mean_ring_size=4:6:3", "--atoms", "few"],
            "`--atoms` must be a number of atoms, or two as 350:500",
        ),
        (["--target", "mean_ring_size=4:6:3", "--target", "density=2:3:2"], "a sweep has one series of targets, got"),
        (["--target", "mean_ring_size=4:6:3", "--target", "mean_ring_size=5"], "`--target mean_ring_size` comes twice"),
        (["--target", "beauty=1:2:3"], "'beauty' cannot be measured by amden"),
        (
            ["--target", "mean_ring_size=4:6:3", "--requench", "magic"],
            "unknown protocol 'magic': expected one of si-melt",
        ),
        (["--target", "mean_ring_size=4:6:3", "--beside", "gone"], "gone is not what `amden sweep` left"),
    ],
)
def test_what_cannot_be_swept_is_one_line(folder, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        sweep(*options)
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
    assert not Path("fig4").exists()


def test_an_unusual_composition_is_noted(folder, monkeypatch, capsys):
    save("glass.safetensors", Vocabulary((8, 14)), {"density": PropertyScale(2.4, 0.1)}, {"density": 2.4})
    monkeypatch.setattr(sweep_commands, "generate_shown", stopped_here)
    with pytest.raises(SystemExit):
        main(["sweep", "glass.safetensors", "--target", "density=2:3:2", "--formula", "Si2O3", "--out", "fig2"])
    assert "note: Si2O3 is not neutral: its formal charges sum to +2 e" in " ".join(capsys.readouterr().err.split())


def stopped_here(*_, **__):
    raise ValueError("far enough")


def test_errors_are_told_apart_by_the_range_of_the_training_data():
    target = np.repeat([20.0, 25.0, 30.0, 40.0], 2)
    value = target + np.array([4.0, 4.0, 1.0, -1.0, np.nan, 2.0, -10.0, -6.0])
    found = Sweep("shear_modulus", "GPa", target, value, (22.0, 32.0))
    assert found.error(found.inside) == pytest.approx(4.0 / 3.0)
    assert found.error(~found.inside) == pytest.approx(6.0)
    assert [mean for _, mean, *_ in found.means()] == [24.0, 25.0, 32.0, 32.0]
    assert found.pearson == pytest.approx(np.corrcoef([20.0, 25.0, 30.0, 40.0], [24.0, 25.0, 32.0, 32.0])[0, 1])
    axes = sweep_figure([found]).axes[0]
    assert axes.get_xlabel() == "target shear modulus, GPa"
    assert "MAE 1.33 within, 6 beyond" in axes.get_title("left")


def test_others_are_drawn_beside():
    target = np.array([20.0, 20.0, 30.0, 30.0, 40.0, 40.0])
    own = Sweep("youngs_modulus", "GPa", target, target - 4.0, (15.0, 35.0))
    both = replace(own, beside={"requenched": replace(own, value=np.where(target < 40, target + 1.0, np.nan))})
    assert list(both.lines())[-1] == "  requenched: 4 of 6 measured, mean absolute error 1 GPa within"
    axes, held = sweep_figure(
        [both], [Held("li_fraction", "", 0.15, np.array([0.1, 0.2, np.nan]), (0.0, 0.1, 0.3))]
    ).axes
    title = axes.get_title("left")
    assert "generated: MAE 4 within, 4 beyond" in title
    assert title.endswith("\nrequenched: MAE 1 within")
    assert {"generated", "requenched"} <= {text.get_text() for text in axes.get_legend().get_texts()}
    drawn = [line for line in axes.lines if len(line.get_xdata()) == len(target)]
    assert drawn[0].get_marker() != drawn[1].get_marker()
    assert held.get_title("left") == "MAE 0.05"
    assert sum(patch.get_height() for patch in held.patches if hasattr(patch, "get_height")) == pytest.approx(1.0)


def test_what_is_unknown_is_left_out():
    """Two targets, none beyond the range; and one that could not be measured at all."""
    target = np.array([20.0, 20.0, 30.0, 30.0])
    found = Sweep("shear_modulus_vrh", "GPa", target, target + 1.0, (15.0, 35.0))
    assert [line.split(":")[0] for line in found.lines()] == [
        "shear_modulus_vrh",
        "  targets within 15 to 35 GPa (5th to 95th percentile of the training data)",
    ]
    lost = replace(found, value=np.full(4, np.nan))
    assert list(lost.lines()) == ["shear_modulus_vrh: 0 of 4 structures measured"]
    first, second = sweep_figure([found, replace(found, beside={"lost": lost})]).axes
    assert first.get_ylabel() == "shear modulus (Voigt-Reuss-Hill), GPa"
    assert first.get_title("left") == "MAE 1 within"
    assert second.get_title("left") == "generated: MAE 1 within\nlost"


def test_what_was_held_in_words():
    values = np.array([0.10, 0.20, np.nan, 0.18])
    (line,) = Held("li_fraction", "", 0.15, values).lines()
    assert line == (
        "li_fraction held at 0.15: mean 0.16, standard deviation 0.053 of 3 structures; mean error +0.01, "
        "mean absolute error 0.043"
    )
    (line,) = Held("cooling_rate", "K/ps", 5.0, values * np.nan).lines()
    assert line == "cooling_rate held at 5 K/ps: not measured"
    (line,) = Held("li_fraction", "", 0.15, values[:1]).lines()
    assert line == "li_fraction held at 0.15: mean 0.1 of 1 structures; mean error -0.05, mean absolute error 0.05"


def test_a_table_of_another_sweep_is_refused(tmp_path):
    (tmp_path / "sweep.csv").write_text("structure,density,target_density\n0,2.0,nan\n")
    assert read_sweep(tmp_path, "density")["density"].tolist() == [2.0]
    with pytest.raises(ValueError, match="no sweep of 'youngs_modulus': it has structure, density, target_density"):
        read_sweep(tmp_path, "youngs_modulus")
