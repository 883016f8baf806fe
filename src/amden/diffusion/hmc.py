"""Hamiltonian Monte Carlo on a noise energy (eq. 23, 24): relaxes samples along p_t while they are denoised.

An iteration draws momenta, follows the energy E by velocity Verlet and accepts the end with probability
min(1, exp(-ΔH)), H = E + ½ Σ p²: for each system on its own, so one iteration moves any number of chains. Lengths are
in units of σ(t), where the paper's step dt = σ dt₀ and mass 1 read

    p ← p - ½ dt₀ ε,    x ← x + σ dt₀ p,    p ← p - ½ dt₀ ε,    ε = σ ∇E

so a step is about as long as the energy is smooth at any t. Momenta and forces do not move a system as a whole.

========= ============== ==========================================
symbol    variable       meaning
========= ============== ==========================================
E         `energy`       noise energy, k_B T = 1
ε         `noise`        σ ∇E
dt₀       `step`         step of velocity Verlet in units of σ(t)
ΔH        `change`       error of velocity Verlet in E + ½ Σ p²
========= ============== ==========================================
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from amden.diffusion.corruption import gaussian_noise
from amden.diffusion.denoiser import Denoiser, EnergyDenoiser, Noise, Sample, at_time, predicted
from amden.diffusion.schedule import Diffusion
from amden.random import Streams
from amden.segment import centred, first_atom, segment_sum

HMC_DRAW: Final = 3 << 32
"""Draw of the first iteration's momenta; the next decides on its acceptance, and so on by twos."""


@dataclass(frozen=True)
class HMCConfig:
    """How samples are refined. The defaults are the paper's for silicon and silica (section IV.B.4)."""

    __pydantic_config__ = {"extra": "forbid"}

    n_verlet: int = 15
    """Velocity Verlet steps an iteration."""
    t_min: float = 0.0
    """Iterations are done at times from here …"""
    t_max: float = 0.5
    """… to here, one before each denoising step."""
    step: float = 0.4
    """dt₀, the step in units of σ(t), to begin with. The paper takes 0.2 for its multi-element glass."""
    acceptance: float | None = 0.5
    """Acceptance that dt₀ is steered to, for each system on its own; None keeps dt₀ as it is, as the paper does."""
    gain: float = 0.05
    """How fast: ln dt₀ changes by `gain` · (probability of acceptance - `acceptance`) an iteration. While dt₀ changes,
    the distribution is disturbed by an amount of this order."""
    elements: bool = False
    """Move elements too, not positions alone."""

    def __post_init__(self) -> None:
        if self.n_verlet < 1:
            raise ValueError(f"`n_verlet` must be at least 1, got {self.n_verlet}")
        if not 0.0 <= self.t_min < self.t_max <= 1.0:
            raise ValueError(f"`t_min` < `t_max` must lie in [0, 1], got {self.t_min} and {self.t_max}")
        if not self.step > 0.0:
            raise ValueError(f"`step` must be positive, got {self.step}")
        if self.acceptance is not None and not 0.0 < self.acceptance < 1.0:
            raise ValueError(f"`acceptance` must lie in (0, 1), got {self.acceptance}")
        if not 0.0 <= self.gain <= 1.0:
            raise ValueError(f"`gain` must lie in [0, 1], got {self.gain}")


@dataclass(frozen=True, eq=False)
class Chain:
    """Where the chains are: a sample, its energy and its noise at the same time t."""

    sample: Sample
    energy: Float[Tensor, " systems"]
    """E, in float64."""
    noise: Noise

    @staticmethod
    def at(denoiser: EnergyDenoiser, sample: Sample, t: Float[Tensor, " systems"]) -> "Chain":
        """The chains at a sample."""
        energy, noise = denoiser.energy_and_noise(sample, t)
        positions = centred(noise.positions, sample.system, n_systems=len(sample))
        return Chain(sample, energy, replace(noise, positions=positions))


@dataclass(frozen=True, eq=False)
class Iteration:
    """What one iteration did."""

    chain: Chain
    """After it."""
    change: Float[Tensor, " systems"]
    """ΔH, in float64."""
    probability: Float[Tensor, " systems"]
    """min(1, exp(-ΔH)); 0 where the energy at the end was not finite."""
    accepted: Bool[Tensor, " systems"]


@dataclass(frozen=True, eq=False)
class HMCRecord:
    """What a denoising went through, a row a denoising step."""

    t: Float[Tensor, " steps"]
    """Before the step."""
    energy: Float[Tensor, "steps systems"]
    """E at t, after the iteration if there was one."""
    probability: Float[Tensor, "steps systems"]
    """Of acceptance; NaN where no iteration was done."""
    step: Float[Tensor, "steps systems"]
    """dt₀ of the iteration; NaN where none was done."""


@dataclass(frozen=True, eq=False)
class HMCState:
    """All that a refinement needs to go on, beside the sample: its random numbers are functions of seed and step."""

    step: Float[Tensor, " systems"]
    """dt₀ of the next iteration."""
    record: HMCRecord
    """Of the steps so far."""


@torch.no_grad()
def hmc_iteration(
    denoiser: EnergyDenoiser,
    chain: Chain,
    *,
    t: Float[Tensor, " systems"],
    step: Float[Tensor, " systems"],
    n_verlet: int,
    diffusion: Diffusion,
    streams: Streams,
    draw: int,
    elements: bool = False,
) -> Iteration:
    """One move of every chain at its own time `t`, with its own `step` dt₀ (eq. 23, 24).

    Uses the numbers of `draw` and `draw + 1`. Detailed balance holds with respect to exp(-E) for a fixed `step`.

    >>> from amden.testing import GaussianOracle, random_sample
    >>> oracle, sample = GaussianOracle(Diffusion()), random_sample([4])
    >>> t = torch.tensor([0.3], dtype=torch.float64)
    >>> streams = Streams.of(torch.tensor([7]), sample.n_atoms)
    >>> move = hmc_iteration(
    ...     oracle, Chain.at(oracle, sample, t), t=t, step=torch.full_like(t, 0.1), n_verlet=5,
    ...     diffusion=Diffusion(), streams=streams, draw=HMC_DRAW,
    ... )
    >>> bool(move.probability > 0.9)
    True
    """
    start, system = chain.sample, chain.sample.system
    momentum = gaussian_noise(start, streams, draw=draw)
    if not elements:
        momentum = replace(momentum, elements=torch.zeros_like(momentum.elements))
    before = chain.energy + _kinetic(momentum, start)
    atom_step = step.to(start.positions)[system, None]
    reach_x = diffusion.positions.sigma(t).to(start.positions)[system, None] * atom_step
    reach_e = diffusion.elements.sigma(t).to(start.positions)[system, None] * atom_step
    now = chain
    momentum = _kicked(momentum, now.noise, 0.5 * atom_step, elements)
    for k in range(n_verlet):
        positions = now.sample.positions + reach_x * momentum.positions
        moved = replace(now.sample, positions=positions)
        if elements:
            moved = replace(moved, elements=now.sample.elements + reach_e * momentum.elements)
        now = Chain.at(denoiser, moved, t)
        last = k == n_verlet - 1
        momentum = _kicked(momentum, now.noise, 0.5 * atom_step if last else atom_step, elements)
    change = now.energy + _kinetic(momentum, start) - before
    probability = torch.nan_to_num(torch.exp(-change.clamp(min=0.0)))
    u = streams.uniform((1,), draw=draw + 1)[first_atom(start.n_atoms), 0]
    accepted = u < probability
    return Iteration(_chosen(accepted, now, chain), change, probability, accepted)


class Steering(NamedTuple):
    """How the last iterations went."""

    acceptance: float
    """Mean probability of acceptance."""
    step: float
    """Mean dt₀."""

    def __str__(self) -> str:
        return f"acceptance {self.acceptance:.2f}, dt₀ {self.step:.2f}"


class HMCRefinement:
    """HMC before each denoising step with t in the range of `config`: the `refine` of `euler_maruyama`.

    With None for `config` it takes down the energies of standard denoising. With another denoiser as `lead` the sample
    is denoised by that one's noise, and the energy moves it alone: a score model of the same data, which costs less and
    may know better. Energies are taken down where there are iterations only, then.

    >>> from amden.diffusion.sampler import euler_maruyama, time_grid
    >>> from amden.testing import GaussianOracle, random_sample
    >>> oracle, start = GaussianOracle(Diffusion()), random_sample([4])
    >>> streams = Streams.of(torch.tensor([7]), start.n_atoms)
    >>> hmc = HMCRefinement(oracle, HMCConfig(n_verlet=3), diffusion=Diffusion(), streams=streams)
    >>> times = time_grid(Diffusion(), n_steps=10)
    >>> end = euler_maruyama(oracle, start, diffusion=Diffusion(), times=times, streams=streams, refine=hmc)
    >>> hmc.record().energy.shape, int(hmc.record().probability.isfinite().sum())
    (torch.Size([11, 1]), 6)
    """

    def __init__(
        self,
        denoiser: EnergyDenoiser,
        config: HMCConfig | None,
        *,
        diffusion: Diffusion,
        streams: Streams,
        state: HMCState | None = None,
        lead: Denoiser | None = None,
    ) -> None:
        """A new refinement, or one that goes on from `state` with the next step."""
        self._denoiser, self._config, self._diffusion, self._streams = denoiser, config, diffusion, streams
        self._lead = lead
        begin = torch.full_like(streams.seeds, config.step if config else torch.nan, dtype=torch.float64)
        self._step = begin if state is None else state.step.to(begin)
        kept = None if state is None else state.record
        self._times: list[float] = [] if kept is None else kept.t.tolist()
        columns = () if kept is None else (kept.energy, kept.probability, kept.step)
        self._rows: list[tuple[Tensor, ...]] = list(zip(*(column.to(begin) for column in columns), strict=True))

    def __call__(self, number: int, t: float, sample: Sample) -> tuple[Sample, Noise]:
        """The sample after an iteration, and the noise in it; nothing here waits for a GPU."""
        config, done, denoiser, lead = self._config, len(self._rows), at_time(self._denoiser, t), self._lead
        assert isinstance(denoiser, EnergyDenoiser)
        still = config is None or not config.t_min <= t <= config.t_max
        nothing = torch.full_like(self._step, torch.nan)
        self._times.append(t)
        if still and lead is not None:
            self._rows.append((nothing, nothing, nothing))
            return sample, predicted(lead, sample, t)
        times = sample.positions.new_full((len(sample),), t)
        chain = Chain.at(denoiser, sample, times)
        if still:
            self._rows.append((chain.energy, nothing, nothing))
            return sample, chain.noise
        assert config is not None
        move = hmc_iteration(
            denoiser,
            chain,
            t=times,
            step=self._step,
            n_verlet=config.n_verlet,
            diffusion=self._diffusion,
            streams=self._streams,
            draw=HMC_DRAW + 2 * done,
            elements=config.elements,
        )
        self._rows.append((move.chain.energy, move.probability, self._step))
        if config.acceptance is not None:
            self._step = self._step * torch.exp(config.gain * (move.probability - config.acceptance))
        after = move.chain.sample
        return after, move.chain.noise if lead is None else predicted(lead, after, t)

    def steering(self, *, last: int = 20) -> "Steering":
        """How the `last` iterations went, over all chains; waits for a GPU."""
        probability, step = (torch.stack([row[i] for row in self._rows[-last:]]).nanmean() for i in (1, 2))
        return Steering(*torch.stack([probability, step]).tolist())

    def record(self) -> HMCRecord:
        """What happened so far, on the CPU."""
        times = torch.tensor(self._times, dtype=torch.float64)
        if not self._rows:
            empty = torch.zeros((0, len(self._step)), dtype=torch.float64)
            return HMCRecord(times, empty, empty, empty)
        return HMCRecord(times, *(torch.stack(rows).cpu() for rows in zip(*self._rows, strict=True)))

    def state(self) -> HMCState:
        """What a refinement needs to go on from here, on the CPU."""
        return HMCState(self._step.cpu(), self.record())


def _kinetic(momentum: Noise, sample: Sample) -> Float[Tensor, " systems"]:
    """½ Σ p² of each system, in float64."""
    each = momentum.positions.double().square().sum(1) + momentum.elements.double().square().sum(1)
    return 0.5 * segment_sum(each, sample.system, n_systems=len(sample))


def _kicked(momentum: Noise, noise: Noise, step: Tensor, elements: bool) -> Noise:
    positions = momentum.positions - step * noise.positions
    return Noise(positions, momentum.elements - step * noise.elements if elements else momentum.elements)


def _chosen(accepted: Bool[Tensor, " systems"], new: Chain, old: Chain) -> Chain:
    """The new state of the chains that accepted, the old one of the others."""
    atoms = accepted[new.sample.system, None]
    sample = replace(
        new.sample,
        positions=torch.where(atoms, new.sample.positions, old.sample.positions),
        elements=torch.where(atoms, new.sample.elements, old.sample.elements),
    )
    noise = Noise(
        torch.where(atoms, new.noise.positions, old.noise.positions),
        torch.where(atoms, new.noise.elements, old.noise.elements),
    )
    return Chain(sample, torch.where(accepted, new.energy, old.energy), noise)
