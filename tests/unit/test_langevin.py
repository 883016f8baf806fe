"""Langevin dynamics as an algorithm: batches, elements, seeds, bad settings, generation."""

from dataclasses import replace

import pytest
import torch

from amden.blank import cubic_blank
from amden.config import to_dict
from amden.diffusion.hmc import HMCConfig
from amden.diffusion.langevin import LANGEVIN_DRAW, LangevinConfig, LangevinRefinement, langevin_dynamics
from amden.diffusion.schedule import Diffusion
from amden.generation import generate
from amden.random import Streams, spawn_seeds
from amden.refinement import STEPS_CPU, Asked, default_steps, evaluations, read_refinement
from amden.testing import GaussianOracle, random_sample

DIFFUSION = Diffusion()
ORACLE = GaussianOracle(DIFFUSION, element_mean=(0.5, 0.5))
CONFIG = LangevinConfig(n_steps=4)


def moved(sample, config=CONFIG, *, seeds=None, draw=LANGEVIN_DRAW):
    streams = Streams.of(spawn_seeds(1, len(sample)) if seeds is None else seeds, sample.n_atoms)
    return langevin_dynamics(ORACLE, sample, t=0.3, config=config, diffusion=DIFFUSION, streams=streams, draw=draw)


def test_elements_move_only_when_asked():
    sample = random_sample([4, 6], width=2)
    assert torch.equal(moved(sample)[0].elements, sample.elements)
    assert (moved(sample, replace(CONFIG, elements=True))[0].elements != sample.elements).all()


def test_a_system_goes_its_way_whatever_the_batch():
    sample = random_sample([4, 6], width=2)
    together, _, warmth = moved(sample)
    alone, _, own = moved(
        replace(
            sample,
            positions=sample.positions[4:],
            elements=sample.elements[4:],
            cell=sample.cell[1:],
            n_atoms=sample.n_atoms[1:],
        ),
        seeds=spawn_seeds(1, 2)[1:],
    )
    torch.testing.assert_close(alone.positions, together.positions[4:])
    torch.testing.assert_close(own, warmth[1:])


def test_no_system_drifts_and_the_noise_is_that_of_the_end():
    sample = random_sample([5], width=2)
    end, noise, _ = moved(sample)
    torch.testing.assert_close((end.positions - sample.positions).mean(0), torch.zeros(3, dtype=torch.float64))
    again = ORACLE(end, torch.tensor([0.3], dtype=torch.float64)).positions
    torch.testing.assert_close(noise.positions, again - again.mean(0))


def test_steps_of_the_sampler_take_numbers_of_their_own():
    sample = random_sample([4], width=2)
    how = {"diffusion": DIFFUSION, "streams": Streams.of(spawn_seeds(1, 1), sample.n_atoms)}
    relax = LangevinRefinement(ORACLE, replace(CONFIG, t_max=0.5), **how)
    first, second = relax(0, 0.3, sample)[0], relax(1, 0.3, sample)[0]
    assert not torch.equal(first.positions, second.positions)
    gone_on = LangevinRefinement(ORACLE, replace(CONFIG, t_max=0.5), done=1, **how)
    assert torch.equal(gone_on(0, 0.3, sample)[0].positions, second.positions)
    assert torch.equal(relax(2, 0.9, sample)[0].positions, sample.positions)


@pytest.mark.parametrize("wrong", [{"n_steps": 0}, {"t_min": 0.5}, {"step": 2.0}, {"friction": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        LangevinConfig(**wrong)


def test_a_score_model_is_relaxed(tiny_model):
    config = LangevinConfig(n_steps=2, t_max=0.5)
    blank, seen = cubic_blank(tiny_model, 3, atoms=12), []
    made = generate(
        tiny_model, blank, n_steps=30, refine=config, batch_size=2, on_step=lambda n, now: seen.append((n, now))
    )
    plain = generate(tiny_model, blank, n_steps=30)
    assert (made.positions != plain.positions).any()
    assert sum(n for n, _ in seen) == 3 * sum(evaluations(tiny_model, n_steps=30, refine=config))
    assert [now.temperature > 0 for _, now in seen if now is not None] == [True, True]
    alone = generate(tiny_model, cubic_blank(tiny_model, 1, atoms=12), n_steps=30, refine=config)
    torch.testing.assert_close(alone.positions, made.select([0]).positions)


def test_what_is_asked_for_becomes_settings(tiny_model):
    found = read_refinement(Asked("langevin", ("step=0.4", "n_steps=7")), tiny_model)
    assert to_dict(found) == to_dict(LangevinConfig(step=0.4, n_steps=7))
    assert isinstance(read_refinement(Asked("hmc"), tiny_model), HMCConfig)
    with pytest.raises(ValueError, match="stp"):
        read_refinement(Asked("langevin", ("stp=0.4",)), tiny_model)
    assert default_steps(tiny_model, torch.device("cuda"), Asked("langevin")) > STEPS_CPU
    assert default_steps(tiny_model, torch.device("cpu"), Asked("langevin")) == STEPS_CPU
