"""Campaigns by executors of `concurrent.futures`: local processes, and dask's scheduler with workers."""

import multiprocessing
import os
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event

import pytest
import torch

from amden.simulate import campaign
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.runs import random_start
from amden.simulate.snapshot import Snapshot
from amden.workers import batch_executor, visible_gpus
from fakes import Fake, gpu_of_worker

MELT = find_protocol("si-melt")


class Broken(Executor):
    """The second batch kills its process, as a process pool would tell it."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.n = getattr(self, "n", 0) + 1
        if self.n == 2:
            future.set_exception(BrokenExecutor("a process was terminated abruptly"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(folder, executor=None, **options):
    return run_campaign(MELT, n=11, seed=1, out=folder, engine=Fake(), executor=executor, **options)


@pytest.fixture
def straight(tmp_path):
    run(tmp_path / "straight")
    return content(tmp_path / "straight")


def test_a_pool_of_processes_writes_the_same_bytes(tmp_path, straight):
    told = []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        run(tmp_path / "pool", pool, progress=told.append)
    assert content(tmp_path / "pool") == straight
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == 11


def test_a_worker_that_dies_is_told_and_nothing_finished_is_lost(tmp_path, straight):
    with pytest.raises(OSError, match="a worker process died, killed or out of memory; finished cells are kept"):
        run(tmp_path / "pool", Broken())
    assert len(content(tmp_path / "pool")) == 4  # two shards of three, the manifest, the lock
    run(tmp_path / "pool")
    assert content(tmp_path / "pool") == straight


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_dask_writes_the_same_bytes(tmp_path, straight):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        run(tmp_path / "dask", client.get_executor())
        assert len(client.scheduler_info()["workers"]) == 2
    assert content(tmp_path / "dask") == straight


def test_what_others_do_is_seen_from_their_states(tmp_path, monkeypatch):
    """An engine that does not go on before somebody has seen what it did."""
    monkeypatch.setattr(campaign, "POLL", 0.01)
    engine, told = Patient(size=2), []

    def show(now):
        told.append((now.done, now.batch, now.steps, now.failed))
        if now.batch and now.steps:
            engine.seen.set()

    with ThreadPoolExecutor(1) as pool:
        run_campaign(MELT, n=4, seed=1, out=tmp_path, engine=engine, executor=pool, save_every=0.0, progress=show)
    failed = told[-1][3]
    assert (0, 2, 1234, 1) in told
    assert told[-1] == (4, 0, 0, failed)
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)


@dataclass(frozen=True)
class Patient(Fake):
    """Keeps a state, and waits until it was seen."""

    seen: Event = field(default_factory=Event)

    def run(self, protocol, seeds, *, on_launch, numbers=None, keeper=None):
        if 0 in numbers:
            state = random_start(replace(protocol, n_atoms=64), seeds, numbers)
            keeper.offer(Snapshot(1, 0, 1234, 1234, state, {}, {1: "fell over"}))
            assert self.seen.wait(60.0)
        return super().run(protocol, seeds, on_launch=on_launch, numbers=numbers)


@pytest.mark.parametrize(
    ("given", "n", "gpus"),
    [(None, 0, []), (None, 2, ["0", "1"]), ("3, 5", 2, ["3", "5"]), ("", 0, []), ("4,-1,5", 1, ["4"])],
)
def test_gpus_are_those_that_are_visible(monkeypatch, given, n, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == gpus


@pytest.mark.parametrize(("gpus", "found"), [(["3", "5"], ["3", "3", "5"]), ([], ["as it was"] * 3)])
def test_workers_take_the_gpus_in_turn(tmp_path, monkeypatch, gpus, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")
    with batch_executor(workers=3, gpus=gpus) as pool:
        futures = [pool.submit(gpu_of_worker, tmp_path, 3) for _ in range(3)]
        told = [future.result() for future in futures]
    assert sorted(gpu for gpu, _ in told) == found
    assert {threads for _, threads in told} == {max(1, (os.cpu_count() or 1) // 3)}


def test_one_worker_is_this_process():
    with batch_executor(workers=1, gpus=["0", "1"]) as executor:
        assert executor is None
