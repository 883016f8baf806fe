"""Order of convergence, measured without statistical error.

The score of Gaussian data is linear, so a sampler maps its start and its random numbers linearly. Fed with mutually
orthogonal random vectors of unit mean square and no mean (the columns of a Hadamard matrix, one atom a row), the
variance over atoms is exactly that over realisations.
"""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import log2

import pytest
import torch
from jaxtyping import Float
from scipy.linalg import hadamard
from torch import Tensor

from amden.diffusion.denoiser import Sample
from amden.diffusion.sampler import STEP_DRAW, euler_maruyama, probability_flow, probability_flow_heun, time_grid
from amden.diffusion.schedule import Diffusion
from amden.random import Streams
from amden.testing import GaussianOracle

N = 512
DIFFUSION = Diffusion(t_max=0.8)
ORACLE = GaussianOracle(DIFFUSION, spread=0.8, element_mean=(0.5,), element_spread=0.6)
SEEDS, N_ATOMS = torch.zeros(1, dtype=torch.int64), torch.tensor([N])
T_MIN = torch.tensor([DIFFUSION.t_min], dtype=torch.float64)


@cache
def orthogonal() -> Float[Tensor, "n n"]:
    return torch.tensor(hadamard(N), dtype=torch.float64)


class OrthogonalStreams(Streams):
    """Column 1 for the start, one of the others for each step."""

    def normal(self, shape: tuple[int, ...], *, draw: int) -> Float[Tensor, "atoms *shape"]:
        column = 1 if draw < STEP_DRAW else 2 + draw - STEP_DRAW
        return orthogonal()[:, column, None].expand(-1, *shape)


def streams() -> Streams:
    plain = Streams.of(SEEDS, N_ATOMS)
    return OrthogonalStreams(plain.seeds, plain.system, plain.index)


def exact(t: Tensor) -> Sample:
    """The marginal at time `t`, at the atoms where the start lies along column 1."""
    zeros = torch.zeros(N, 3, dtype=torch.float64), torch.zeros(N, 1, dtype=torch.float64)
    template = Sample(*zeros, 1e3 * torch.eye(3, dtype=torch.float64)[None], N_ATOMS)
    return ORACLE.drawn(template, t, streams())


def start() -> Sample:
    return exact(torch.tensor([DIFFUSION.t_max], dtype=torch.float64))


def orders(errors: list[float]) -> list[float]:
    return [log2(coarse / fine) for coarse, fine in pairwise(errors)]


def test_euler_maruyama_is_of_weak_order_one():
    """Variance of positions and elements and mean of elements at t_min."""
    ends = {
        n: euler_maruyama(
            ORACLE, start(), diffusion=DIFFUSION, times=time_grid(DIFFUSION, n_steps=n)[:-1], streams=streams()
        )
        for n in (75, 150, 300)
    }
    truth = exact(T_MIN)
    moments = {
        "variance of positions": lambda s: s.positions.square().mean().item(),
        "variance of elements": lambda s: s.elements.var(correction=0).item(),
        "mean of elements": lambda s: s.elements.mean().item(),
    }
    for what, moment in moments.items():
        errors = [abs(moment(end) / moment(truth) - 1) for end in ends.values()]
        assert errors[-1] < 1e-2, what
        assert all(0.93 < order < 1.07 for order in orders(errors)), (what, errors)


@pytest.mark.parametrize(("sampler", "order"), [(probability_flow, 1), (probability_flow_heun, 2)])
def test_the_flow_is_of_the_order_it_claims(sampler, order):
    """The exact flow of Gaussian data carries quantiles: x at t_min is the same quantile of p there."""
    truth = exact(T_MIN)
    ends = [
        sampler(ORACLE, start(), diffusion=DIFFUSION, times=time_grid(DIFFUSION, n_steps=n)[:-1]) for n in (30, 60, 120)
    ]
    for name in ("positions", "elements"):
        errors = [(getattr(end, name) - getattr(truth, name)).abs().max().item() for end in ends]
        assert all(abs(measured - order) < 0.1 for measured in orders(errors)), (name, errors)


def test_euler_maruyama_at_the_papers_setting_broadens_a_thermal_spread_by_a_percent():
    """200 steps from 0.99, a spread of 0.1 Å as of atoms at room temperature: what accuracy to expect."""
    diffusion = Diffusion()
    oracle = replace(ORACLE, diffusion=diffusion, spread=0.1)
    begin = replace(oracle).drawn(start(), torch.tensor([0.99], dtype=torch.float64), streams())
    end = euler_maruyama(oracle, begin, diffusion=diffusion, times=time_grid(diffusion)[:-1], streams=streams())
    broadened = end.positions.square().mean().item() / (0.1**2 + 0.015**2) - 1
    assert 0.0 < broadened < 0.02
