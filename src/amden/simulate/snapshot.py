"""A batch between two launches of the engine: enough to go on from there, bit for bit.

What is kept when, and where, is decided by a `Keeper`; `StateFile` is the one that writes to a disk.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch

from amden import storage
from amden.simulate.engine import MDState

KIND: Final = "state of a simulation"
LAYOUT: Final = 3
"""Of what is kept: a file of another layout is not gone on with."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A batch after some of its launches."""

    launches: int
    """Launches done."""
    stage: int
    """Number of the stage to go on with, or of the first of a leg (`adaptation.Leg`)."""
    step: int
    """Steps of it that are done, where they are the same for all cells."""
    told: int
    """Steps done in all stages, as `run_protocol` tells them."""
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

    def keep(self, snapshot: Snapshot) -> None:
        """Called with the newest one when the run is interrupted; to be kept."""
        ...


class StateFile:
    """Keeps the newest snapshot in a file, at most every `every` seconds.

    `origin` is any JSON mapping that says what the cells are a function of: a file of another origin, or one that is
    damaged, is not gone on with. `machine` says what runs them here; the file tells all machines that did.
    """

    def __init__(
        self, path: Path, *, origin: Mapping[str, Any], machine: Mapping[str, Any] | None = None, every: float = 60.0
    ) -> None:
        self.path = path
        self._origin = json.loads(json.dumps(origin))
        self._machines: list[Mapping[str, Any]] = [json.loads(json.dumps(machine or {}))]
        self._every = every
        self._last = time.monotonic()
        self._written: Snapshot | None = None

    @property
    def machines(self) -> Sequence[Mapping[str, Any]]:
        """All that have worked on these cells, this one included."""
        return self._machines

    def load(self) -> Snapshot | None:
        """The snapshot in the file, if it is of this run."""
        try:
            stored = storage.read(self.path)
        except (FileNotFoundError, ValueError):
            return None
        header = stored.header or {}
        if self._fault(header):
            return None
        before = header["machines"]
        self._machines = [*before, *(each for each in self._machines if each not in before)]
        arrays = {name: values.numpy() for name, values in stored.tensors.items()}
        state = MDState(**{f.name: arrays.pop(f"state.{f.name}") for f in fields(MDState)})
        measured = {name.removeprefix("measured."): values for name, values in arrays.items()}
        failures = {int(i): why for i, why in header["failures"].items()}
        numbers = {name: header[name] for name in ("launches", "stage", "step", "told")}
        return Snapshot(**numbers, state=state, measured=measured, failures=failures)

    def progress(self) -> tuple[int, int] | None:
        """Steps done and cells lost according to the file, without its arrays; None where there is none of this run."""
        try:
            header = storage.read_header(self.path) or {}
        except (FileNotFoundError, ValueError):
            return None
        return None if self._fault(header) else (header["told"], len(header["failures"]))

    def put_aside(self) -> str | None:
        """Rename a file that cannot be gone on with, so that it is not written over; what there is to say of it."""
        try:
            why = self._fault(storage.read_header(self.path) or {})
        except FileNotFoundError:
            return None
        except ValueError:
            why = "is truncated or damaged"
        if why is None:
            return None
        aside = self.path.with_name(f"{self.path.name}.old")
        self.path.replace(aside)
        return f"{self.path} {why}: its cells begin anew, and it is kept as {aside.name}"

    def _fault(self, header: Mapping[str, Any]) -> str | None:
        """Why a file with this header is not gone on with."""
        if header.get("kind") != KIND or "origin" not in header:
            return "is no state of a simulation"
        if header.get("layout") != LAYOUT:
            return "was written by another version of amden"
        return None if header["origin"] == self._origin else "is of other cells"

    def offer(self, snapshot: Snapshot) -> None:
        """Write it, if the last one is old enough."""
        if time.monotonic() - self._last >= self._every:
            self.keep(snapshot)

    def keep(self, snapshot: Snapshot) -> None:
        """Write it, if that was not done."""
        if snapshot is self._written:
            return
        arrays = {f"state.{f.name}": getattr(snapshot.state, f.name) for f in fields(MDState)}
        arrays |= {f"measured.{name}": values for name, values in snapshot.measured.items()}
        header = {
            "kind": KIND,
            "layout": LAYOUT,
            "origin": self._origin,
            "machines": self._machines,
            "launches": snapshot.launches,
            "stage": snapshot.stage,
            "step": snapshot.step,
            "told": snapshot.told,
            "failures": {str(place): why for place, why in snapshot.failures.items()},
        }
        storage.write(self.path, {name: torch.from_numpy(values) for name, values in arrays.items()}, header)
        self._last, self._written = time.monotonic(), snapshot

    def remove(self) -> None:
        """Forget what was kept."""
        self.path.unlink(missing_ok=True)
