"""From a model to structures, batch after batch; what happens to one is in `denoising`.

Each structure comes from its own stream of random numbers, so what structure number i of a seed is does not depend on
how many are made, nor on the batch size (within the rounding of the network's sums).
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from amden.blank import Blank
from amden.denoising import BatchRun, OnFrame, OnStep, denoised
from amden.diffusion.denoiser import Denoiser
from amden.diffusion.hmc import HMCConfig, HMCRecord
from amden.diffusion.sampler import time_grid
from amden.model import Model
from amden.neighbors import expected_capacity
from amden.nn.energy import EnergyModel
from amden.nn.score import Room, ScoreModel
from amden.parts import Parts, StateKeeper
from amden.random import Streams, spawn_seeds
from amden.refinement import Refine, evaluations
from amden.request import Request, driver
from amden.structure import Structures, concatenate

BYTES_PER_ATOM = 400_000
"""Memory of a forward pass an atom, with a margin. In float32, with 100 neighbours and hidden width 128, its peak is
170,000 bytes (measured on a CPU): three edge arrays at a time, 3 · 100 · 128 · 4 = 153,600, and the edges' geometry.
The rest is for what was not measured: the search for neighbours, the sampler, a GPU's libraries, gaps of its memory."""

GRADIENT_MEMORY = 12
"""How much more an energy model of four layers needs, which keeps all layers for its gradient."""

FUSED_LAYERS = 6
"""Layers of an energy model that needs no more than a score model with fused kernels, which keep nothing of the edges:
250,000 bytes an atom, measured on an H200."""

SAVE_SECONDS = 60.0
"""Time after which the state of the unfinished batch is kept again."""

COMPILE_FROM = 20_000
"""Evaluations of the network on one structure from which on compiling for a GPU pays: on an H200 it takes 25 to 50 s
and saves an energy model of six layers about 2 ms each."""

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
    energy: Model | None = None,
    energies: bool = False,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    compiled: bool = False,
    share: tuple[int, int] = (1, 1),
    parts: Parts | None = None,
    on_step: OnStep = lambda *_: None,
    on_frame: OnFrame | None = None,
    on_record: OnRecord = lambda _: None,
    on_estimate: OnEstimate | None = None,
) -> Structures:
    """Structures by denoising: Euler-Maruyama from t_max to t_min in `n_steps`, and the last step to 0.

    `request` is what they are to be like; what was asked for, and what that changed, comes with them as properties.
    With `refine` each step is preceded by an iteration of Hamiltonian Monte Carlo (the paper takes 2000 steps then) or
    by Langevin dynamics. The former moves samples along the energy of the model `energy` where there is one, and
    `model` denoises them. `on_record` is told what happened in it, with `energies` also in standard denoising.
    The batch is halved whenever memory runs out. `compiled` asks for a network compiled for a GPU where that pays
    (`COMPILE_FROM`). `parts` keeps each finished batch and now and then the state of the unfinished one, and brings
    back those of an interrupted call. A `share` (i, m) is the i-th of m equal parts of the structures, each as it is in
    the whole; several processes may make theirs with the same `parts` at a time, once `Parts.cut` was there.

    Errors: `ValueError` for a cell so dilute that the model's cutoff finds no neighbours, for Hamiltonian Monte Carlo
    without an energy model or with one of other elements, for a `request` that the model does not understand, and for
    an empty `share`.
    """
    request = request or Request()
    request.check(model, blank.n_atoms, refine=refine)
    if energy is not None:
        _check_energy(energy, model, refine)
    if (isinstance(refine, HMCConfig) or energies) and not isinstance((energy or model).denoiser, EnergyModel):
        raise ValueError("Hamiltonian Monte Carlo needs an energy model, this one predicts the noise alone")
    _require_neighbors(blank, model.denoiser.config.egnn.cutoff)
    own, device = share_of(len(blank), share), torch.device(device)
    work = evaluations(model, n_steps=n_steps, refine=refine, apart=energy is not None)
    times = time_grid(model.diffusion, n_steps=n_steps)[:-1].tolist()
    compiled = compiled and len(own) * sum(work) >= COMPILE_FROM
    batches = _Batches(model, energy, blank, own, request, spawn_seeds(seed, len(blank)), device, compiled)
    done = {n: held for n, held in (parts.load() if parts is not None else {}).items() if n in own}
    for held in done.values():
        on_step(len(held) * sum(work), None)
    begun = parts.begun() if parts is not None else ()
    made, first, size = list[Structures](), own.start, batch_size
    while first < own.stop:
        if first in done:
            made.append(done[first])
            first += len(done[first])
            continue
        share_of_memory = max(memory_share(each, device) for each in (model, energy or model))
        size = size or automatic_batch_size(batches.own, device, share=share_of_memory)
        kept = StateKeeper(parts, first, every=SAVE_SECONDS)
        ends = (first + size, own.stop, *(n for n in (*done, *begun) if n > first))
        chosen = torch.arange(first, min(ends) if kept.n_systems is None else first + kept.n_systems)
        told: dict[str, Any] = {"kept": kept, "on_step": on_step, "on_frame": on_frame if first == 0 else None}
        try:
            run, lead, mover, energetic = batches.prepared(chosen, size)
            if on_estimate is not None:
                each = run.seconds()
                moving = each if mover is None else mover.seconds()
                passed = [request.asked(t) * (each + (n - 1) * moving) for n, t in zip(work, times, strict=True)]
                left = (len(own) - sum(map(len, done.values()))) / len(chosen) * sum(passed)
                on_estimate(left - sum(passed[: kept.steps_done]))
                on_estimate = None
            told |= {"energetic": energetic, "refine": refine, "energies": energies}
            result, record = denoised(run, lead, request, work=work, **told)
        except torch.OutOfMemoryError:
            if len(chosen) == 1:
                raise
            kept.forget()
            size = max(len(chosen) // 2, 1)
            continue
        done[first] = result.to("cpu")
        if parts is not None:
            parts.save(first, done[first])
        if record is not None:
            on_record(record)
    return concatenate(made)


def share_of(n: int, share: tuple[int, int]) -> range:
    """Which of `n` structures are in the i-th of m shares.

    >>> [share_of(10, (i, 3)) for i in (1, 2, 3)]
    [range(0, 3), range(3, 6), range(6, 10)]
    """
    i, m = share
    if not 1 <= i <= m <= n:
        raise ValueError(f"`share` must be i of m with 1 ≤ i ≤ m, and m at most {n} structures, got {i} of {m}")
    return range(n * (i - 1) // m, n * i // m)


class _Batches:
    """Models, on a device from the first batch on, and the batches of a share that they are given."""

    def __init__(
        self,
        model: Model,
        energy: Model | None,
        blank: Blank,
        own: range,
        request: Request,
        seeds: Int[Tensor, " systems"],
        device: torch.device,
        compiled: bool,
    ) -> None:
        self.own = Blank(blank.cell[own.start : own.stop], blank.n_atoms[own.start : own.stop])
        self._blank, self._request, self._seeds = blank, request, seeds
        self._given, self._source, self._device, self._compiled = model, energy, device, compiled

    @cached_property
    def _model(self) -> tuple[Model, int | None]:
        return self._placed(self._given, compiled=self._compiled)

    @cached_property
    def _energy(self) -> tuple[Model, int | None] | None:
        return None if self._source is None else self._placed(self._source, compiled=self._compiled)

    @cached_property
    def _guide(self) -> tuple[Model, int | None] | None:
        guide = self._request.guidance.model if self._request.guided else None
        return None if guide is None else self._placed(guide)

    def _placed(self, model: Model, *, compiled: bool = False) -> tuple[Model, int | None]:
        denoiser = model.denoiser.to(self._device)
        denoiser.egnn.fuse(self._device)
        if compiled:
            denoiser.network.compile(dynamic=False)
        return model, _capacity(self.own, denoiser, self._device)

    def prepared(
        self, chosen: Int[Tensor, " chosen"], size: int
    ) -> tuple[BatchRun, Denoiser, BatchRun | None, Denoiser | None]:
        """The batch of these systems, one of batches of `size`, and what tells its noise; the same with the model that
        has the energy, where that is another one."""
        part = Blank(self._blank.cell[chosen].to(self._device), self._blank.n_atoms[chosen].to(self._device))
        room = _room(self.own, size, part) if self._compiled else None
        streams = Streams.of(self._seeds[chosen], part.n_atoms)
        asked = self._request.conditions(chosen, self._device)

        def run_of(placed: tuple[Model, int | None]) -> BatchRun:
            return BatchRun(placed[0], part, streams, placed[1], room, asked)

        def led(run: BatchRun) -> Denoiser:
            return driver(self._request, run.model, run, guide=guide, streams=streams)

        run, guide = run_of(self._model), self._guide and run_of(self._guide)
        mover = self._energy and run_of(self._energy)
        return run, led(run), mover, mover and led(mover)


def memory_share(model: Model, device: torch.device) -> int:
    """How many times the memory of a score model a model needs on a device: the `share` of `automatic_batch_size`.

    An energy model takes fused kernels from here on, where the device has them, as that decides.
    """
    layers = model.denoiser.config.egnn.layers
    if not model.denoiser.config.energy:
        return 1
    if device.type == "cuda" and model.denoiser.egnn.fuse(device):
        return -(-layers // FUSED_LAYERS)
    return max(GRADIENT_MEMORY * layers // 4, 1)


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


def _check_energy(energy: Model, model: Model, refine: Refine | None) -> None:
    """`ValueError` for an energy that does not go with a model, or that nothing asks for."""
    if not isinstance(refine, HMCConfig):
        raise ValueError("an energy model beside the model is for Hamiltonian Monte Carlo alone")
    given, asked = energy.denoiser.config.vocabulary, model.denoiser.config.vocabulary
    if given != asked:
        raise ValueError(f"the energy model knows {given}, the model {asked}")
    if energy.diffusion != model.diffusion:
        raise ValueError("the energy model was trained with another diffusion process than the model")


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
