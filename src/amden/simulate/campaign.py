"""Many runs of a protocol into a dataset folder, shard by shard; what was interrupted goes on.

A cell is a function of (protocol, seed of the campaign, its index): the same whatever `n`, the shards, the process or
machine that ran it, or when it was interrupted. What lies in the folder is `folder`'s matter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amden import shard
from amden.random import spawn_seeds
from amden.simulate.engines import BuiltIn, CampaignEngine, choose_device
from amden.simulate.folder import CampaignFolder, origin_of, require_same
from amden.simulate.protocol import Protocol
from amden.simulate.screening import screened
from amden.simulate.snapshot import StateFile


@dataclass(frozen=True)
class Progress:
    """How far a campaign is, told after every launch of the engine."""

    n: int
    """Cells asked for."""
    done: int
    """Cells on disk or set aside."""
    failed: int
    """Cells set aside so far."""
    batch: int
    """Cells under way in this process."""
    steps: int
    """Steps each of them has done."""


@dataclass(frozen=True)
class Campaign:
    """What a campaign left on disk."""

    folder: Path
    n: int
    """Cells run, those of earlier calls and other processes included."""
    failures: Mapping[int, str]
    """Why a cell was set aside, by its index."""


def run_campaign(
    protocol: Protocol,
    *,
    n: int,
    seed: int,
    out: str | Path,
    device: str = "auto",
    engine: CampaignEngine | None = None,
    part: tuple[int, int] = (1, 1),
    batch_size: int | None = None,
    executor: Executor | None = None,
    save_every: float = 60.0,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Campaign:
    """Run cells 0 to `n` of a campaign into the folder `out`, leaving out those already there.

    `engine` is amden's own on `device` when left out. `part` (i, m) runs the i-th of m equal parts of the cells: parts
    may be run by several processes or machines at once, into the same folder or into others that `merge_campaigns`
    brings together. An `executor`, any of `concurrent.futures`, gets the batches; only this process writes shards.
    (Its processes must not be forked from one that has computed already: PyTorch's threads do not survive that.)
    `batch_size` is the number of cells a shard, chosen for the engine when left out; it changes no cell.

    A cell that blows up, crystallises or evaporates is set aside with the reason; nothing takes its place. The state
    of a batch is saved every `save_every` seconds, and what was interrupted goes on from it, bit for bit.

    Errors: `ValueError` if the folder holds a campaign of another protocol, seed or engine, or shards of something
    else, or if another process is writing these cells; `OSError` where a process of the executor died.
    """
    if n < 1:
        raise ValueError(f"`n` must be positive, got {n}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"`batch_size` must be positive, got {batch_size}")
    cells = cells_of_part(n, part)
    engine, folder = engine or BuiltIn(choose_device(device)), CampaignFolder(out)
    spawn_seeds(seed, 0)
    origin = origin_of(protocol, seed, engine.name)
    require_same(folder.path, folder.origin() or origin, origin)
    with folder.claimed(cells) as claim:
        claim.tidy()
        claim.write_manifest(origin, n)
        batches = [
            Batch(protocol, seed, batch, engine, folder.state(batch), save_every)
            for batch in folder.missing(cells, batch_size or engine.batch_size)
        ]
        state = Progress(len(cells), folder.covered(cells), len(folder.failures()), 0, 0)
        progress(state)

        def show(batch: Batch, steps: int, lost: int) -> None:
            progress(replace(state, failed=state.failed + lost, batch=len(batch.cells), steps=steps))

        for outcome in _outcomes(batches, executor, show):
            claim.write_shard(outcome.cells, outcome.content)
            claim.write_manifest(origin, n)
            state = replace(state, done=folder.covered(cells), failed=len(folder.failures()))
            progress(state)
    return Campaign(folder.path, sum(map(len, folder.shards())), folder.failures())


def cells_of_part(n: int, part: tuple[int, int]) -> range:
    """Cells of the i-th of m parts of `n` cells.

    >>> [cells_of_part(10, (i, 3)) for i in (1, 2, 3)]
    [range(0, 3), range(3, 6), range(6, 10)]
    """
    i, m = part
    if not 1 <= i <= m:
        raise ValueError(f"`part` must be i of m with 1 ≤ i ≤ m, got {i} of {m}")
    return range(n * (i - 1) // m, n * i // m)


@dataclass(frozen=True)
class Outcome:
    """A finished batch, ready to be written."""

    cells: range
    content: bytes
    """The shard."""


@dataclass(frozen=True)
class Batch:
    """Cells to run together: what an executor gets. It writes nothing but its state, where the folder is in reach."""

    protocol: Protocol
    seed: int
    cells: range
    engine: CampaignEngine
    state: Path
    save_every: float

    def run(self, on_launch: Callable[[int, int], None] = lambda steps, failed: None) -> Outcome:
        """Run the cells, screen them, and pack what is left into a shard."""
        origin = origin_of(self.protocol, self.seed, self.engine.name)
        about = dict(self.engine.about())
        keeper = None
        if self.state.parent.is_dir():
            kept_for = {**origin, "cells": [self.cells.start, self.cells.stop], **about}
            keeper = StateFile(self.state, origin=kept_for, every=self.save_every)
        seeds = spawn_seeds(self.seed, len(self.cells), first=self.cells.start).tolist()
        found = self.engine.run(self.protocol, seeds, on_launch=on_launch, numbers=self.cells, keeper=keeper)
        runs = screened(self.protocol, found)
        index = torch.tensor([self.cells[place] for place in runs.kept], dtype=torch.float64)
        frames = replace(runs.structures, properties={**runs.structures.properties, "index": index})
        failures = {str(self.cells[place]): why for place, why in sorted(runs.failures.items())}
        return Outcome(self.cells, shard.encoded(frames, provenance={**origin, **about, "failures": failures}))


def _outcomes(
    batches: Sequence[Batch], executor: Executor | None, show: Callable[[Batch, int, int], None]
) -> Iterator[Outcome]:
    """Batches as they are finished: here, one after the other, or by the executor."""
    if executor is None:
        for batch in batches:
            show(batch, 0, 0)
            yield batch.run(lambda steps, lost, batch=batch: show(batch, steps, lost))
        return
    waiting: set[Any] = set()
    try:
        waiting = {executor.submit(Batch.run, batch) for batch in batches}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in sorted(done, key=lambda f: f.exception() is not None))
    except BrokenExecutor:
        raise OSError("a worker process died, killed or out of memory; finished cells are kept") from None
    finally:
        for future in waiting:
            future.cancel()
