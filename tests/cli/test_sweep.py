"""`amden sweep` as a user types it, with an untrained model, and what its numbers mean."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from amden.cli import main
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.io import read_structures
from amden.model import Model, save_model
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig, ScoreModel
from amden.report.sweep import Sweep, sweep_figure


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scales = {"mean_ring_size": PropertyScale(5.0, 0.2, quantiles=(4.0, 4.8, 5.0, 5.2, 6.0))}
    egnn = EGNNConfig(layers=1, hidden=8, channels=1, cutoff=4.0, n_norm=10.0)
    denoiser = ScoreModel(ScoreConfig(Vocabulary((14,)), egnn=egnn, properties=scales)).eval()
    save_model("model.safetensors", Model(denoiser, Diffusion(), {"data": {"density": 2.4, "mean_mass": 28.085}}))
    return tmp_path


def sweep(*options: str) -> None:
    main(["sweep", "model.safetensors", "--out", "fig4", "--steps", "6", "--device", "cpu", *options])


def test_every_target_has_its_structures_measured(folder, capsys):
    sweep("--target", "mean_ring_size=4.5:5.5:3", "--n", "2", "--atoms", "20:30")
    found = read_structures("fig4/sweep.extxyz")
    assert found.properties["target_mean_ring_size"].tolist() == [4.5, 4.5, 5.0, 5.0, 5.5, 5.5]
    assert found.n_atoms.tolist() == [20, 30] * 3
    with Path("fig4/sweep.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean_ring_size"]) for row in rows] == pytest.approx(
        found.properties["mean_ring_size"].tolist(), nan_ok=True
    )
    with Path("fig4/targets.csv").open(encoding="utf-8") as file:
        targets = list(csv.DictReader(file))
    means = [float(row["mean"]) for row in targets]
    values = found.properties["mean_ring_size"].reshape(3, 2).double().numpy()
    assert means == pytest.approx(np.nanmean(values, axis=1), abs=1e-6, nan_ok=True)
    assert Path("fig4/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "Pearson r of the means over the targets" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "mean_ring_size=5"], "must look like 'shear_modulus=20:42:12 GPa'"),
        (["--target", "mean_ring_size=4:6:1"], "must look like 'shear_modulus=20:42:12 GPa'"),
        (["--target", "beauty=4:6:3"], "does not know the property 'beauty'"),
        (["--target", "mean_ring_size=4:6:3", "--atoms", "few"], "`--atoms` must be a number or two as 350:500"),
    ],
)
def test_what_cannot_be_swept_is_one_line(folder, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        sweep(*options)
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
    assert not Path("fig4").exists()


def test_errors_are_told_apart_by_the_range_of_the_training_data():
    target = np.repeat([20.0, 25.0, 30.0, 40.0], 2)
    value = target + np.array([4.0, 4.0, 1.0, -1.0, np.nan, 2.0, -10.0, -6.0])
    found = Sweep("shear_modulus", "GPa", target, value, (22.0, 32.0))
    assert found.error(found.inside) == pytest.approx(4.0 / 3.0)
    assert found.error(~found.inside) == pytest.approx(6.0)
    assert [mean for _, mean, *_ in found.means()] == [24.0, 25.0, 32.0, 32.0]
    assert found.pearson == pytest.approx(np.corrcoef([20.0, 25.0, 30.0, 40.0], [24.0, 25.0, 32.0, 32.0])[0, 1])
    axes = sweep_figure([found]).axes[0]
    assert axes.get_xlabel() == "target shear modulus (GPa)"
    assert "MAE 1.33 within, 6 beyond" in axes.get_title("left")
