import csv

import pytest
import torch

from amden.diffusion.loss import Losses
from amden.metrics import COLUMNS, MetricsLog, Tally


def test_losses_are_averaged_by_noise_level():
    tally = Tally(torch.device("cpu"))
    tally.add(Losses(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 0.0, 3.0])), torch.tensor([0.31, 0.39, 0.99]))
    tally.add(Losses(torch.tensor([3.0]), torch.tensor([1.0])), torch.tensor([0.35]))
    row = tally.row("loss")
    assert tally.systems == 4
    assert row["loss"] == pytest.approx(3.0)
    assert row["loss_elements"] == pytest.approx(1.0)
    assert row["loss_t0.3"] == pytest.approx(2.0)
    assert row["loss_t0.9"] == pytest.approx(6.0)
    assert row["loss_t0.5"] != row["loss_t0.5"]


def test_rows_are_appended(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    MetricsLog(path).write({"step": 1, "loss": 0.5})
    MetricsLog(path).write({"step": 2, "loss": 0.25, "validation": 0.3})
    MetricsLog(path, enabled=False).write({"step": 3})
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert list(rows[0]) == COLUMNS
    assert [(r["step"], r["loss"], r["validation"]) for r in rows] == [("1", "0.5", ""), ("2", "0.25", "0.3")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path / "metrics.csv", tensorboard=True)
    log.write({"step": 7, "loss": 0.5})
    log.close()
    board = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in board.Scalars("loss")] == [(7, 0.5)]


def test_tensorboard_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'amden\[tensorboard\]'"):
        MetricsLog(tmp_path / "metrics.csv", tensorboard=True)
