"""The network is one graph for torch.compile, and the same function compiled; run apart from the shape checks."""

import pytest
import torch

from amden.diffusion.vocabulary import Vocabulary
from amden.neighbors import neighbor_matrix
from amden.nn.egnn import EGNNConfig
from amden.nn.score import ScoreConfig, ScoreNetwork
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
    given = (t, sample.positions, sample.elements, {}, sample.system, found.target, found.offset)

    def outcome(call):
        positions, elements = call(*given)
        loss = positions.square().sum() + elements.square().sum()
        return [positions, elements, *torch.autograd.grad(loss, list(network.parameters()))]

    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(outcome(compiled), outcome(network), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-9, atol=1e-12)
