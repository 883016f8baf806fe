"""From a model to structures: cells, the prior, the reverse process in batches, ghosts removed, atoms wrapped.

Each structure comes from its own stream of random numbers, so what structure number i of a seed is does not depend on
how many are made, nor on the batch size (within the rounding of the network's sums).
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
from amden.diffusion.hmc import HMCConfig, HMCRecord, HMCRefinement, HMCState, Steering
from amden.diffusion.langevin import LangevinConfig, LangevinRefinement, Warmth
from amden.diffusion.sampler import STEP_DRAW, euler_maruyama, time_grid
from amden.model import Model
from amden.neighbors import expected_capacity, neighbor_plan
from amden.nn.energy import EnergyModel
from amden.nn.score import Room, ScoreModel
from amden.parts import BatchState, Parts, StateKeeper
from amden.random import Streams, spawn_seeds
from amden.refinement import Refine, evaluations
from amden.request import RESTART, Request, driver, finished, misfits
from amden.structure import Structures, concatenate

BYTES_PER_ATOM = 400_000
"""Memory of a forward pass an atom, about: three edge arrays of 100 neighbours, hidden width 128 and four bytes."""

GRADIENT_MEMORY = 12
"""How much more an energy model needs, which keeps all layers for its gradient."""

CPU_CHUNK = 32
"""Atoms a processor works on at a time: the edge arrays of so many stay near its cache."""

OnStep = Callable[[int, Steering | Warmth | None], None]
"""Called after each denoising step with the evaluations of the network it took, counted for each system of the batch,
and how the last refinements went, if any."""

OnFrame = Callable[[Structures], None]
"""Called after each step with the present state of the very first system; its property `t` is the time reached."""

STEERING_EVERY = 20
"""Steps between two looks at the acceptance, each of which waits for a GPU."""

SAVE_SECONDS = 60.0
"""Time after which the state of the unfinished batch is kept again."""

COMPILE_FROM = 20_000
"""Evaluations of the network on one structure from which on compiling for a GPU pays: on an H200 it takes 25 to 50 s
and saves an energy model of six layers about 2 ms each."""

RESTART_DRAW: Final = 16 << 32
"""Draw of the first step of the first restart; the next restart's are 2³² further."""

OnRecord = Callable[[HMCRecord], None]
"""Called after each batch with what Hamiltonian Monte Carlo went through."""

OnEstimate = Callable[[float], None]
"""Called before the first step with the seconds that generation will take, from a few evaluations of the network."""


def generate(
    model: Model,
    blank: Blank,
    *,
    request: Request | None = None,
    seed: int = 0,
    n_steps: int = 200,
    refine: Refine | None = None,
    energies: bool = False,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    compiled: bool = False,
    parts: Parts | None = None,
    on_step: OnStep = lambda *_: None,
    on_frame: OnFrame | None = None,
    on_record: OnRecord = lambda _: None,
    on_estimate: OnEstimate | None = None,
) -> Structures:
    """Structures by denoising: Euler-Maruyama from t_max to t_min in `n_steps`, and the last step to 0.

    `request` is what they are to be like; what was asked for, and what that changed, comes with them as properties.
    With `refine` each step is preceded by an iteration of Hamiltonian Monte Carlo (the paper takes 2000 steps then) or
    by Langevin dynamics; `on_record` is told what happened in the former, with `energies` also in standard denoising.
    The batch is halved whenever memory runs out. `compiled` asks for a network compiled for a GPU where that pays
    (`COMPILE_FROM`). `parts` keeps each finished batch and now and then the state of the unfinished one, and brings
    back those of an interrupted call.

    Errors: `ValueError` for a cell so dilute that the model's cutoff finds no neighbours, for Hamiltonian Monte Carlo
    with a model that has no energy, and for a `request` that the model does not understand.
    """
    request = request or Request()
    request.check(model, blank.n_atoms, refine=refine)
    if (isinstance(refine, HMCConfig) or energies) and not isinstance(model.denoiser, EnergyModel):
        raise ValueError("Hamiltonian Monte Carlo needs an energy model, this one predicts the noise alone")
    device = torch.device(device)
    _require_neighbors(blank, model.denoiser.config.egnn.cutoff)
    seeds = spawn_seeds(seed, len(blank))
    size = batch_size or automatic_batch_size(blank, device, share=memory_share(model))
    denoiser = model.denoiser.to(device)
    denoiser.egnn.fuse(device)
    done = parts.load() if parts is not None else {}
    work = evaluations(model, n_steps=n_steps, refine=refine)
    compiled = compiled and len(blank) * sum(work) >= COMPILE_FROM
    if compiled:
        denoiser.network.compile(dynamic=False)
    for held in done.values():
        on_step(len(held) * sum(work), None)
    first, capacity = 0, _capacity(blank, denoiser, device)
    guide_capacity = None
    if request.guided and request.guidance.model is not None:
        other_denoiser = request.guidance.model.denoiser.to(device)
        other_denoiser.egnn.fuse(device)
        guide_capacity = _capacity(blank, other_denoiser, device)
    while first < len(blank):
        if first in done:
            first += len(done[first])
            continue
        kept = StateKeeper(parts, first, every=SAVE_SECONDS)
        ends = (first + (kept.n_systems or size), len(blank), *(held for held in done if held > first))
        chosen = torch.arange(first, min(ends))
        part = Blank(blank.cell[chosen].to(device), blank.n_atoms[chosen].to(device))
        frame = on_frame if first == 0 else None
        try:
            room = _room(blank, size, part) if compiled else None
            streams = Streams.of(seeds[chosen], part.n_atoms)
            asked = request.conditions(chosen, device)
            run = _Run(model, part, streams, capacity, room, asked)
            guide = request.guidance.model if request.guided else None
            other = None if guide is None else _Run(guide, part, streams, guide_capacity, room, asked)
            lead = driver(request, model, run, guide=other, streams=streams)
            if on_estimate is not None:
                left = (len(blank) - sum(map(len, done.values()))) / len(part) * sum(work)
                on_estimate(run.seconds() * (1 + request.guided) * (left - sum(work[: kept.steps_done])))
                on_estimate = None
            result, record = _denoised(run, lead, request, work, refine, energies, kept, on_step, frame)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            kept.forget()
            size = max(len(part) // 2, 1)
            continue
        done[first] = result.to("cpu")
        if parts is not None:
            parts.save(first, done[first])
        if record is not None:
            on_record(record)
        first += len(chosen)
    return concatenate([done[first] for first in sorted(done)])


def memory_share(model: Model) -> int:
    """How many times the memory of a score model a model needs: the `share` of `automatic_batch_size`."""
    return GRADIENT_MEMORY * model.denoiser.config.egnn.layers // 4 if model.denoiser.config.energy else 1


def automatic_batch_size(blank: Blank, device: torch.device, *, share: int = 1) -> int:
    """Systems a batch: one on a CPU, what half of the free memory holds on a GPU (at most 65,536 atoms).

    `share` is the memory that the model needs beside that of a score model.
    """
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    atoms = min(free // 2 // (share * BYTES_PER_ATOM), 65_536)
    batches = -(-int(blank.n_atoms.sum()) // max(atoms, 1))
    return max(-(-len(blank) // batches), 1)


@torch.no_grad()
def _denoised(
    run: "_Run",
    lead: Denoiser,
    request: Request,
    work: list[int],
    refine: Refine | None,
    energies: bool,
    kept: StateKeeper,
    on_step: OnStep,
    on_frame: OnFrame | None,
) -> tuple[Structures, HMCRecord | None]:
    model, streams, start, begun = run.model, run.streams, run.start, kept.state
    vocabulary, done = model.denoiser.config.vocabulary, kept.steps_done
    if begun is not None:
        start = replace(
            start, positions=begun.positions.to(start.positions), elements=begun.elements.to(start.elements)
        )
        on_step(len(start) * sum(work[:done]), None)
    relax = _relaxing(refine, energies, lead, run, done=done, state=None if begun is None else begun.hmc)

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
        for attempt in range(request.restarts if request.composition is not None and vocabulary.width else 0):
            bad = misfits(end, request, vocabulary)
            if not bool(bad.any()):
                break
            end = _restarted(end, bad, lead, run, attempt=attempt, n_steps=len(work) - 1)
        if request.composition is not None and vocabulary.width and bool(misfits(end, request, vocabulary).any()):
            end = replace(end, elements=beliefs(lead, end, diffusion=model.diffusion, streams=streams))
    made = finished(end, request, vocabulary).without_ghosts()
    return made.wrapped(), None if relax is None else relax.record()


def _relaxing(
    refine: Refine | None, energies: bool, lead: Denoiser, run: "_Run", *, done: int, state: HMCState | None
) -> HMCRefinement | LangevinRefinement | None:
    """What moves the sample before each step, going on after `done` of them; with `energies` it takes those down."""
    common: dict[str, Any] = {"diffusion": run.model.diffusion, "streams": run.streams}
    if isinstance(refine, LangevinConfig):
        return LangevinRefinement(lead, refine, done=done, **common)
    return HMCRefinement(_energetic(lead), refine, state=state, **common) if refine is not None or energies else None


def _restarted(
    end: Sample, bad: Bool[Tensor, " systems"], lead: Denoiser, run: "_Run", *, attempt: int, n_steps: int
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


class _Run:
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


def _capacity(blank: Blank, denoiser: ScoreModel, device: torch.device) -> int | None:
    """Places for neighbours: on a GPU the same for all batches, so that one compiled network serves them."""
    if device.type != "cuda":
        return None
    return expected_capacity(blank.cell, blank.n_atoms, cutoff=denoiser.config.egnn.cutoff)


def _room(blank: Blank, size: int, part: Blank) -> Room | None:
    """What any batch of `size` systems is padded to, so that the network is compiled once; None where `part` is as
    large, or larger."""
    size = min(size, len(blank))
    atoms = int(blank.n_atoms.sort(descending=True).values[:size].sum())
    smaller = len(part) <= size and int(part.n_atoms.sum()) < atoms
    return Room(size, atoms) if smaller else None


def _require_neighbors(blank: Blank, cutoff: float) -> None:
    """`ValueError` where an atom would see less than one other on average: the model has nothing to go by."""
    mean = blank.n_atoms / torch.linalg.det(blank.cell.double()) * (4.0 / 3.0 * torch.pi * cutoff**3)
    lonely = (mean < 1.0).nonzero()
    if len(lonely):
        i = int(lonely[0])
        raise ValueError(
            f"structure {i} is too dilute: within the model's cutoff of {cutoff} Å an atom has {float(mean[i]):.2g} "
            "neighbours; ask for a higher density"
        )
