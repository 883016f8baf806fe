"""What many tests start from: a tiny model, made in no time."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from lightning_fabric import Fabric

from amden.dataset import Split, split
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.model import Model, save_model
from amden.nn.egnn import EGNNConfig
from amden.nn.score import ScoreConfig, ScoreModel
from amden.testing import random_structures

settings.register_profile("gate", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("gate")  # the gate tries the same cases every time; a person's run tries new ones

TINY = EGNNConfig(layers=2, hidden=16, channels=2, cutoff=4.0, n_norm=10.0)


@pytest.fixture
def numba_cuda() -> None:
    """Skips a test where numba-cuda is missing, but not in the gate, which must have it."""
    if not os.environ.get("CI"):
        pytest.importorskip("numba_cuda")
    importlib.import_module("numba_cuda")


ON_ONE_CORE = """
import os
if hasattr(os, "sched_setaffinity"):  # threads that take turns do so sooner there
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
"""


@pytest.fixture
def simulated_cuda(numba_cuda: None) -> Callable[..., None]:
    """Runs a script in a process whose CUDA is Numba's simulator, with arguments."""

    def run(script: str, *arguments: object) -> None:
        # -W: integers of numpy complain when they wrap around, as they should here
        command = [sys.executable, "-W", "ignore", "-c", ON_ONE_CORE + script, *map(str, arguments)]
        environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def tiny_model() -> Model:
    """An untrained silicon model that says its data had 2.4 g/cm³."""
    torch.manual_seed(0)
    denoiser = ScoreModel(ScoreConfig(Vocabulary((14,)), egnn=TINY)).eval().requires_grad_(False)
    for p in denoiser.parameters():
        p.copy_(0.3 * torch.randn(p.shape))
    return Model(denoiser, Diffusion(), {"data": {"density": 2.4, "mean_mass": 28.085}})


@pytest.fixture
def tiny_checkpoint(tiny_model, tmp_path):
    """The tiny model in a file."""
    path = tmp_path / "tiny.safetensors"
    save_model(path, tiny_model)
    return path


@pytest.fixture
def fabric() -> Fabric:
    """One process on the CPU to train in."""
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture
def parts() -> Split:
    """Eight small systems of oxygen and silicon to train on, and four set aside."""
    return split(random_structures([8] * 12, species=(8, 14), seed=1, dtype=torch.float32), validation=4)
