"""Many runs of a protocol into a dataset folder, shard by shard; what was interrupted goes on.

A cell is a function of (protocol, seed of the campaign, its index): the same whatever `n`, the shards, the process or
machine that ran it, or when it was interrupted. What lies in the folder is `folder`'s matter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from amden import shard
from amden.random import spawn_seeds
from amden.simulate.engines import BuiltIn, CampaignEngine, choose_device
from amden.simulate.folder import CampaignFolder, joined, origin_of
from amden.simulate.protocol import Protocol
from amden.simulate.screening import screened
from amden.simulate.snapshot import StateFile

POLL: Final = 5.0
"""Seconds between looks at what other processes have done."""


@dataclass(frozen=True)
class Progress:
    """How far a campaign is, told after every launch of the engine; of an executor's, where their states are seen."""

    n: int
    """Cells asked for."""
    done: int
    """Cells on disk or set aside."""
    failed: int
    """Cells set aside so far."""
    batch: int
    """Cells under way, those that wait to go on included."""
    steps: int
    """Steps each of them has done, in the mean."""
    note: str = ""
    """What else there is to say, once."""


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
    workers: int = 1,
    save_every: float = 60.0,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Campaign:
    """Run cells 0 to `n` of a campaign into the folder `out`, leaving out those already there.

    `engine` is amden's own on `device` when left out. `part` (i, m) runs the i-th of m equal parts of the cells: parts
    may be run by several processes or machines at once, into the same folder or into others that `merge_campaigns`
    brings together. An `executor`, any of `concurrent.futures`, gets the batches; only this process writes shards.
    (Its processes must not be forked from one that has computed already: PyTorch's threads do not survive that.)
    `batch_size` is the number of cells a shard; it changes no cell. When left out it is chosen for the engine, and so
    that there is work for as many `workers` as the executor has.

    A cell that blows up, crystallises or evaporates is set aside with the reason; nothing takes its place. The state
    of a batch is saved every `save_every` seconds and when interrupted, and what was interrupted goes on from it, bit
    for bit on the same kind of device.

    Errors: `ValueError` if the folder holds a campaign of another protocol, seed or engine, or shards of something
    else, if another process is writing these cells, or if a batch under way has only some of them; `OSError` where a
    process of the executor died.
    """
    for name, value in {"n": n, "batch_size": 1 if batch_size is None else batch_size, "workers": workers}.items():
        if value < 1:
            raise ValueError(f"`{name}` must be positive, got {value}")
    cells = cells_of_part(n, part)
    engine, folder = engine or BuiltIn(choose_device(device)), CampaignFolder(out)
    spawn_seeds(seed, 0)
    origin = origin_of(protocol, seed, engine.name)
    folder.require(origin)
    with folder.claimed(cells) as claim:
        claim.tidy()
        folder.require_whole(cells)
        claim.write_manifest(origin, n)
        size = batch_size or _shared(len(cells) - folder.covered(cells), workers, engine.batch_size(protocol))
        found = folder.missing(cells, size)
        batches = [Batch(protocol, seed, each, engine, folder.state(each), save_every) for each in found]
        account = _Account(folder, cells, progress)
        account.opened(batches)
        for outcome in _outcomes(batches, executor, account.launched):
            claim.write_shard(outcome.cells, outcome.content)
            claim.write_manifest(origin, n)
            account.finished(outcome.cells)
    return Campaign(folder.path, sum(map(len, folder.shards())), folder.failures())


def _shared(left: int, workers: int, most: int) -> int:
    """Cells of a batch, where so many are left to share out."""
    return max(1, min(most, -(-left // workers)))


class _Account:
    """Tells how far a campaign is: what its folder holds, and what the batches under way have done."""

    def __init__(self, folder: CampaignFolder, cells: range, progress: Callable[[Progress], None]) -> None:
        self._folder, self._cells, self._progress = folder, cells, progress
        self._under_way: dict[range, tuple[int, int]] = {}
        self._look()

    def _look(self) -> None:
        self._done, self._failed = self._folder.covered(self._cells), len(self._folder.failures())

    def _tell(self, note: str = "") -> None:
        n = sum(map(len, self._under_way))
        steps = sum(len(cells) * steps for cells, (steps, _) in self._under_way.items()) // max(n, 1)
        failed = self._failed + sum(lost for _, lost in self._under_way.values())
        self._progress(Progress(len(self._cells), self._done, failed, n, steps, note))

    def opened(self, batches: "Sequence[Batch]") -> None:
        """What is left of earlier runs counts from the start, so that it is not taken for the speed of this one."""
        notes = [note for batch in batches if batch.begun and (note := batch.keeper().put_aside())]
        self._under_way = {batch.cells: found for batch in batches if (found := batch.seen())}
        self._tell()
        for note in notes:
            self._tell(note)

    def launched(self, cells: range, steps: int, lost: int) -> None:
        """A batch has come so far."""
        if self._under_way.get(cells) != (steps, lost):
            self._under_way[cells] = steps, lost
            self._tell()

    def finished(self, cells: range) -> None:
        """A batch lies in the folder."""
        self._under_way.pop(cells, None)
        self._look()
        self._tell()


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

    @property
    def begun(self) -> bool:
        """Whether a state of it was saved."""
        return self.state.is_file()

    def seen(self) -> tuple[int, int] | None:
        """Steps done and cells lost, as far as its state tells."""
        return self.keeper().progress() if self.begun else None

    def keeper(self, machine: Mapping[str, Any] | None = None) -> StateFile:
        """Who looks after its state; the wording of the protocol does not count."""
        origin = origin_of(replace(self.protocol, doc=""), self.seed, self.engine.name)
        origin = {**origin, "cells": [self.cells.start, self.cells.stop]}
        return StateFile(self.state, origin=origin, machine=machine, every=self.save_every)

    def run(self, on_launch: Callable[[int, int], None] = lambda steps, failed: None) -> Outcome:
        """Run the cells, screen them, and pack what is left into a shard."""
        origin = origin_of(self.protocol, self.seed, self.engine.name)
        keeper = self.keeper(self.engine.about())
        seeds = spawn_seeds(self.seed, len(self.cells), first=self.cells.start).tolist()
        kept = keeper if self.state.parent.is_dir() else None
        found = self.engine.run(self.protocol, seeds, on_launch=on_launch, numbers=self.cells, keeper=kept)
        runs = screened(self.protocol, found)
        index = torch.tensor([self.cells[place] for place in runs.kept], dtype=torch.float64)
        frames = replace(runs.structures, properties={**runs.structures.properties, "index": index})
        failures = {str(self.cells[place]): why for place, why in sorted(runs.failures.items())}
        provenance = {**origin, **joined(keeper.machines), "failures": failures}
        return Outcome(self.cells, shard.encoded(frames, provenance=provenance))


def _outcomes(
    batches: Sequence[Batch], executor: Executor | None, launched: Callable[[range, int, int], None]
) -> Iterator[Outcome]:
    """Batches as they are finished: here, one after the other, or by the executor."""
    if executor is None:
        for batch in batches:
            launched(batch.cells, *(batch.seen() or (0, 0)))
            yield batch.run(partial(launched, batch.cells))
        return
    waiting: dict[Future[Outcome], Batch] = {}
    try:
        waiting = {executor.submit(Batch.run, batch): batch for batch in batches}
        while waiting:
            done, _ = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda f: f.exception() is not None):
                del waiting[future]
                yield future.result()
            for batch in waiting.values():
                if found := batch.seen():
                    launched(batch.cells, *found)
    except BrokenExecutor:
        raise OSError("a worker process died, killed or out of memory; finished cells are kept") from None
    finally:
        for future in waiting:
            future.cancel()
