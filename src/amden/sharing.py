"""Generation by several processes of a machine, each with a GPU and a share of the structures.

They meet in `Parts` alone: each leaves its batches there, where `generate` finds them. The processes are those of
`workers`.
"""

import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from dataclasses import replace
from queue import Queue
from typing import Any

import torch

from amden.blank import Blank
from amden.denoising import OnStep
from amden.diffusion.hmc import Steering
from amden.diffusion.langevin import Warmth
from amden.generation import OnEstimate, generate, share_of
from amden.model import Model, denoiser_of
from amden.parts import Parts
from amden.request import Request
from amden.workers import batch_executor, visible_gpus

SHARED_FROM = 20_000_000
"""Evaluations of the network, each of one atom, that are worth a process of their own: on an H200 about 9 s with a
score model and 44 s with an energy model (docs/relaxed-glass.md), where a process takes several seconds to start."""

POLL = 0.2
"""Seconds between looks at what the workers say."""

News = float | tuple[int, Steering | Warmth | None]
"""What a worker says: the seconds that `OnEstimate` is told, or what `OnStep` is."""


def gpus_to_share(device: torch.device, blank: Blank, *, work: int, left: int) -> Sequence[str]:
    """The GPUs for the structures that are `left`, each of `work` evaluations of the network; none where this process
    alone is as quick, or its device is no GPU or a certain one."""
    if device != torch.device("cuda"):
        return []
    gpus, atoms = visible_gpus(), int(blank.n_atoms.sum()) * left // len(blank)
    n = min(len(gpus), len(blank), work * atoms // SHARED_FROM)
    return gpus[:n] if n > 1 else []


def make_shares(
    gpus: Sequence[str],
    model: Model,
    blank: Blank,
    *,
    request: Request,
    parts: Parts,
    on_step: OnStep,
    on_estimate: OnEstimate,
    **how: Any,
) -> None:
    """Put all structures into `parts` by a worker for each of the GPUs, at least two; `how` is as of `generate`.

    Errors: as of `generate`; `OSError` where a worker died. The others end with their next step then, as they do with
    an interruption.
    """
    n = len(gpus)
    parts.cut([share_of(len(blank), (i, n)).start for i in range(1, n + 1)], blank.n_atoms)
    # bytes, as PyTorch hands a tensor to another process as an open file, of which there may not be so many
    energy = how.pop("energy", None)
    how |= {"energy": energy and _portable(energy), "request": _portable_request(request), "parts": parts}
    job = pickle.dumps((_portable(model), blank, how))
    context = multiprocessing.get_context("spawn")
    # The manager, which is within, ends before the pool waits for its workers: they fail to tell their next step.
    with batch_executor(workers=n, gpus=gpus) as pool, context.Manager() as manager:
        assert pool is not None
        news: Queue[News] = manager.Queue()
        waiting = {pool.submit(_make, job, (i, n), news) for i in range(1, n + 1)}
        estimated = False
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
                while not news.empty():
                    said = news.get()
                    if isinstance(said, tuple):
                        on_step(*said)
                    elif not estimated:
                        on_estimate(said)
                        estimated = True
                for future in done:
                    future.result()
        except BrokenExecutor:
            raise OSError("a worker process died, killed or out of memory; finished batches are kept") from None
        finally:
            for future in waiting:
                future.cancel()


def _make(job: bytes, share: tuple[int, int], news: "Queue[News]") -> None:
    """What a worker does."""
    model, blank, how = pickle.loads(job)
    generate(model, blank, share=share, on_step=lambda *said: news.put(said), on_estimate=news.put, **how)


def _portable(model: Model) -> Model:
    """A copy on the CPU, of the weights alone: what was compiled cannot be sent."""
    denoiser = denoiser_of(model.denoiser.config, model.denoiser.diffusion)
    denoiser.load_state_dict(model.denoiser.state_dict())
    return replace(model, denoiser=denoiser.eval().requires_grad_(False))


def _portable_request(request: Request) -> Request:
    guide = request.guidance.model
    return request if guide is None else replace(request, guidance=replace(request.guidance, model=_portable(guide)))
