from math import cos, pi, sin, tan

import pytest
import torch

from amden.diffusion.schedule import Diffusion, Schedule, VarianceExploding, VariancePreserving

SCHEDULES = [VarianceExploding(sigma_max=1.7), VariancePreserving(sigma_max=1.5), VariancePreserving(sigma_max=1.0)]


def times() -> torch.Tensor:
    return torch.linspace(0.01, 0.99, 50, dtype=torch.float64, requires_grad=True)


def slope(values: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad((values + 0.0 * t).sum(), t)[0]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_squared_diffusion_is_the_growth_of_variance_and_its_decay_undone(schedule):
    t = times()
    growth = slope(schedule.sigma(t).square(), t)
    assert torch.allclose(schedule.g2(t), growth + 2 * schedule.beta(t) * schedule.sigma(t) ** 2, rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_beta_is_the_decay_rate_of_the_signal(schedule):
    t = times()
    assert torch.allclose(schedule.beta(t), -slope(torch.log(schedule.alpha(t)), t), rtol=1e-12)


@pytest.mark.parametrize("t", [0.01, 0.3, 0.99])
def test_schedules_are_those_printed_in_the_paper(t):
    now = torch.tensor(t, dtype=torch.float64)
    positions, elements = VarianceExploding(sigma_max=1.7), VariancePreserving(sigma_max=1.5)
    assert positions.alpha(now).item() == 1.0
    assert positions.sigma(now).item() == pytest.approx(1.7 * t)
    assert positions.g2(now).item() == pytest.approx(2 * 1.7**2 * t)
    alpha, sigma = cos(pi / 2 * t), sin(pi / 2 * t) * 1.5
    assert elements.alpha(now).item() == pytest.approx(alpha)
    assert elements.sigma(now).item() == pytest.approx(sigma)
    assert elements.beta(now).item() == pytest.approx(pi / 2 * tan(pi / 2 * t))
    assert elements.g2(now).item() == pytest.approx(pi * alpha * sigma * 1.5 + pi * tan(pi / 2 * t) * sigma**2)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_data_is_clean_at_the_start_and_of_full_noise_at_the_end(schedule):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert schedule.alpha(ends)[0].item() == 1.0
    assert schedule.sigma(ends).tolist() == pytest.approx([0.0, schedule.sigma_max])


def test_schedules_keep_the_protocol():
    assert all(isinstance(schedule, Schedule) for schedule in SCHEDULES)


@pytest.mark.parametrize("sigma_max", [0.0, -1.5, float("nan")])
@pytest.mark.parametrize("schedule", [VarianceExploding, VariancePreserving])
def test_noise_must_be_positive(schedule, sigma_max):
    with pytest.raises(ValueError, match="`sigma_max` must be positive, got"):
        schedule(sigma_max=sigma_max)


@pytest.mark.parametrize(("t_min", "t_max"), [(0.0, 0.99), (0.5, 0.5), (0.01, 1.0), (0.9, 0.1)])
def test_times_must_lie_between_zero_and_one(t_min, t_max):
    with pytest.raises(ValueError, match=r"`t_min` < `t_max` must lie in \(0, 1\), got"):
        Diffusion(t_min=t_min, t_max=t_max)
