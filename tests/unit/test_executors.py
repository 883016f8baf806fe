"""Campaigns by executors of `concurrent.futures`: local processes, and dask's scheduler with workers."""

import multiprocessing
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor

import pytest

from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from fakes import Fake

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
