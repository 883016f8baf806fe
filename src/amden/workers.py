"""Who runs the batches of a campaign: this process, others beside it that share out the GPUs, or a dask cluster."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue

import numba
import torch

SCHEDULER_ANSWERS_IN = 20.0
"""Seconds."""

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """What CUDA calls the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES where that is set."""
    n = torch.cuda.device_count()
    named = os.environ.get(_VISIBLE)
    return [str(i) for i in range(n)] if named is None else [name.strip() for name in named.split(",")[:n]]


@contextmanager
def batch_executor(*, workers: int, dask: str | None = None, gpus: Sequence[str] = ()) -> Iterator[Executor | None]:
    """So many local processes, which take the `gpus` in turn, or the dask cluster at an address; None where there is
    one worker alone, which is this process."""
    if dask is not None:
        yield from _dask_executor(dask)
    elif workers > 1:
        context = multiprocessing.get_context("spawn")
        threads, turns = max(1, (os.cpu_count() or 1) // workers), context.SimpleQueue()
        for i in range(workers):
            turns.put(gpus[i % len(gpus)] if gpus else None)
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(threads, turns)) as pool:
            yield pool
    else:
        yield None


def _prepare(threads: int, turns: "SimpleQueue[str | None]") -> None:
    """A worker process, before it touches CUDA: its own GPU, its share of the threads, a silent end with Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gpu = turns.get()
    if gpu is not None:
        os.environ[_VISIBLE] = gpu
    numba.set_num_threads(threads)


def _dask_executor(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise ValueError("`--dask` needs dask: pip install 'amden[dask]'") from error
    try:
        client = Client(address, timeout=SCHEDULER_ANSWERS_IN)
    except (OSError, ValueError) as error:
        raise ValueError(f"`--dask`: no scheduler answers at {address!r}") from error
    with client:
        try:
            yield client.get_executor()
        except KilledWorker as error:
            raise OSError("a dask worker died again and again; finished cells are kept") from error
