"""Noise schedules as data: α(t), σ(t) and the coefficients of the reverse equations (eq. 4, 5, 7 of the paper).

A schedule defines x_t = α(t) x_0 + σ(t) ε. With d ln α/dt = -β(t) the forward SDE is dx = -β x dt + g dw with
g² = dσ²/dt + 2 β σ².
"""

from dataclasses import dataclass, field
from math import pi
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Time = Float[Tensor, "*systems"]


@runtime_checkable
class Schedule(Protocol):
    """What a sampler needs to know of a noise schedule; `t` in [0, 1]."""

    def alpha(self, t: Time) -> Time:
        """Signal scale α(t)."""
        ...

    def sigma(self, t: Time) -> Time:
        """Noise scale σ(t)."""
        ...

    def beta(self, t: Time) -> Time:
        """Decay rate of the signal, -d ln α/dt."""
        ...

    def g2(self, t: Time) -> Time:
        """Squared diffusion coefficient g²(t)."""
        ...


@dataclass(frozen=True)
class VarianceExploding:
    """Positions: α = 1, σ = σ_max t (eq. 4), g² = 2 σ_max² t (eq. 7).

    >>> VarianceExploding(sigma_max=1.5).sigma(torch.tensor(0.5)).item()
    0.75
    """

    __pydantic_config__ = {"extra": "forbid"}

    sigma_max: float = 1.5
    """Noise in Å at t = 1; the paper takes 1.7 for its multi-element glass and 1.5 else."""

    def __post_init__(self) -> None:
        _require_positive(self.sigma_max)

    def alpha(self, t: Time) -> Time:
        """One: the signal is not scaled."""
        return torch.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """σ_max t, in Å."""
        return self.sigma_max * t

    def beta(self, t: Time) -> Time:
        """Zero: the signal does not decay."""
        return torch.zeros_like(t)

    def g2(self, t: Time) -> Time:
        """2 σ_max² t, in Å²."""
        return 2.0 * self.sigma_max**2 * t


@dataclass(frozen=True)
class VariancePreserving:
    """Elements: α = cos(πt/2), σ = σ_max sin(πt/2) (eq. 5).

    β = (π/2) tan(πt/2) and g² = π α σ σ_max + π tan(πt/2) σ² (eq. 7).

    >>> round(VariancePreserving(sigma_max=1.5).sigma(torch.tensor(1.0)).item(), 6)
    1.5
    """

    __pydantic_config__ = {"extra": "forbid"}

    sigma_max: float = 1.5
    """Noise at t = 1 in units of the one-hot encoding."""

    def __post_init__(self) -> None:
        _require_positive(self.sigma_max)

    def alpha(self, t: Time) -> Time:
        """cos(πt/2)."""
        return torch.cos(0.5 * pi * t)

    def sigma(self, t: Time) -> Time:
        """σ_max sin(πt/2)."""
        return self.sigma_max * torch.sin(0.5 * pi * t)

    def beta(self, t: Time) -> Time:
        """(π/2) tan(πt/2); diverges at t = 1."""
        return 0.5 * pi * torch.tan(0.5 * pi * t)

    def g2(self, t: Time) -> Time:
        """π σ (α σ_max + tan(πt/2) σ)."""
        sigma = self.sigma(t)
        return pi * sigma * (self.alpha(t) * self.sigma_max + torch.tan(0.5 * pi * t) * sigma)


@dataclass(frozen=True)
class Diffusion:
    """The whole process: one schedule for positions, one for elements, and the range of t it is used in."""

    __pydantic_config__ = {"extra": "forbid"}

    positions: VarianceExploding = field(default_factory=VarianceExploding)
    elements: VariancePreserving = field(default_factory=VariancePreserving)
    t_min: float = 0.01
    """Smallest t of training and of the stochastic part of sampling."""
    t_max: float = 0.99
    """Largest t: where sampling starts from the prior."""

    def __post_init__(self) -> None:
        if not 0.0 < self.t_min < self.t_max < 1.0:
            raise ValueError(f"`t_min` < `t_max` must lie in (0, 1), got {self.t_min} and {self.t_max}")


def _require_positive(sigma_max: float) -> None:
    if not sigma_max > 0:
        raise ValueError(f"`sigma_max` must be positive, got {sigma_max}")
