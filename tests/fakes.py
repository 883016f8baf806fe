"""Stand-ins that tests in several files and other processes import."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numba
import torch

from amden.simulate.runs import Runs
from amden.structure import Structures


@dataclass(frozen=True)
class Fake:
    """A stand-in for the engine: cells that are functions of their seeds, some of which fail."""

    name: str = "amden"
    size: int = 4
    """Cells it would run together."""
    allowed: int = 10**9
    """Seeds it agrees to run at once."""

    def batch_size(self, protocol):
        return self.size

    def about(self):
        return {"device": "none", "versions": {"amden": "1", "numba": "2", "numpy": "3"}}

    def run(self, protocol, seeds, *, on_launch, numbers=None, keeper=None):
        assert len(seeds) <= self.allowed
        kept = [i for i, seed in enumerate(seeds) if seed % 7]
        failures = {i: "fell over" for i, seed in enumerate(seeds) if seed % 7 == 0}
        positions = [torch.rand(2, 3, generator=torch.Generator().manual_seed(seeds[i])) for i in kept]
        for steps in (5, 10):
            on_launch(steps, len(failures))
        n = len(kept)
        structures = Structures(
            torch.cat([torch.zeros(0, 3), *positions]),
            torch.full((2 * n,), 14),
            3.3 * torch.eye(3, dtype=torch.float64).repeat(n, 1, 1),
            torch.full((n,), 2),
            {"density": torch.tensor([float(seeds[i] % 100) for i in kept])},
        )
        return Runs(structures, tuple(kept), failures)


def gpu_of_worker(folder: Path, workers: int) -> tuple[str | None, int]:
    """What a worker process sees of the GPUs, and its threads; it ends when so many workers have come."""
    (folder / str(os.getpid())).touch()
    since = time.monotonic()
    while len(list(folder.iterdir())) < workers:
        assert time.monotonic() - since < 120.0
        time.sleep(0.02)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), numba.get_num_threads()
