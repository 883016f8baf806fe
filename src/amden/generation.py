"""From a model to structures: cells, the prior, the reverse process in batches, ghosts removed, atoms wrapped.

Each structure comes from its own stream of random numbers, so what structure number i of a seed is does not depend on
how many are made, nor on the batch size (within the rounding of the network's sums).
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden.diffusion.corruption import decode, prior
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.hmc import HMCConfig, HMCRecord, HMCRefinement, Steering
from amden.diffusion.sampler import STEP_DRAW, euler_maruyama, time_grid
from amden.elements import MASSES
from amden.model import Model
from amden.neighbors import expected_capacity, neighbor_plan
from amden.nn.energy import EnergyModel
from amden.nn.score import Room, ScoreModel
from amden.parts import BatchState, Parts, StateKeeper
from amden.random import Streams, spawn_seeds
from amden.structure import Structures, concatenate
from amden.units import AMU_PER_A3_IN_G_PER_CM3

BYTES_PER_ATOM = 400_000
"""Memory of a forward pass an atom, about: three edge arrays of 100 neighbours, hidden width 128 and four bytes."""

GRADIENT_MEMORY = 12
"""How much more an energy model needs, which keeps all layers for its gradient."""

CPU_CHUNK = 32
"""Atoms a processor works on at a time: the edge arrays of so many stay near its cache."""

OnStep = Callable[[int, Steering | None], None]
"""Called after each denoising step with the evaluations of the network it took, counted for each system of the batch,
and how the last iterations of Hamiltonian Monte Carlo went, if any."""

OnFrame = Callable[[Structures], None]
"""Called after each step with the present state of the very first system; its property `t` is the time reached."""

STEERING_EVERY = 20
"""Steps between two looks at the acceptance, each of which waits for a GPU."""

SAVE_SECONDS = 60.0
"""Time after which the state of the unfinished batch is kept again."""

COMPILE_FROM = 20_000
"""Evaluations of the network on one structure from which on compiling for a GPU pays: on an H200 it takes 25 to 50 s
and saves an energy model of six layers about 2 ms each."""

OnRecord = Callable[[HMCRecord], None]
"""Called after each batch with what Hamiltonian Monte Carlo went through."""

OnEstimate = Callable[[float], None]
"""Called before the first step with the seconds that generation will take, from a few evaluations of the network."""


@dataclass(frozen=True, eq=False)
class Blank:
    """What is given before a structure is generated: its cell and the number of its atoms."""

    cell: Float[Tensor, "systems 3 3"]
    n_atoms: Int[Tensor, " systems"]

    def __len__(self) -> int:
        return len(self.n_atoms)


def cubic_blank(model: Model, n: int, *, atoms: int, density: float | None = None) -> Blank:
    """`n` cubes for `atoms` atoms at a density in g/cm³, by default the mean of the training data.

    Errors: `ValueError` for numbers that are not positive, or where no density is known.
    """
    _require_positive("n", n)
    _require_positive("atoms", atoms)
    edge = (atoms / _number_density(model, density)) ** (1 / 3)
    return Blank(edge * torch.eye(3).expand(n, 3, 3).contiguous(), torch.full((n,), atoms))


def cell_blank(
    model: Model, n: int, *, cell: Float[Tensor, "3 3"], atoms: int | None = None, density: float | None = None
) -> Blank:
    """`n` times the same cell; without `atoms`, as many as the density asks for.

    Errors: `ValueError` for a cell of vanishing or negative volume.
    """
    _require_positive("n", n)
    volume = float(torch.linalg.det(cell.double()))
    if not volume > 1e-6 * float(cell.double().norm(dim=1).prod()):
        what = "negative volume (left-handed)" if volume < 0 else "vanishing volume"
        raise ValueError(f"`cell` has a {what}: {cell.tolist()}")
    if atoms is None:
        atoms = max(round(_number_density(model, density) * volume), 1)
    _require_positive("atoms", atoms)
    return Blank(cell.float().expand(n, 3, 3).contiguous(), torch.full((n,), atoms))


def like_blank(model: Model, structures: Structures, *, n: int | None = None) -> Blank:
    """Cells and sizes of given structures, over again if `n` asks for more.

    Errors: `ValueError` for an element that the model does not know.
    """
    model.denoiser.config.vocabulary.encode(structures.species)
    chosen = torch.arange(len(structures) if n is None else n) % len(structures)
    return Blank(structures.cell.float()[chosen], structures.n_atoms[chosen])


def generate(
    model: Model,
    blank: Blank,
    *,
    seed: int = 0,
    n_steps: int = 200,
    hmc: HMCConfig | None = None,
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

    With `hmc` each step is preceded by an iteration of Hamiltonian Monte Carlo (the paper takes 2000 steps then);
    `on_record` is told what happened, with `energies` also in standard denoising. The batch is halved whenever memory
    runs out. `compiled` asks for a network compiled for a GPU where that pays (`COMPILE_FROM`). `parts` keeps each
    finished batch and now and then the state of the unfinished one, and brings back those of an interrupted call.

    Errors: `ValueError` for a cell so dilute that the model's cutoff finds no neighbours, and for `hmc` with a model
    that has no energy.
    """
    if (hmc is not None or energies) and not isinstance(model.denoiser, EnergyModel):
        raise ValueError("Hamiltonian Monte Carlo needs an energy model, this one predicts the noise alone")
    device = torch.device(device)
    _require_neighbors(blank, model.denoiser.config.egnn.cutoff)
    seeds = spawn_seeds(seed, len(blank))
    size = batch_size or automatic_batch_size(blank, device, share=memory_share(model))
    denoiser = model.denoiser.to(device)
    denoiser.egnn.fuse(device)
    done = parts.load() if parts is not None else {}
    work = evaluations(model, n_steps=n_steps, hmc=hmc)
    compiled = compiled and len(blank) * sum(work) >= COMPILE_FROM
    if compiled:
        denoiser.network.compile(dynamic=False)
    for held in done.values():
        on_step(len(held) * sum(work), None)
    first, capacity = 0, _capacity(blank, denoiser, device)
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
            run = _Run(model, part, Streams.of(seeds[chosen], part.n_atoms), capacity, room)
            if on_estimate is not None:
                left = (len(blank) - sum(map(len, done.values()))) / len(part) * sum(work)
                on_estimate(run.seconds() * (left - sum(work[: kept.steps_done])))
                on_estimate = None
            result, record = _denoised(run, work, hmc, energies, kept, on_step, frame)
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


def evaluations(model: Model, *, n_steps: int, hmc: HMCConfig | None = None) -> list[int]:
    """How often the network is evaluated in each denoising step."""
    times = time_grid(model.diffusion, n_steps=n_steps)[:-1].tolist()
    if hmc is None:
        return [1] * len(times)
    return [1 + hmc.n_verlet * (hmc.t_min <= t <= hmc.t_max) for t in times]


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
    work: list[int],
    hmc: HMCConfig | None,
    energies: bool,
    kept: StateKeeper,
    on_step: OnStep,
    on_frame: OnFrame | None,
) -> tuple[Structures, HMCRecord | None]:
    model, streams, start, begun = run.model, run.streams, run.start, kept.state
    vocabulary, done, refine = model.denoiser.config.vocabulary, kept.steps_done, None
    if begun is not None:
        start = replace(
            start, positions=begun.positions.to(start.positions), elements=begun.elements.to(start.elements)
        )
        on_step(len(start) * sum(work[:done]), None)
    if hmc is not None or energies:
        state = None if begun is None else begun.hmc
        refine = HMCRefinement(run, hmc, diffusion=model.diffusion, streams=streams, state=state)

    def callback(step: int, t: float, sample: Sample) -> None:
        step += done
        looked = refine is not None and work[step - 1] > 1 and step % STEERING_EVERY == 0
        on_step(len(sample) * work[step - 1], refine.steering() if refine is not None and looked else None)
        if t > 0:
            kept.now(lambda: BatchState.at(step, sample, None if refine is None else refine.state()))
        if on_frame is not None:
            state = decode(sample, vocabulary).select([0]).to("cpu", dtype=torch.float64)
            on_frame(replace(state, properties={"t": torch.tensor([t])}))

    with run.precision():
        end = euler_maruyama(
            run,
            start,
            diffusion=model.diffusion,
            times=time_grid(model.diffusion, n_steps=len(work) - 1)[done:],
            streams=streams,
            refine=refine,
            callback=callback,
            first_draw=STEP_DRAW + done,
        )
    finished = decode(end, vocabulary).without_ghosts()
    return finished.to(dtype=torch.float64).wrapped(), None if refine is None else refine.record()


class _Run:
    """A batch with a model that knows its cells and sizes beforehand: an `EnergyDenoiser` if the model is one."""

    def __init__(self, model: Model, blank: Blank, streams: Streams, capacity: int | None, room: Room | None) -> None:
        self.model, self.streams, self._room = model, streams, room
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
        width, plan = self.model.denoiser.config.vocabulary.width, self._plan
        return prior(plan.cell, plan.n_atoms, width=width, diffusion=self.model.diffusion, streams=self.streams)

    def precision(self) -> AbstractContextManager:
        """That of the network: bfloat16 with distances and sums in float32 on a GPU, float32 on a CPU."""
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


def _number_density(model: Model, density: float | None) -> float:
    """Atoms an Å³ for a density in g/cm³."""
    known = model.provenance.get("data", {})
    if density is None:
        density = known.get("density")
    if density is None:
        raise ValueError("`density` must be given: the model does not say that of its training data")
    if not density > 0:
        raise ValueError(f"`density` must be positive, got {density}")
    species = model.denoiser.config.vocabulary.species
    mass = float(known.get("mean_mass") or MASSES[list(species)].mean())
    return density / (mass * AMU_PER_A3_IN_G_PER_CM3)


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}")
