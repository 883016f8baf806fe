"""Training in two processes: `amden train --devices 2`, on the CPU as on GPUs."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from amden.model import load_model
from amden.shard import save_shard
from amden.testing import random_structures

RECIPE = """
data: data.safetensors
energy: {energy}
egnn: {{layers: 1, hidden: 8, channels: 1, cutoff: 4.0, n_norm: 10.0}}
training: {{steps: 6, batch_size: 4, validation: 4, log_every: 2, save_every: 6, validate_every: 6}}
"""


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "amden", "train", "recipe.yaml", "--device", "cpu", "--out", "run", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def test_two_processes_train_one_energy_model(tmp_path):
    save_shard(tmp_path / "data.safetensors", random_structures([12] * 24))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(energy="true"))
    done = train(tmp_path, "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model.safetensors") == 1
    assert done.stderr.count("step 6:") == 1
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [2, 4, 6]
    before = load_model(tmp_path / "run" / "model.safetensors").denoiser.state_dict()
    again = train(tmp_path, "--devices", "2", "--resume", "--set", "training.steps=8")
    assert again.returncode == 0, again.stderr
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.provenance["steps"] == 8
    after = model.denoiser.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


SPY = """
import sys, time
import torch
from amden import objective, training
from amden.cli import main

plain, seen = objective.score_matching, []

def spying(denoiser, sample, **given):
    if torch.is_grad_enabled():
        seen.append(sorted(sample.conditions["index"][~sample.conditions["index"].isnan()].tolist()))
    return plain(denoiser, sample, **given)

class Watched(training.Run):
    def loop(self, *given):
        super().loop(*given)
        weights = torch.cat([p.detach().flatten() for p in self._bare.parameters()])
        torch.save({"seen": seen, "weights": weights, "step": self.step}, f"rank-{self.fabric.global_rank}.pt")

objective.score_matching, training.Run = spying, Watched
if "slow" in sys.argv:
    sys.argv.remove("slow")
    advance = training.Run._advance
    Watched._advance = lambda self, chosen: (time.sleep(0.2 * self.fabric.global_rank), advance(self, chosen))[1]
main(sys.argv[1:])
"""


def watched(folder: Path, *options: str) -> list[dict]:
    save_shard(
        folder / "data.safetensors",
        replace(random_structures([12] * 24), properties={"index": torch.arange(24.0)}),
    )
    recipe = RECIPE.format(energy="false").replace("steps: 6", "steps: 6, missing: 0.0") + "properties: [index]\n"
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "spy.py").write_text(SPY)
    command = [sys.executable, "spy.py", "train", "recipe.yaml", "--device", "cpu", "--devices", "2", "--out", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank-{rank}.pt") for rank in (0, 1)]


def test_devices_share_the_data_and_agree_on_the_weights(tmp_path):
    one, other = watched(tmp_path)
    assert torch.equal(one["weights"], other["weights"])
    assert [len(batch) for batch in one["seen"]] == [2] * 6
    first = [index for batch in one["seen"][:5] + other["seen"][:5] for index in batch]
    assert len(set(first)) == 20, "the first epoch of 20 structures, each on one device"


def test_devices_stop_together_though_one_is_slow(tmp_path):
    one, other = watched(tmp_path, "--max-minutes", "0.01", "--set", "training.steps=100000", "slow")
    assert one["step"] == other["step"] < 1000
    assert torch.equal(one["weights"], other["weights"])
