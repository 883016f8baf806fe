import torch

from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.guidance import Guided, Unconditional
from amden.testing import PairDenoiser, check_denoiser, random_sample


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


def test_guidance_keeps_the_contract():
    model = PairDenoiser(cutoff=4.0)
    sample = random_sample([3, 5], width=2, conditions=["modulus"])
    check_denoiser(Guided(model, Unconditional(model), weight=1.0), sample, cutoff=4.0)
