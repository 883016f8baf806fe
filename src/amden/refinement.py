"""How samples are relaxed while they are denoised: Hamiltonian Monte Carlo or Langevin dynamics, and what that costs.

Both move the sample along p_t before each denoising step. Hamiltonian Monte Carlo needs an energy and is exact for it;
Langevin dynamics take the score alone, at a fifth of the cost, and are exact up to their step (docs/relaxed-glass.md).
"""

from typing import NamedTuple

import torch

from amden.config import from_dict, to_dict, with_overrides
from amden.diffusion.hmc import HMCConfig
from amden.diffusion.langevin import LangevinConfig
from amden.diffusion.sampler import time_grid
from amden.model import Model
from amden.recipe import SamplingConfig

Refine = HMCConfig | LangevinConfig
"""What is done before each denoising step."""

STEPS_CPU = 200
"""Most denoising steps by default with a refinement on a CPU, where what a GPU does takes hours a structure."""


class Asked(NamedTuple):
    """A refinement as somebody asks for it."""

    kind: str
    """`hmc`, `langevin`, or `none` where a model would be relaxed by default."""
    settings: tuple[str, ...] = ()
    """What differs from the model's best: `t_max=0.4` …"""

    @property
    def needs_energy(self) -> bool:
        """Whether only an energy model can do it."""
        return self.kind == "hmc"


def name_of(refine: Refine) -> str:
    """A refinement in words."""
    return "Hamiltonian Monte Carlo" if isinstance(refine, HMCConfig) else "Langevin dynamics"


def sampling_of(model: Model) -> SamplingConfig:
    """How a model is sampled by default: as its recipe says."""
    return from_dict(SamplingConfig, model.provenance.get("recipe", {}).get("sampling", {}))


def settled(asked: Asked | None, model: Model) -> Asked | None:
    """What is done: what somebody asks for, else what is best for the model; None: nothing."""
    kind = sampling_of(model).relax if asked is None else asked.kind
    return None if kind == "none" else asked or Asked(kind)


def read_refinement(asked: Asked | None, model: Model) -> Refine | None:
    """The refinement as is best for the model but for settings such as "step=0.2"; None: standard denoising.

    Errors: `ValueError` for a setting that it does not have.
    """
    asked, best = settled(asked, model), sampling_of(model)
    if asked is None:
        return None
    if asked.kind == "hmc":
        return from_dict(HMCConfig, with_overrides(to_dict(best.hmc), asked.settings))
    return from_dict(LangevinConfig, with_overrides(to_dict(best.langevin), asked.settings))


def default_steps(model: Model, device: torch.device, asked: Asked | None) -> int:
    """Denoising steps where none are asked for."""
    asked, best = settled(asked, model), sampling_of(model)
    if asked is None:
        return best.steps
    most = best.hmc_steps if asked.kind == "hmc" else best.langevin_steps
    return most if device.type == "cuda" else min(most, STEPS_CPU)


def evaluations(model: Model, *, n_steps: int, refine: Refine | None = None, apart: bool = False) -> list[int]:
    """How often a network is evaluated in each denoising step: once to denoise, else to relax.

    `apart` says that the energy is another model's, which cannot tell the noise to denoise by as well.
    """
    times = time_grid(model.diffusion, n_steps=n_steps)[:-1].tolist()
    if refine is None:
        return [1] * len(times)
    n = refine.n_verlet if isinstance(refine, HMCConfig) else refine.n_steps
    return [1 + (n + apart) * (refine.t_min <= t <= refine.t_max) for t in times]
