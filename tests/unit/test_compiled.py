"""The network is one graph for torch.compile, and the same function compiled; run apart from the shape checks."""

import pytest
import torch

from amden.diffusion.vocabulary import Vocabulary
from amden.neighbors import neighbor_matrix
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.energy import EnergyNetwork
from amden.nn.score import Inputs, ScoreConfig, ScoreNetwork
from amden.testing import random_sample

pytestmark = pytest.mark.compiled


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_values_and_gradients_are_the_same():
    torch.manual_seed(0)
    config = ScoreConfig(Vocabulary((8, 14)), egnn=EGNNConfig(layers=2, hidden=16, channels=4, cutoff=4.0))
    network = ScoreNetwork(config).double()
    sample = random_sample([9, 6], width=2)
    found = neighbor_matrix(sample.positions, sample.cell, sample.n_atoms, cutoff=4.0)
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    given = Inputs(t, sample.positions, sample.elements, {}, sample.system, found.target, found.offset)

    def outcome(call):
        positions, elements = call(given)
        loss = positions.square().sum() + elements.square().sum()
        return [positions, elements, *torch.autograd.grad(loss, list(network.parameters()))]

    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(outcome(compiled), outcome(network), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_energy_model_tells_conditions_apart():
    """One graph must not serve for another condition of the same shape."""
    torch.manual_seed(0)
    scales = {"a": PropertyScale(0.0, 1.0), "b": PropertyScale(0.0, 1.0)}
    config = ScoreConfig(Vocabulary((14,)), scales, EGNNConfig(layers=1, hidden=16, channels=4, cutoff=4.0))
    plain, traced = EnergyNetwork(config).double(), EnergyNetwork(config).double()
    traced.load_state_dict(plain.state_dict())
    traced.compile(backend="eager")
    sample, t = random_sample([6], width=0), torch.tensor([0.2], dtype=torch.float64)
    found = neighbor_matrix(sample.positions, sample.cell, sample.n_atoms, cutoff=4.0)
    with torch.no_grad():
        for name in scales:
            asked = {name: torch.ones(1, dtype=torch.float64)}
            given = Inputs(t, sample.positions, sample.elements, asked, sample.system, found.target, found.offset)
            torch.testing.assert_close(traced(given)[0], plain(given)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_energy_model_has_has_the_same_second_derivatives():
    torch.manual_seed(0)
    config = ScoreConfig(
        Vocabulary((8, 14)), {"x": PropertyScale(0.0, 1.0)}, EGNNConfig(layers=2, hidden=16, channels=4, cutoff=4.0)
    )
    plain = EnergyNetwork(config).double()
    traced = EnergyNetwork(config).double()
    traced.load_state_dict(plain.state_dict())
    traced.compile(backend="aot_eager")
    sample = random_sample([9, 6], width=2, conditions=("x",))
    found = neighbor_matrix(sample.positions, sample.cell, sample.n_atoms, cutoff=4.0)
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    given = Inputs(t, sample.positions, sample.elements, sample.conditions, sample.system, found.target, found.offset)

    def outcome(network):
        each, positions, elements = network(given)
        loss = positions.square().sum() + elements.square().sum()
        weights = [p for name, p in network.named_parameters() if name != "energies.head.bias"]
        return [each, positions, elements, *torch.autograd.grad(loss, weights)]

    for ours, eager in zip(outcome(traced), outcome(plain), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        for ours, eager in zip(traced(given), plain(given), strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-9, atol=1e-12)
            assert not ours.requires_grad
