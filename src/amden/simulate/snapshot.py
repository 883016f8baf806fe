"""A batch between two launches of the engine: enough to go on from there, bit for bit.

What is kept when, and where, is decided by a `Keeper`; `StateFile` is the one that writes to a disk.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch

from amden import storage
from amden.simulate.engine import MDState

KIND: Final = "state of a simulation"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A batch after some of its launches."""

    launches: int
    """Launches done."""
    stage: int
    """Number of the stage to go on with."""
    step: int
    """Steps of it that are done."""
    state: MDState
    """The cells still running; those of the last launch where none is left."""
    measured: Mapping[str, np.ndarray]
    """What is known of them so far (`batch.Batch.measured`)."""
    failures: Mapping[int, str]
    """Why the others were lost, by their place in the batch."""


@runtime_checkable
class Keeper(Protocol):
    """Who looks after a batch while it runs."""

    def load(self) -> Snapshot | None:
        """Where to go on; None: from the start."""
        ...

    def offer(self, snapshot: Snapshot) -> None:
        """Called after every launch; to be kept, or not."""
        ...


class StateFile:
    """Keeps the newest snapshot in a file, at most every `every` seconds.

    `origin` is any JSON mapping that says what is being run: a file of another origin, or one that is damaged, is not
    gone on with.
    """

    def __init__(self, path: Path, *, origin: Mapping[str, Any], every: float = 60.0) -> None:
        self.path = path
        self._origin = json.loads(json.dumps(origin))
        self._every = every
        self._last = time.monotonic()

    def load(self) -> Snapshot | None:
        """The snapshot in the file, if it is of this run."""
        try:
            stored = storage.read(self.path)
        except (FileNotFoundError, ValueError):
            return None
        header = stored.header or {}
        if header.get("kind") != KIND or header["origin"] != self._origin or "stage" not in header:
            return None
        arrays = {name: values.numpy() for name, values in stored.tensors.items()}
        state = MDState(**{f.name: arrays.pop(f"state.{f.name}") for f in fields(MDState)})
        measured = {name.removeprefix("measured."): values for name, values in arrays.items()}
        failures = {int(i): why for i, why in header["failures"].items()}
        return Snapshot(header["launches"], header["stage"], header["step"], state, measured, failures)

    def offer(self, snapshot: Snapshot) -> None:
        """Write it, if the last one is old enough."""
        if time.monotonic() - self._last < self._every:
            return
        arrays = {f"state.{f.name}": getattr(snapshot.state, f.name) for f in fields(MDState)}
        arrays |= {f"measured.{name}": values for name, values in snapshot.measured.items()}
        header = {
            "kind": KIND,
            "origin": self._origin,
            "launches": snapshot.launches,
            "stage": snapshot.stage,
            "step": snapshot.step,
            "failures": {str(place): why for place, why in snapshot.failures.items()},
        }
        storage.write(self.path, {name: torch.from_numpy(values) for name, values in arrays.items()}, header)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Forget what was kept."""
        self.path.unlink(missing_ok=True)
