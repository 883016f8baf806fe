"""Every sampler against the exact score of a mixture: weights of the configurations, and positions with elements."""

from math import sqrt

import pytest
import torch

from amden.diffusion.denoiser import Sample
from amden.diffusion.sampler import euler_maruyama, probability_flow, probability_flow_heun, time_grid
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.testing import MixtureOracle

DIFFUSION = Diffusion()
N_SYSTEMS = 2000
WEIGHTS = (0.2, 0.5, 0.3)
BONDS = ((2.0, 0.0, 0.0), (0.0, 1.2, 0.6), (0.0, -1.0, 1.5))
KINDS = ((0, 1), (1, 0), (1, 1))
"""Class of both atoms in each configuration: bonds and elements go together."""


def dumbbells() -> MixtureOracle:
    half = 0.5 * torch.tensor(BONDS)
    return MixtureOracle(
        DIFFUSION,
        weights=torch.tensor(WEIGHTS),
        sites=torch.stack([half, -half], 1),
        elements=torch.eye(2)[torch.tensor(KINDS)],
        spread=0.15,
        element_spread=0.1,
    )


def start(oracle: MixtureOracle, streams: Streams, n_atoms: torch.Tensor) -> Sample:
    """The exact marginal at t_max."""
    atoms, classes = int(n_atoms.sum()), oracle.elements.shape[2]
    template = Sample(
        torch.zeros(atoms, 3), torch.zeros(atoms, classes), torch.eye(3).expand(len(n_atoms), 3, 3), n_atoms
    )
    return oracle.drawn(template, torch.full((len(n_atoms),), DIFFUSION.t_max), streams, draw=0)


def end_of(name: str, oracle: MixtureOracle, n_atoms: torch.Tensor) -> Sample:
    streams = Streams.of(spawn_seeds(5, len(n_atoms)), n_atoms)
    begin = start(oracle, streams, n_atoms)
    if name == "euler_maruyama":
        return euler_maruyama(oracle, begin, diffusion=DIFFUSION, times=time_grid(DIFFUSION), streams=streams)
    flow, n_steps = {"probability_flow": (probability_flow, 150), "heun": (probability_flow_heun, 50)}[name]
    return flow(oracle, begin, diffusion=DIFFUSION, times=time_grid(DIFFUSION, n_steps=n_steps))


@pytest.mark.parametrize("sampler", ["euler_maruyama", "probability_flow", "heun"])
def test_configurations_come_with_their_weights_and_elements(sampler):
    end = end_of(sampler, dumbbells(), torch.full((N_SYSTEMS,), 2))
    bond = end.positions[0::2] - end.positions[1::2]
    found = torch.cdist(bond, torch.tensor(BONDS)).argmin(1)
    classes = end.elements.argmax(1).reshape(-1, 2)
    assert (classes == torch.tensor(KINDS)[found]).all(1).double().mean() > 0.998
    for k, (weight, mean) in enumerate(zip(WEIGHTS, BONDS, strict=True)):
        share, chosen = (found == k).double().mean().item(), bond[found == k]
        assert share == pytest.approx(weight, abs=0.005 + 4 * sqrt(weight * (1 - weight) / N_SYSTEMS))
        # A bond has twice the variance of a coordinate; a few per cent of bias are the steps'.
        assert chosen.mean(0).tolist() == pytest.approx(mean, abs=0.01 + 4 * 0.15 * sqrt(2 / len(chosen)))
        assert chosen.var(0).mean().item() == pytest.approx(2 * 0.15**2, rel=0.06 + 4 * sqrt(2 / 3 / len(chosen)))


@pytest.mark.parametrize("sampler", ["euler_maruyama", "probability_flow", "heun"])
def test_elements_alone_come_with_their_weights(sampler):
    """Single atoms, whose positions are frozen: only elements diffuse."""
    oracle = MixtureOracle(
        DIFFUSION,
        weights=torch.tensor(WEIGHTS),
        sites=torch.zeros(3, 1, 3),
        elements=torch.eye(3)[:, None],
        element_spread=0.1,
    )
    end = end_of(sampler, oracle, torch.ones(N_SYSTEMS, dtype=torch.long))
    assert end.positions.abs().max() == 0
    found = end.elements.argmax(1)
    for k, weight in enumerate(WEIGHTS):
        share, chosen = (found == k).double().mean().item(), end.elements[found == k]
        assert share == pytest.approx(weight, abs=0.005 + 4 * sqrt(weight * (1 - weight) / N_SYSTEMS))
        expected = torch.eye(3)[k].tolist()
        assert chosen.mean(0).tolist() == pytest.approx(expected, abs=0.01 + 4 * 0.1 / sqrt(len(chosen)))
        assert chosen.var(0).mean().item() == pytest.approx(0.01, rel=0.08 + 4 * sqrt(2 / 3 / len(chosen)))
