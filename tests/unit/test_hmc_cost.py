"""What an iteration must not do: wait for a device, or compile again. Run apart from the shape checks."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from amden import generation
from amden.blank import cubic_blank
from amden.diffusion.hmc import HMCConfig, HMCRefinement
from amden.generation import generate
from amden.model import denoiser_of
from amden.neighbors import neighbor_plan
from amden.random import Streams, spawn_seeds
from amden.refinement import evaluations
from amden.testing import random_sample

pytestmark = pytest.mark.compiled

HMC = HMCConfig(n_verlet=2, step=0.05)


@pytest.fixture
def model(tiny_model):
    torch.manual_seed(0)
    denoiser = denoiser_of(replace(tiny_model.denoiser.config, energy=True), tiny_model.diffusion)
    return replace(tiny_model, denoiser=denoiser.eval().requires_grad_(False))


class NoWaiting(TorchDispatchMode):
    """An operation whose result the host must know, a number or a size, is an error, as it waits on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name.startswith(("index", "_index")) and any(
            index is not None and index.dtype == torch.bool for index in (args[1] if isinstance(args[1], list) else ())
        )
        sized = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if masks or sized or name in {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount"}:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def test_an_iteration_waits_for_no_device(model):
    sample = random_sample([9, 6], width=0)
    sample = replace(sample, positions=sample.positions.float(), elements=sample.elements.float())
    plan = neighbor_plan(sample.cell.float(), sample.n_atoms, cutoff=4.0, capacity=40)

    class Planned:
        def __call__(self, sample, t):
            return self.energy_and_noise(sample, t)[1]

        def energy_and_noise(self, sample, t):
            return model.denoiser.energy_and_noise(sample, t, plan=plan)

    streams = Streams.of(spawn_seeds(0, 2), sample.n_atoms)
    refine = HMCRefinement(Planned(), HMC, diffusion=model.diffusion, streams=streams)
    with NoWaiting():
        moved, _ = refine(0, 0.3, sample)
        moved, _ = refine(1, 0.2, moved)
    assert refine.record().probability.isfinite().all()
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        bool(moved.positions.isnan().any())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_one_graph_serves_a_whole_generation(model, monkeypatch):
    """Batches of other sizes and densities, with places for neighbours fixed beforehand as on a GPU."""
    graphs, calls = [], []

    def backend(graph, _):
        graphs.append(graph)

        def called(*inputs):
            calls.append(1)
            return graph.forward(*inputs)

        return called

    blank = cubic_blank(model, 5, atoms=12)
    blank = replace(blank, cell=blank.cell * torch.linspace(0.9, 1.1, 5)[:, None, None])
    blank = replace(blank, n_atoms=torch.tensor([12, 9, 12, 11, 10]))
    plain = generate(model, blank, n_steps=6, refine=HMC, batch_size=2, compiled=True)
    assert not graphs, "so little is not worth it"
    monkeypatch.setattr(generation, "_capacity", lambda *_: 40)
    monkeypatch.setattr(generation, "COMPILE_FROM", 1)
    network = model.denoiser.network
    monkeypatch.setattr(network, "compile", partial(network.compile, backend=backend))
    made = generate(model, blank, n_steps=6, refine=HMC, batch_size=2, compiled=True)
    assert len(graphs) == 1
    assert len(calls) == 3 * sum(evaluations(model, n_steps=6, refine=HMC))
    torch.testing.assert_close(made.positions, plain.positions, rtol=0, atol=2e-4)
