"""HMC as an algorithm: rejection, batches, steering of the step, bad settings. Distributions: `tests/statistical`."""

from dataclasses import replace

import pytest
import torch

from amden.diffusion.corruption import prior
from amden.diffusion.hmc import HMC_DRAW, Chain, HMCConfig, HMCRefinement, hmc_iteration
from amden.diffusion.sampler import euler_maruyama, time_grid
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.testing import GaussianOracle, random_sample

DIFFUSION = Diffusion()
ORACLE = GaussianOracle(DIFFUSION, element_mean=(0.5, 0.5))


def moved(sample, t, *, step, seeds, elements=False, denoiser=ORACLE):
    return hmc_iteration(
        denoiser,
        Chain.at(denoiser, sample, t),
        t=t,
        step=step,
        n_verlet=4,
        diffusion=DIFFUSION,
        streams=Streams.of(seeds, sample.n_atoms),
        draw=HMC_DRAW,
        elements=elements,
    )


def two_chains():
    sample = random_sample([4, 6], width=2)
    return sample, torch.tensor([0.2, 0.4], dtype=torch.float64), spawn_seeds(1, 2)


def test_a_rejected_chain_stays_where_it_is():
    sample, t, seeds = two_chains()
    move = moved(sample, t, step=torch.tensor([0.1, 50.0], dtype=torch.float64), seeds=seeds)
    assert move.accepted.tolist() == [True, False]
    chain, start = move.chain, Chain.at(ORACLE, sample, t)
    assert torch.equal(chain.sample.positions[4:], sample.positions[4:])
    assert (chain.sample.positions[:4] != sample.positions[:4]).all()
    assert torch.equal(chain.noise.positions[4:], start.noise.positions[4:])
    assert chain.energy[1] == start.energy[1]
    again = Chain.at(ORACLE, chain.sample, t)
    torch.testing.assert_close(chain.energy, again.energy)
    torch.testing.assert_close(chain.noise.positions, again.noise.positions)


def test_elements_move_only_when_asked():
    sample, t, seeds = two_chains()
    step = torch.full_like(t, 0.1)
    assert torch.equal(moved(sample, t, step=step, seeds=seeds).chain.sample.elements, sample.elements)
    together = moved(sample, t, step=step, seeds=seeds, elements=True)
    assert together.accepted.all()
    assert (together.chain.sample.elements != sample.elements).all()


def test_energies_that_are_not_finite_are_rejected():
    class Cliff(GaussianOracle):
        def energy_and_noise(self, sample, t):
            energy, noise = super().energy_and_noise(sample, t)
            return torch.where(sample.positions[:1, 0] == start, energy, torch.nan), noise

    sample, t, seeds = two_chains()
    start = sample.positions[0, 0]
    cliff = Cliff(DIFFUSION, element_mean=(0.5, 0.5))
    move = moved(sample, t, step=torch.full_like(t, 0.1), seeds=seeds, denoiser=cliff)
    assert move.probability.tolist() == [0.0, 0.0]
    assert torch.equal(move.chain.sample.positions, sample.positions)


def denoised(seeds, config, *, n_steps=60, lead=None):
    n_atoms = torch.full((len(seeds),), 4)
    cell = 8.0 * torch.eye(3).expand(len(seeds), 3, 3)
    streams = Streams.of(seeds, n_atoms)
    start = prior(cell, n_atoms, width=2, diffusion=DIFFUSION, streams=streams)
    hmc = HMCRefinement(ORACLE, config, diffusion=DIFFUSION, streams=streams, lead=lead)
    grid = time_grid(DIFFUSION, n_steps=n_steps)
    end = euler_maruyama(ORACLE, start, diffusion=DIFFUSION, times=grid, streams=streams, refine=hmc)
    return end, hmc.record()


def test_a_chain_does_not_depend_on_its_batch():
    seeds, config = spawn_seeds(3, 3), HMCConfig(n_verlet=3, step=1.5)
    (together, record), (alone, own) = denoised(seeds, config), denoised(seeds[1:2], config)
    torch.testing.assert_close(alone.positions, together.positions[4:8])
    torch.testing.assert_close(own.step[:, 0], record.step[:, 1], equal_nan=True)


def test_record_covers_the_range_of_times():
    _, record = denoised(spawn_seeds(3, 2), HMCConfig(n_verlet=2, t_min=0.1, t_max=0.3))
    assert (record.t.diff() < 0).all()
    assert record.energy.shape == record.probability.shape == record.step.shape == (61, 2)
    inside = (record.t >= 0.1) & (record.t <= 0.3)
    assert record.probability[inside].isfinite().all()
    assert record.probability[~inside].isnan().all()
    assert record.energy.isfinite().all()


def test_without_settings_energies_of_plain_denoising_are_taken_down():
    seeds = spawn_seeds(3, 2)
    end, record = denoised(seeds, None)
    plain, _ = denoised(seeds, HMCConfig(t_min=0.991, t_max=1.0))
    assert torch.equal(end.positions, plain.positions)
    assert record.probability.isnan().all()
    n_atoms = torch.full((2,), 4)
    start = prior(
        8.0 * torch.eye(3).expand(2, 3, 3), n_atoms, width=2, diffusion=DIFFUSION, streams=Streams.of(seeds, n_atoms)
    )
    first, _ = ORACLE.energy_and_noise(start, torch.full((2,), 0.99))
    torch.testing.assert_close(record.energy[0], first)


def test_another_denoiser_leads_and_the_energy_moves_alone():
    """Led by the energy itself nothing changes; the noise of another one is followed at all times."""
    seeds, config = spawn_seeds(3, 2), HMCConfig(n_verlet=2, t_min=0.1, t_max=0.3, step=0.8)
    (end, record), (own, alone) = denoised(seeds, config, lead=ORACLE), denoised(seeds, config)
    torch.testing.assert_close(end.positions, own.positions)
    torch.testing.assert_close(record.probability, alone.probability, equal_nan=True)
    assert torch.equal(record.energy.isfinite(), record.probability.isfinite())
    asked = []

    def wider(sample, t):
        asked.append(float(t[0]))
        return GaussianOracle(DIFFUSION, spread=2.0, element_mean=(0.5, 0.5))(sample, t)

    led, moved = denoised(seeds, config, lead=wider)
    torch.testing.assert_close(torch.tensor(asked), record.t.float())
    assert bool((led.positions - own.positions).abs().max() > 0.1)
    assert moved.probability.isfinite().sum() == record.probability.isfinite().sum()
    assert not torch.allclose(moved.energy, record.energy, equal_nan=True)


def test_steering_tells_of_the_last_iterations():
    seeds = spawn_seeds(3, 2)
    streams = Streams.of(seeds, torch.full((2,), 4))
    hmc = HMCRefinement(ORACLE, HMCConfig(n_verlet=2, step=1.0), diffusion=DIFFUSION, streams=streams)
    sample = random_sample([4, 4], width=2)
    for number in range(5):
        sample, _ = hmc(number, 0.4 - 0.05 * number, sample)
    record, told = hmc.record(), hmc.steering(last=3)
    assert told.acceptance == pytest.approx(float(record.probability[-3:].mean()))
    assert told.step == pytest.approx(float(record.step[-3:].mean()))
    assert told.step != pytest.approx(1.0)


def test_step_is_steered_to_the_acceptance_asked_for():
    seeds = spawn_seeds(3, 200)
    config = HMCConfig(n_verlet=3, step=0.2, t_min=0.5, t_max=0.99, acceptance=0.7, gain=0.3)
    _, record = denoised(seeds, config, n_steps=160)
    probability = record.probability[record.probability.isfinite().all(1)]
    assert probability[:3].mean() > 0.95
    assert probability[-20:].mean().item() == pytest.approx(0.7, abs=0.06)
    _, fixed = denoised(seeds[:2], HMCConfig(n_verlet=3, step=0.2, acceptance=None))
    assert (fixed.step[-10:] == 0.2).all()


def test_systems_do_not_drift():
    sample, t, seeds = two_chains()
    move = moved(sample, t, step=torch.full_like(t, 0.3), seeds=seeds)
    centre = (move.chain.sample.positions - sample.positions)[:4].mean(0)
    assert centre.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_verlet": 0}, "`n_verlet` must be at least 1, got 0"),
        ({"t_min": 0.6}, "`t_min` < `t_max` must lie in"),
        ({"step": 0.0}, "`step` must be positive"),
        ({"acceptance": 1.0}, "`acceptance` must lie in"),
        ({"gain": -0.1}, "`gain` must lie in"),
    ],
)
def test_bad_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        replace(HMCConfig(), **setting)
