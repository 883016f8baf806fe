"""Campaigns by executors of `concurrent.futures`: local processes, and dask's scheduler with workers."""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import pytest

from amden.simulate.campaign import run_campaign
from amden.simulate.protocol import find_protocol
from fakes import Fake

MELT = find_protocol("si-melt")


@dataclass(frozen=True)
class Deadly(Fake):
    """Kills its process."""

    def run(self, protocol, seeds, *, on_launch, keeper=None):
        os.kill(os.getpid(), signal.SIGKILL)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(folder, executor=None, engine=None, **options):
    return run_campaign(MELT, n=11, seed=1, out=folder, engine=engine or Fake(), executor=executor, **options)


@pytest.fixture
def straight(tmp_path):
    run(tmp_path / "straight")
    return content(tmp_path / "straight")


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def test_a_pool_of_processes_writes_the_same_bytes(tmp_path, pool, straight):
    told = []
    run(tmp_path / "pool", pool, progress=told.append)
    assert content(tmp_path / "pool") == straight
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == 11


def test_a_worker_that_dies_is_told_and_nothing_finished_is_lost(tmp_path, pool, straight):
    with pytest.raises(OSError, match="a worker process died, killed or out of memory; finished cells are kept"):
        run(tmp_path / "pool", pool, Deadly())
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
