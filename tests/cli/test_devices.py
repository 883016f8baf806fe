"""Training in two processes: `amden train --devices 2`, on the CPU as on GPUs."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("energy", ["false", "true"])
def test_two_processes_train_one_model(tmp_path, energy):
    save_shard(tmp_path / "data.safetensors", random_structures([12] * 24))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(energy=energy))
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
