"""The energy model keeps the contract of every denoiser, and its noise is the gradient of its energy."""

from dataclasses import replace

import pytest
import torch

from amden.diffusion.corruption import corrupt, gaussian_noise
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.model import denoiser_of
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.energy import EnergyModel
from amden.nn.score import ScoreConfig
from amden.segment import segment_sum
from amden.testing import random_sample
from amden.testing.builders import rotation, sample_supercell
from amden.testing.contract import CHECKS

SMALL = EGNNConfig(layers=2, hidden=16, channels=4, cutoff=4.0, n_norm=10.0)
DIFFUSION = Diffusion()


def scrambled(species=(8, 14), properties=None) -> EnergyModel:
    """A model none of whose weights is zero or small, so that no path is switched off."""
    torch.manual_seed(0)
    model = EnergyModel(ScoreConfig(Vocabulary(species), properties or {}, SMALL, energy=True), DIFFUSION).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.requires_grad_(False)


def two_times() -> torch.Tensor:
    return torch.tensor([0.2, 0.7], dtype=torch.float64)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_contract(check):
    model = scrambled(properties={"shear_modulus": PropertyScale(30.0, 4.0)})
    sample = random_sample([7, 5], width=2, conditions=("shear_modulus",))
    check(model, sample, two_times(), tolerance=1e-7)


def energy(model, sample, t=None):
    return model.energy_and_noise(sample, two_times() if t is None else t)[0]


def test_noise_is_the_gradient_of_the_energy():
    """By central differences in float64, for positions and for elements.

    The terms of a slope nearly cancel in some directions, so the error is measured by the sum of their sizes: it stays
    below 6e-9 of that in 25 directions, most of it from pairs that cross the cutoff, where the second derivative jumps.
    """
    model, sample, t = scrambled(), random_sample([7, 5], width=2), two_times()
    noise, generator = model(sample, t), torch.Generator().manual_seed(1)
    for name, schedule in (("positions", DIFFUSION.positions), ("elements", DIFFUSION.elements)):
        h, x = 1e-5, getattr(sample, name)
        direction = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        up, down = (energy(model, replace(sample, **{name: x + s * h * direction})) for s in (1, -1))
        slope = (up - down) / (2 * h)
        # noise has no drift, and neither has the gradient: the direction's own drift adds nothing
        terms = getattr(noise, name) * direction / schedule.sigma(t)[sample.system, None]
        found, size = (segment_sum(v.sum(1), sample.system, n_systems=2) for v in (terms, terms.abs()))
        assert ((slope - found).abs() / size).max() < 3e-8


def test_no_work_on_a_closed_loop():
    """∮ ε · dx = 0 along a circle in the space of all coordinates, by the trapezoidal rule, exact over a period.

    All atoms stay within the cutoff of each other, where the energy is smooth.
    """
    model, t = scrambled((14,)), two_times()[:1]
    a, b, group = torch.randn(3, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    cell = 30.0 * torch.eye(3, dtype=torch.float64)[None]
    sample = replace(random_sample([6], width=0), positions=0.7 * group, cell=cell)
    assert torch.pdist(sample.positions).max() < 3.5
    work = size = 0.0
    for phi in torch.arange(24, dtype=torch.float64) * (2 * torch.pi / 24):
        at = replace(sample, positions=sample.positions + 0.05 * (phi.cos() * a + phi.sin() * b))
        step = model(at, t).positions * (phi.cos() * b - phi.sin() * a)
        work, size = work + float(step.sum()), size + float(step.abs().sum())
    assert abs(work) < 1e-9 * size


def test_energy_is_extensive_and_invariant():
    model, sample = scrambled(), random_sample([7, 5], width=2)
    one = energy(model, sample)
    doubled, _ = sample_supercell(sample, (2, 1, 1))
    torch.testing.assert_close(energy(model, doubled), 2 * one, rtol=1e-10, atol=0)
    q = rotation(torch.Generator().manual_seed(0)).to(one)
    turned = replace(sample, positions=sample.positions @ q, cell=sample.cell @ q)
    torch.testing.assert_close(energy(model, turned), one, rtol=1e-10, atol=0)


def test_two_far_groups_have_the_sum_of_their_energies():
    """Apart by more than the cutoff, together in one cell."""
    model, t = scrambled((14,)), two_times()[:1]
    group = 1.5 * torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    far = group + torch.tensor([20.0, 3.0, 1.0])
    base = random_sample([5], width=0)
    cell = 60.0 * torch.eye(3, dtype=torch.float64)[None]
    alone = replace(base, positions=group, cell=cell)
    elements = torch.zeros(10, 0, dtype=torch.float64)
    both = replace(
        alone, positions=torch.cat([group, far]), elements=elements, n_atoms=torch.tensor([10]), conditions={}
    )
    torch.testing.assert_close(energy(model, both, t), 2 * energy(model, alone, t), rtol=1e-12, atol=0)


def test_energy_and_noise_are_continuous_at_the_cutoff():
    model, t = scrambled((14,)), two_times()[:1]
    base = random_sample([2], width=0)

    def at(distance):
        positions = torch.tensor([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]], dtype=torch.float64)
        return replace(base, positions=positions, cell=30.0 * torch.eye(3, dtype=torch.float64)[None], conditions={})

    h = 1e-6
    (inside, noise), (outside, other) = (model.energy_and_noise(at(4.0 + s * h), t) for s in (-1, 1))
    assert abs(float(inside - outside)) < 1e-8
    assert (noise.positions - other.positions).abs().max() < 1e-4
    assert model(at(3.0), t).positions.abs().max() > 1e-3


def test_second_derivatives_reach_every_weight():
    model = scrambled(properties={"x": PropertyScale(0.0, 1.0)}).requires_grad_(True)
    sample = random_sample([9, 6], width=2, conditions=("x",))
    sample.conditions["x"][0] = torch.nan
    noise = model(sample, two_times())
    (noise.positions.square().sum() + noise.elements.square().sum()).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == ["network.energies.head.bias"]


def test_nothing_is_kept_for_a_backward_where_autograd_is_off():
    model, sample = scrambled().requires_grad_(True), random_sample([4, 3], width=2)
    with torch.no_grad():
        found, noise = model.energy_and_noise(sample, two_times())
    assert not found.requires_grad
    assert not noise.positions.requires_grad


def test_noise_of_elements_is_exact_where_hardly_any_is_left():
    """Elements tell their own class at small t: an untrained network of either kind knows their noise."""
    torch.manual_seed(0)
    for energy in (False, True):
        config = ScoreConfig(Vocabulary((8, 14), ghosts=True), {}, SMALL, energy=energy)
        model = denoiser_of(config, DIFFUSION).double()
        sample = random_sample([7], width=3)
        clean = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 0, 1, 2, 0])]
        t = torch.tensor([0.03], dtype=torch.float64)
        noise = gaussian_noise(sample, torch.Generator().manual_seed(1))
        noisy = corrupt(replace(sample, elements=clean), t, noise, DIFFUSION)
        found = model(noisy, t).elements
        # an energy's other terms depend on the elements too: untrained, they add noise of the order of σ
        torch.testing.assert_close(found, noise.elements, rtol=1e-6, atol=0.5 if energy else 1e-8)
