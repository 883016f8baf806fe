"""A training step on mixed sizes with ghosts: never waits for the GPU, and the network is compiled once."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from amden.dataset import split
from amden.nn.egnn import EGNNConfig
from amden.recipe import GhostConfig, Recipe, TrainingConfig
from amden.testing import random_structures
from amden.training import Run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("energy", "taught"), [(False, False), (True, False), (True, True)])
def test_steps_wait_for_nothing_and_recompile_nothing(tmp_path, energy, taught):
    made = random_structures(list(range(80, 120)), species=(8, 8, 14), seed=1, dtype=torch.float32)
    data = replace(made, properties={"x": torch.linspace(1.0, 2.0, len(made))})
    recipe = Recipe(
        properties=("x",),
        ghosts=GhostConfig(density=0.09),
        energy=energy,
        egnn=EGNNConfig(layers=2, hidden=32, channels=4, cutoff=5.0),
        training=TrainingConfig(batch_size=12, max_atoms=1000, validation=4),
    )
    fabric = Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")
    run = Run(recipe, split(data, validation=4), tmp_path, fabric=fabric, compiled=True, provenance={})
    if taught:
        score = replace(recipe, energy=False)
        run.learn_from(Run(score, split(data, validation=4), tmp_path, fabric=fabric, provenance={}).model())
    batches = run._feed.batches.chosen_at(0)
    for _ in range(3):
        run._advance(next(batches))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch._dynamo.config.patch(error_on_recompile=True):
            losses = [run._advance(next(batches))[0].positions for _ in range(6)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len({len(each) for each in losses}) > 1
    assert run._launching() == ({} if energy else {"mode": "reduce-overhead"})
    assert all(bool(torch.isfinite(each).all()) for each in losses)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_graph_trains_as_the_network_itself_does(tmp_path):
    data = random_structures(list(range(40, 60)), species=(8, 14), seed=1, dtype=torch.float32)
    recipe = Recipe(
        ghosts=GhostConfig(density=0.09),
        egnn=EGNNConfig(layers=2, hidden=32, channels=4, cutoff=5.0),
        training=TrainingConfig(batch_size=4, max_atoms=400, validation=4, warmup=1),
    )
    fabric, found = Fabric(accelerator="cuda", devices=1, precision="32-true"), []
    for compiled in (False, True):
        run = Run(recipe, split(data, validation=4), tmp_path, fabric=fabric, compiled=compiled, provenance={})
        batches = run._feed.batches.chosen_at(0)
        for _ in range(6):
            run._advance(next(batches))
        found.append((run.validate()["validation"], next(iter(run._average.values())).cpu()))
        run._advance(next(batches))  # after a validation the graphs still stand
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-3, atol=1e-4)
