"""Who runs the cells of a campaign: the seam between `campaign` and the engines, and amden's own behind it.

The others are in `lammps` and `ase_engine`.
"""

import platform
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from os import cpu_count
from typing import Any

import numba
import numpy as np
import torch

from amden import __version__
from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.protocol import Protocol
from amden.simulate.runs import Device, Runs, run_protocol
from amden.simulate.snapshot import Keeper


@typing.runtime_checkable
class CampaignEngine(typing.Protocol):
    """What a campaign needs of an engine. Instances can be pickled: a campaign may send them to other processes."""

    @property
    def name(self) -> str:
        """What cells depend on beside protocol and seed: those of another name do not go into the same folder."""
        ...

    def batch_size(self, protocol: Protocol) -> int:
        """Cells of a protocol that are best run together."""
        ...

    def about(self) -> Mapping[str, Any]:
        """Machine and versions, for the record."""
        ...

    def run(
        self,
        protocol: Protocol,
        seeds: Sequence[int],
        *,
        on_launch: Callable[[int, int], None],
        numbers: Sequence[int] | None = None,
        keeper: Keeper | None = None,
    ) -> Runs:
        """A cell for each seed, whatever the others do; the others as in `run_protocol`."""
        ...


@dataclass(frozen=True)
class BuiltIn:
    """amden's own engine."""

    device: Device

    @property
    def name(self) -> str:
        """The same on every device: cells of the CPU and of CUDA are alike, though not bit for bit."""
        return "amden"

    def batch_size(self, protocol: Protocol) -> int:
        """Some tens of seconds of work on the CPU; on CUDA, a block a cell and so many that the last ones to end, which
        leave multiprocessors idle, are few among them. Of a long-ranged potential fewer, as they take longer: a shard
        is to be done now and then."""
        if self.device == "cpu":
            return 8 * (cpu_count() or 1)
        cells = 8 if isinstance(protocol.interaction, LongRanged) else 40
        return cells * torch.cuda.get_device_properties(0).multi_processor_count

    def about(self) -> Mapping[str, Any]:
        """The processor, and what it computes with."""
        name = torch.cuda.get_device_name(0) if self.device == "cuda" else processor()
        return {"device": name, "versions": versions(numba=numba.__version__)}

    def run(
        self,
        protocol: Protocol,
        seeds: Sequence[int],
        *,
        on_launch: Callable[[int, int], None],
        numbers: Sequence[int] | None = None,
        keeper: Keeper | None = None,
    ) -> Runs:
        """See `run_protocol`."""
        return run_protocol(protocol, seeds, device=self.device, numbers=numbers, on_launch=on_launch, keeper=keeper)


def choose_device(device: str) -> Device:
    """Where to simulate: `auto` is CUDA where there is a GPU and `numba-cuda`, else the CPU.

    >>> choose_device("cpu")
    'cpu'
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"`device` must be 'auto', 'cpu' or 'cuda', got {device!r}")
    usable = torch.cuda.is_available() and find_spec("numba_cuda") is not None
    if device == "cuda" and not usable:
        raise ValueError("`device` is 'cuda', but there is no GPU or no numba-cuda: pip install 'amden[cuda]'")
    return "cuda" if usable and device != "cpu" else "cpu"


def processor() -> str:
    """What this machine calls its processor."""
    return platform.processor() or platform.machine()


def versions(**others: str) -> dict[str, str]:
    """Versions of what cells depend on."""
    own = {"amden": __version__, "numpy": np.__version__, "python": platform.python_version()}
    return dict(sorted({**own, **others}.items()))
