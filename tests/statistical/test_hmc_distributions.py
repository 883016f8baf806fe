"""Hamiltonian Monte Carlo on energies known exactly: Gaussian, a mixture with a barrier, a Lennard-Jones cluster."""

from dataclasses import dataclass, replace
from itertools import islice
from math import sqrt

import pytest
import torch

from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.hmc import HMC_DRAW, Chain, hmc_iteration
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.segment import centred
from amden.testing import GaussianOracle, MixtureOracle

DIFFUSION = Diffusion()


def template(systems: int, atoms: int, width: int = 0) -> Sample:
    return Sample(
        torch.zeros(systems * atoms, 3, dtype=torch.float64),
        torch.zeros(systems * atoms, width, dtype=torch.float64),
        100.0 * torch.eye(3, dtype=torch.float64).expand(systems, 3, 3),
        torch.full((systems,), atoms),
    )


def times(sample: Sample, t: float) -> torch.Tensor:
    return torch.full((len(sample),), t, dtype=torch.float64)


def moves(denoiser, sample, t, *, step, n, n_verlet=10, elements=False, seed=3):
    """`n` iterations, one after the other."""
    streams = Streams.of(spawn_seeds(seed, len(sample)), sample.n_atoms)
    chain = Chain.at(denoiser, sample, t)
    for i in range(n):
        move = hmc_iteration(
            denoiser,
            chain,
            t=t,
            step=torch.full_like(t, step),
            n_verlet=n_verlet,
            diffusion=DIFFUSION,
            streams=streams,
            draw=HMC_DRAW + 2 * i,
            elements=elements,
        )
        chain = move.chain
        yield move


def test_gaussian_from_a_wrong_start():
    """Positions and elements reach the variance of p_t though the chains start at zero; large steps are corrected."""
    oracle = GaussianOracle(DIFFUSION, spread=0.3, element_mean=(0.7, 0.3), element_spread=0.2)
    start = template(1500, 4, 2)
    t = times(start, 0.3)
    # velocity Verlet bears steps up to 2 √v/σ = 2.1 here: a part of these moves is rejected
    *_, end = moves(oracle, start, t, step=1.1, n=40, n_verlet=3, elements=True)
    assert 0.3 < end.probability.mean() < 0.97
    sample = end.chain.sample
    alpha, sigma = DIFFUSION.elements.alpha(t[:1]).item(), DIFFUSION.elements.sigma(t[:1]).item()
    v_x, v_e = 0.3**2 + 0.45**2, (alpha * 0.2) ** 2 + sigma**2
    got = sample.positions.square().mean().item() / (1 - 1 / 4)
    assert got == pytest.approx(v_x, rel=5 * sqrt(2 / (1500 * 9)))
    off = sample.elements - alpha * torch.tensor([0.7, 0.3])
    assert off.square().mean().item() == pytest.approx(v_e, rel=5 * sqrt(2 / (1500 * 8)))
    assert off.mean(0).abs().max() < 5 * sqrt(v_e / 6000)


def two_bonds() -> MixtureOracle:
    """Two atoms bonded along x or along y."""
    half = 0.5 * torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    return MixtureOracle(
        DIFFUSION,
        weights=torch.tensor([0.3, 0.7], dtype=torch.float64),
        sites=torch.stack([half, -half], 1),
        elements=torch.zeros(2, 2, 0),
        spread=0.15,
    )


def bond(oracle: MixtureOracle, sample: Sample, t: torch.Tensor) -> torch.Tensor:
    return oracle.responsibilities(sample, t).argmax(1)


def test_barrier_is_crossed_to_the_right_weights():
    """All chains start in one configuration; the share in each becomes its weight."""
    oracle, start = two_bonds(), template(2000, 2)
    start = replace(start, positions=oracle.sites[0].repeat(2000, 1))
    t = times(start, 0.2)
    *_, end = moves(oracle, start, t, step=0.5, n=60)
    exact = oracle.drawn(start, t, Streams.of(spawn_seeds(9, 2000), start.n_atoms))
    expected = bond(oracle, exact, t).double().mean().item()
    assert expected == pytest.approx(0.7, abs=0.05)
    error = 5 * sqrt(2 * 0.25 / 2000)
    assert bond(oracle, end.chain.sample, t).double().mean().item() == pytest.approx(expected, abs=error)


def test_detailed_balance():
    """From exact draws, as many chains cross the barrier one way as the other, and the rest stays exact."""
    oracle = two_bonds()
    start = template(4000, 2)
    t = times(start, 0.2)
    start = oracle.drawn(start, t, Streams.of(spawn_seeds(5, 4000), start.n_atoms))
    before = bond(oracle, start, t)
    there = back = 0
    for move in moves(oracle, start, t, step=0.9, n=12, n_verlet=4):
        after = bond(oracle, move.chain.sample, t)
        there += int(((before == 0) & (after == 1)).sum())
        back += int(((before == 1) & (after == 0)).sum())
        before = after
    assert there > 500
    assert abs(there - back) < 5 * sqrt(there + back)


def test_energy_error_falls_as_the_square_of_the_step():
    oracle, start = GaussianOracle(DIFFUSION), template(400, 5)
    t = times(start, 0.25)
    start = oracle.drawn(start, t, Streams.of(spawn_seeds(5, 400), start.n_atoms))
    errors = []
    for n_verlet in (4, 8, 16):
        (move,) = moves(oracle, start, t, step=2.0 / n_verlet, n=1, n_verlet=n_verlet)
        errors.append(move.change.abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.05)


@dataclass(frozen=True)
class Cluster:
    """Lennard-Jones atoms, E = Σ_{i<j} 4 (1/T) [r⁻¹² - r⁻⁶] + ½ k Σ |x - x̄|², the trap so that none evaporates."""

    temperature: float = 0.4
    trap: float = 0.5

    def energy_and_noise(self, sample, t):
        n = int(sample.n_atoms[0])
        x = sample.positions.reshape(len(sample), n, 3)
        d = x[:, :, None] - x[:, None]
        r2 = d.square().sum(-1) + 1e6 * torch.eye(n, dtype=x.dtype)
        inverse6 = r2**-3
        about = x - x.mean(1, keepdim=True)
        energy = 2.0 * (inverse6**2 - inverse6).sum((1, 2)) / self.temperature
        energy = energy + 0.5 * self.trap * about.square().sum((1, 2))
        push = (24.0 * inverse6 - 48.0 * inverse6**2) / r2 / self.temperature
        gradient = (push[..., None] * d).sum(2) + self.trap * about
        sigma = DIFFUSION.positions.sigma(t)[:, None, None]
        return energy, Noise((sigma * gradient).flatten(0, 1), sample.elements)

    def __call__(self, sample, t):
        return self.energy_and_noise(sample, t)[1]


def test_cluster_has_the_virial_of_its_temperature():
    """⟨x · ∇E⟩ = 3 (n - 1), exactly, whatever the energy."""
    n = 5
    corners = torch.tensor([[0, 0, 0], [1.1, 0, 0], [0.5, 1, 0], [0.5, 0.3, 0.9], [0.5, 0.3, -0.9]])
    start = replace(template(300, n), positions=corners.double().repeat(300, 1))
    t, cluster = times(start, 0.05), Cluster()
    virials, probabilities = [], []
    for move in islice(moves(cluster, start, t, step=0.6, n=160, n_verlet=8), 60, None):
        sample = move.chain.sample
        about = centred(sample.positions, sample.system, n_systems=len(sample))
        gradient = move.chain.noise.positions / DIFFUSION.positions.sigma(t)[sample.system, None]
        virials.append((about * gradient).sum(1).reshape(300, n).sum(1))
        probabilities.append(move.probability)
    assert 0.3 < torch.stack(probabilities).mean() < 0.99
    each = torch.stack(virials).mean(0)
    assert each.mean().item() == pytest.approx(3 * (n - 1), abs=5 * each.std().item() / sqrt(300))
    assert each.std().item() / sqrt(300) < 0.4
