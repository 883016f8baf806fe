import pytest
import torch

from amden.diffusion.schedule import VariancePreserving
from amden.nn.classes import class_energy, class_noise, scales

T = torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64)
SYSTEM = torch.arange(3).repeat_interleave(4)


def given() -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits, elements = (torch.randn((12, 3), generator=generator, dtype=torch.float64) for _ in range(2))
    return logits, elements, scales(VariancePreserving(), T, SYSTEM)


def test_the_noise_is_the_slope_of_the_energy():
    logits, elements, scale = given()
    slope = torch.func.grad(lambda e: class_energy(logits, e, scale).sum())(elements)
    torch.testing.assert_close(scale[1] * slope, class_noise(logits, elements, scale))


def test_with_the_true_odds_it_is_the_exact_posterior_mean():
    """One-hot classes of known odds with noise: the mean of ε given e, by weighting every class with its density."""
    logits, elements, (alpha, sigma) = given()
    odds = torch.softmax(logits, 1)
    centres = torch.eye(3, dtype=torch.float64)
    density = odds * torch.exp(-0.5 * ((elements[:, None] - alpha[:, None] * centres) / sigma[:, None]).square().sum(2))
    weight = density / density.sum(1, keepdim=True)
    expected = (weight[:, :, None] * (elements[:, None] - alpha[:, None] * centres) / sigma[:, None]).sum(1)
    torch.testing.assert_close(class_noise(logits, elements, (alpha, sigma)), expected)
    assert class_energy(logits, elements, (alpha, sigma)).exp().reciprocal().tolist() == pytest.approx(
        density.sum(1).tolist()
    )
