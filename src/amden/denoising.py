"""One batch from the prior to structures: a model that knows the cells, the reverse process, restarts.

What a batch is, and what becomes of it, is decided in `generation`.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import torch
from jaxtyping import Bool
from torch import Tensor

from amden.blank import Blank
from amden.diffusion.belief import beliefs
from amden.diffusion.corruption import corrupt, decode, gaussian_noise, prior
from amden.diffusion.denoiser import Denoiser, EnergyDenoiser, Noise, Sample
from amden.diffusion.hmc import HMCRecord, HMCRefinement, HMCState, Steering
from amden.diffusion.langevin import LangevinConfig, LangevinRefinement, Warmth
from amden.diffusion.sampler import STEP_DRAW, euler_maruyama, time_grid
from amden.model import Model
from amden.neighbors import neighbor_plan
from amden.nn.energy import EnergyModel
from amden.nn.score import Room
from amden.parts import BatchState, StateKeeper
from amden.random import Streams
from amden.refinement import Refine
from amden.request import RESTART, Request, finished, misfits
from amden.structure import Structures

CPU_CHUNK = 32
"""Atoms a processor works on at a time: the edge arrays of so many stay near its cache."""

OnStep = Callable[[int, Steering | Warmth | None], None]
"""Called after each denoising step with the evaluations of the network it took, counted for each system of the batch,
and how the last refinements went, if any."""

OnFrame = Callable[[Structures], None]
"""Called after each step with the present state of the very first system; its property `t` is the time reached."""

STEERING_EVERY = 20
"""Steps between two looks at the acceptance, each of which waits for a GPU."""

RESTART_DRAW: Final = 16 << 32
"""Draw of the first step of the first restart; the next restart's are 2³² further."""


class BatchRun:
    """A batch with a model that knows its cells and sizes beforehand: an `EnergyDenoiser` if the model is one."""

    def __init__(
        self,
        model: Model,
        blank: Blank,
        streams: Streams,
        capacity: int | None,
        room: Room | None,
        conditions: Mapping[str, Tensor],
    ) -> None:
        self.model, self.streams, self._room, self._conditions = model, streams, room, conditions
        self._plan = neighbor_plan(
            blank.cell, blank.n_atoms, cutoff=model.denoiser.config.egnn.cutoff, capacity=capacity
        )
        self._chunk = None if self._cuda else CPU_CHUNK

    @property
    def _cuda(self) -> bool:
        return self.streams.seeds.device.type == "cuda"

    @cached_property
    def start(self) -> Sample:
        """Where sampling starts."""
        plan = self._plan
        return prior(
            plan.cell,
            plan.n_atoms,
            width=self.model.denoiser.config.vocabulary.width,
            diffusion=self.model.diffusion,
            streams=self.streams,
            conditions=self._conditions,
        )

    def precision(self) -> AbstractContextManager:
        """On a GPU bfloat16 for most products of the network (`amden.nn.energy` has its price), else float32."""
        return torch.autocast("cuda", dtype=torch.bfloat16) if self._cuda else nullcontext()

    def __call__(self, sample: Sample, t: Tensor) -> Noise:
        """As of the model."""
        return self.model.denoiser(sample, t, plan=self._plan, chunk=self._chunk, room=self._room)

    def energy_and_noise(self, sample: Sample, t: Tensor) -> tuple[Tensor, Noise]:
        """As of the model."""
        assert isinstance(self.model.denoiser, EnergyModel)
        return self.model.denoiser.energy_and_noise(sample, t, plan=self._plan, chunk=self._chunk, room=self._room)

    @torch.no_grad()
    def seconds(self, *, repeats: int = 3) -> float:
        """Time of one evaluation, after another that may compile."""
        t = self.start.positions.new_full((len(self.start),), self.model.diffusion.t_max)
        passed = []
        with self.precision():
            for n in (1, repeats):
                began = time.monotonic()
                for _ in range(n):
                    self(self.start, t)
                if self._cuda:
                    torch.cuda.synchronize()
                passed.append((time.monotonic() - began) / n)
        return passed[1]


@torch.no_grad()
def denoised(
    run: BatchRun,
    lead: Denoiser,
    request: Request,
    *,
    energetic: Denoiser | None = None,
    work: list[int],
    refine: Refine | None,
    energies: bool,
    kept: StateKeeper,
    on_step: OnStep,
    on_frame: OnFrame | None,
) -> tuple[Structures, HMCRecord | None]:
    """The structures of a batch by the noise that `lead` tells, and the record of Hamiltonian Monte Carlo.

    Energies are those of `energetic`, where `lead` has none.
    It goes on from the state that was `kept`. `work` are the evaluations of each step; `refine`, `energies` and what is
    called are those of `generate`.
    """
    model, streams, start, begun = run.model, run.streams, run.start, kept.state
    vocabulary, done = model.denoiser.config.vocabulary, kept.steps_done
    if begun is not None:
        start = replace(
            start, positions=begun.positions.to(start.positions), elements=begun.elements.to(start.elements)
        )
        on_step(len(start) * sum(work[:done]), None)
    relax = _relaxing(refine, energies, lead, energetic, run, done=done, state=None if begun is None else begun.hmc)

    def callback(step: int, t: float, sample: Sample) -> None:
        step += done
        looked = relax is not None and work[step - 1] > 1 and step % STEERING_EVERY == 0
        on_step(len(sample) * work[step - 1], relax.steering() if relax is not None and looked else None)
        if t > 0:
            kept.now(lambda: BatchState.at(step, sample, None if relax is None else relax.state()))
        if on_frame is not None:
            state = decode(sample, vocabulary).select([0]).to("cpu", dtype=torch.float64)
            on_frame(replace(state, properties={"t": torch.tensor([t])}))

    with run.precision():
        end = euler_maruyama(
            lead,
            start,
            diffusion=model.diffusion,
            times=time_grid(model.diffusion, n_steps=len(work) - 1)[done:],
            streams=streams,
            refine=relax,
            callback=callback,
            first_draw=STEP_DRAW + done,
        )
        end = _balanced(end, request, lead, run, n_steps=len(work) - 1)
    made = finished(end, request, vocabulary).without_ghosts()
    return made.wrapped(), None if relax is None else relax.record()


def _relaxing(
    refine: Refine | None,
    energies: bool,
    lead: Denoiser,
    energetic: Denoiser | None,
    run: BatchRun,
    *,
    done: int,
    state: HMCState | None,
) -> HMCRefinement | LangevinRefinement | None:
    """What moves the sample before each step, going on after `done` of them; with `energies` it takes those down."""
    common: dict[str, Any] = {"diffusion": run.model.diffusion, "streams": run.streams}
    if isinstance(refine, LangevinConfig):
        return LangevinRefinement(lead, refine, done=done, **common)
    if refine is None and not energies:
        return None
    if energetic is not None:
        return HMCRefinement(_energetic(energetic), refine, state=state, lead=lead, **common)
    return HMCRefinement(_energetic(lead), refine, state=state, **common)


def _balanced(end: Sample, request: Request, lead: Denoiser, run: BatchRun, *, n_steps: int) -> Sample:
    """The sample with elements that the request's composition can be made of: by restarts, then by belief."""
    vocabulary = run.model.denoiser.config.vocabulary
    if request.composition is None or not vocabulary.width:
        return end
    for attempt in range(request.restarts):
        bad = misfits(end, request, vocabulary)
        if not bool(bad.any()):
            break
        end = _restarted(end, bad, lead, run, attempt=attempt, n_steps=n_steps)
    if bool(misfits(end, request, vocabulary).any()):
        end = replace(end, elements=beliefs(lead, end, diffusion=run.model.diffusion, streams=run.streams))
    return end


def _restarted(
    end: Sample, bad: Bool[Tensor, " systems"], lead: Denoiser, run: BatchRun, *, attempt: int, n_steps: int
) -> Sample:
    """The sample with the bad systems noised to t = 0.4 and denoised again; all are, so that shapes stay the same."""
    diffusion, draw = run.model.diffusion, RESTART_DRAW + (attempt << 32)
    times = time_grid(diffusion, n_steps=n_steps)
    times = times[times <= RESTART + 1e-9]
    t = end.positions.new_full((len(end),), float(times[0]))
    noisy = corrupt(end, t, gaussian_noise(end, run.streams, draw=draw + (1 << 31)), diffusion)
    again = euler_maruyama(lead, noisy, diffusion=diffusion, times=times, streams=run.streams, first_draw=draw)
    atoms = bad[end.system, None]
    return replace(
        end,
        positions=torch.where(atoms, again.positions, end.positions),
        elements=torch.where(atoms, again.elements, end.elements),
    )


def _energetic(denoiser: Denoiser) -> EnergyDenoiser:
    assert isinstance(denoiser, EnergyDenoiser)
    return denoiser
