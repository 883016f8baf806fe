from dataclasses import replace

import pytest
import torch

from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.guidance import Guided, Independent, Unconditional
from amden.diffusion.langevin import LangevinConfig, LangevinRefinement
from amden.diffusion.leaning import Leaning
from amden.diffusion.sampler import euler_maruyama
from amden.diffusion.schedule import Diffusion
from amden.random import Streams
from amden.testing import GaussianOracle, PairDenoiser, check_denoiser, random_sample

W, DIFFUSION = 0.7, Diffusion()
NARROW = GaussianOracle(DIFFUSION, spread=0.2, element_mean=(1.0, -0.5), element_spread=0.3)
BROAD = GaussianOracle(DIFFUSION, spread=0.5, element_mean=(0.2, 0.1), element_spread=0.8)


def constant(value: float):
    def denoiser(sample: Sample, t: torch.Tensor) -> Noise:
        return Noise(torch.full_like(sample.positions, value), torch.full_like(sample.elements, 10 * value))

    return denoiser


def test_guidance_pushes_away_from_the_unconditional_noise():
    sample = random_sample([3], width=2)
    noise = Guided(constant(2.0), constant(1.0), weight=0.25)(sample, torch.tensor([0.5]).double())
    assert torch.allclose(noise.positions, torch.tensor(2.25).double())
    assert torch.allclose(noise.elements, torch.tensor(22.5).double())


def test_no_weight_leaves_the_conditional_noise():
    sample = random_sample([3], width=2)
    plain = Guided(constant(2.0), constant(7.0), weight=0.0)(sample, torch.tensor([0.5]).double())
    assert torch.allclose(plain.positions, torch.tensor(2.0).double())


def test_the_unconditional_denoiser_is_asked_for_nothing():
    sample = random_sample([3, 4], width=2, conditions=["modulus"])
    seen = []

    def spy(sample: Sample, t: torch.Tensor) -> Noise:
        seen.append(sample.conditions["modulus"])
        return Noise(sample.positions, sample.elements)

    Unconditional(spy)(sample, torch.tensor([0.5, 0.5]).double())
    assert torch.isnan(seen[0]).all()
    assert not torch.isnan(sample.conditions["modulus"]).any()


def test_nothing_is_guided_below_a_time():
    """Samplers, relaxation among them, ask the conditional denoiser alone there."""
    asked = {"conditional": [], "free": []}

    def spy(name: str):
        def denoiser(sample: Sample, t: torch.Tensor) -> Noise:
            asked[name].append(round(float(t[0]), 3))
            return BROAD(sample, t)

        return denoiser

    guided = Guided(spy("conditional"), spy("free"), weight=1.0, above=0.5)
    start, streams = random_sample([3], width=2), Streams.of(torch.tensor([7]), torch.tensor([3]))
    relax = LangevinRefinement(
        guided, LangevinConfig(n_steps=1, t_min=0.2, t_max=0.3), diffusion=DIFFUSION, streams=streams
    )
    times = torch.tensor([0.9, 0.5, 0.3, 0.1, 0.0], dtype=torch.float64)
    euler_maruyama(guided, start, diffusion=DIFFUSION, times=times, streams=streams, refine=relax)
    assert asked == {"conditional": [0.9, 0.5, 0.3, 0.3, 0.1], "free": [0.9, 0.5]}
    leaning = Leaning(guided, torch.zeros((0, 2)), 0.4, DIFFUSION)
    assert [leaning.at(t).denoiser for t in (0.5, 0.4)] == [guided, guided.conditional]


def test_guidance_keeps_the_contract():
    model = PairDenoiser(cutoff=4.0)
    sample = random_sample([3, 5], width=2, conditions=["modulus"])
    check_denoiser(Guided(model, Unconditional(model), weight=1.0), sample, cutoff=4.0)


def test_two_gaussians_are_tilted_as_the_formula_says():
    """p₁^(1+w)/p₀^w of Gaussians is one: precision (1+w)/v₁ - w/v₀, mean accordingly; the noise is its slope."""
    sample, t = random_sample([5, 3], width=2), torch.tensor([0.2, 0.6], dtype=torch.float64)
    noise = Guided(NARROW, BROAD, weight=W)(sample, t)
    about = (
        sample.positions - torch.stack([sample.positions[sample.system == s].mean(0) for s in (0, 1)])[sample.system]
    )
    for s in (0, 1):
        alpha, sigma = float(DIFFUSION.elements.alpha(t[s])), float(DIFFUSION.elements.sigma(t[s]))
        v1, v0 = ((alpha * spread) ** 2 + sigma**2 for spread in (0.3, 0.8))
        precision = (1 + W) / v1 - W / v0
        mean = (
            (1 + W) * alpha * torch.tensor([1.0, -0.5]) / v1 - W * alpha * torch.tensor([0.2, 0.1]) / v0
        ) / precision
        mine = sample.system == s
        expected = sigma * precision * (sample.elements[mine] - mean)
        torch.testing.assert_close(noise.elements[mine], expected, rtol=1e-6, atol=1e-6)
        sigma = float(DIFFUSION.positions.sigma(t[s]))
        precision = (1 + W) / (0.2**2 + sigma**2) - W / (0.5**2 + sigma**2)
        torch.testing.assert_close(noise.positions[mine], sigma * precision * about[mine], rtol=1e-6, atol=1e-6)


def test_the_guided_noise_is_the_slope_of_the_guided_energy():
    sample, t = random_sample([5, 3], width=2), torch.tensor([0.2, 0.6], dtype=torch.float64)
    x, e = sample.positions.requires_grad_(), sample.elements.requires_grad_()
    energy, noise = Guided(NARROW, BROAD, weight=W).energy_and_noise(replace(sample, positions=x, elements=e), t)
    slopes = torch.autograd.grad(energy.sum(), [x, e])
    sigma = DIFFUSION.positions.sigma(t)[sample.system, None], DIFFUSION.elements.sigma(t)[sample.system, None]
    torch.testing.assert_close(sigma[0] * slopes[0], noise.positions)
    torch.testing.assert_close(sigma[1] * slopes[1], noise.elements)
    with pytest.raises(TypeError, match="function predicts the noise alone: it has no energy"):
        Guided(NARROW, constant(1.0), weight=W).energy_and_noise(sample, t)


def independent(seeds: list[int]) -> tuple[Independent, Sample]:
    sample = random_sample([3] * len(seeds), width=2, conditions=["modulus", "rings"])
    sample = replace(sample, conditions={**sample.conditions, "rings": torch.full((len(seeds),), torch.nan)})
    tables = {"modulus": torch.tensor([20.0, 30.0, 50.0]), "rings": torch.tensor([4.0, 5.0])}
    streams = Streams.of(torch.tensor(seeds), sample.n_atoms)
    return Independent.of(PairDenoiser(), tables, streams, correlation={"modulus": {"rings": 0.5}}), sample


def test_independent_conditions_follow_the_training_set_and_leave_gaps():
    denoiser, sample = independent(list(range(500)))
    seen = denoiser.shuffled(sample, torch.full((500,), 0.3)).conditions
    assert torch.isnan(seen["rings"]).all()
    assert float((seen["modulus"] < 30).double().mean()) == pytest.approx(0.5, abs=0.07)
    assert float(seen["modulus"].mean()) == pytest.approx(32.5, abs=1.5)
    assert seen["modulus"].min() >= 20
    assert seen["modulus"].max() <= 50


def test_independent_conditions_are_new_at_each_time_and_the_same_at_the_same():
    denoiser, sample = independent([7, 8])

    def at(t: float) -> torch.Tensor:
        return denoiser.shuffled(sample, torch.full((2,), t, dtype=torch.float64)).conditions["modulus"]

    assert torch.equal(at(0.4), at(0.4))
    assert torch.equal(at(0.4), at(float(torch.tensor(0.4)))), "the rounding of a time to float32 does not matter"
    alone, one = independent([8])
    torch.testing.assert_close(alone.shuffled(one, torch.full((1,), 0.4)).conditions["modulus"], at(0.4)[1:])
    over_time = torch.stack([at(t) for t in torch.linspace(0.99, 0.01, 401).tolist()])
    assert float(over_time.double().mean()) == pytest.approx(32.5, abs=1.5)
    assert (over_time[1:] - over_time[:-1]).abs().min() > 0


def test_independent_conditions_move_apart_and_together_over_time():
    """Of one system the difference of two quantiles is as random as each of them is."""
    sample = random_sample([3], width=2, conditions=["a", "b"])
    tables = dict.fromkeys("ab", torch.tensor([0.0, 1.0]))
    denoiser = Independent.of(PairDenoiser(), tables, Streams.of(torch.tensor([5]), sample.n_atoms))
    seen = [denoiser.shuffled(sample, torch.full((1,), t)).conditions for t in torch.linspace(0.99, 0.01, 201).tolist()]
    difference = torch.cat([torch.remainder(conditions["a"] - conditions["b"], 1.0) for conditions in seen])
    assert float(difference.std()) == pytest.approx(12**-0.5, abs=0.04)


def test_correlations_that_belong_to_no_distribution_are_brought_to_one():
    sample = random_sample([3] * 400, width=2, conditions=["a", "b", "c"])
    tables = dict.fromkeys("abc", torch.linspace(0.0, 1.0, 11))
    impossible = {"a": {"b": 0.9, "c": 0.9}, "b": {"a": 0.9, "c": -0.9}, "c": {"a": 0.9, "b": -0.9}}
    streams = Streams.of(torch.arange(400), sample.n_atoms)
    denoiser = Independent.of(PairDenoiser(), tables, streams, correlation=impossible)
    found = torch.stack(list(denoiser.shuffled(sample, torch.full((400,), 0.5)).conditions.values()))
    assert torch.isfinite(found).all()
    assert float(found.std(1).min()) == pytest.approx(12**-0.5, abs=0.03)
    assert torch.corrcoef(found)[0, 1] > 0.3
    assert torch.corrcoef(found)[1, 2] < -0.3
