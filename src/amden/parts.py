"""Finished batches of a generation and the state of the unfinished one, kept beside the output so that an interrupted
generation goes on."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from amden import storage
from amden.diffusion.denoiser import Sample
from amden.diffusion.hmc import HMCRecord, HMCState
from amden.structure import Structures

_ARRAYS = ("positions", "species", "cell", "n_atoms")
_PROPERTY = "property."
_RECORD = ("t", "energy", "probability", "step")


@dataclass(frozen=True, eq=False)
class BatchState:
    """A batch on its way: all that going on needs, as its random numbers are functions of seed and step."""

    steps_done: int
    n_systems: int
    positions: Float[Tensor, "atoms 3"]
    elements: Float[Tensor, "atoms classes"]
    hmc: HMCState | None

    @staticmethod
    def at(steps_done: int, sample: Sample, hmc: HMCState | None) -> "BatchState":
        """The state after some steps."""
        return BatchState(steps_done, len(sample), sample.positions, sample.elements, hmc)

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> "BatchState":
        """The state that is in these tensors."""
        hmc = None
        if "hmc.next" in tensors:
            hmc = HMCState(tensors["hmc.next"], HMCRecord(*(tensors[f"hmc.{name}"] for name in _RECORD)))
        steps_done, n_systems = (int(n) for n in tensors["counts"])
        return BatchState(steps_done, n_systems, tensors["positions"], tensors["elements"], hmc)

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors, to be written."""
        found = {"counts": torch.tensor([self.steps_done, self.n_systems])}
        found |= {"positions": self.positions, "elements": self.elements}
        if self.hmc is not None:
            found |= {"hmc.next": self.hmc.step, **{f"hmc.{name}": getattr(self.hmc.record, name) for name in _RECORD}}
        return found


class Parts:
    """A hidden folder beside the output, with one file a batch; bits are kept as they are.

    Batches of another `request` (model, seed, cells, settings: any JSON mapping) are not ours and are removed.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> atom = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.0 * torch.eye(3)[None], torch.tensor([1]))
    >>> with TemporaryDirectory() as folder:
    ...     Parts(Path(folder) / "glass.extxyz", {"seed": 1}).save(4, atom)
    ...     sorted(Parts(Path(folder) / "glass.extxyz", {"seed": 1}).load())
    ...     sorted(Parts(Path(folder) / "glass.extxyz", {"seed": 2}).load())
    [4]
    []
    """

    def __init__(self, out: Path, request: Mapping[str, Any]) -> None:
        self.folder = out.with_name(f".{out.name}.parts")
        self._request = json.loads(json.dumps(request))

    def save(self, first: int, structures: Structures) -> None:
        """Keep a batch whose first structure has this number."""
        tensors = {name: getattr(structures, name) for name in _ARRAYS}
        tensors |= {_PROPERTY + name: values for name, values in structures.properties.items()}
        storage.write(self.folder / f"{first:07d}.safetensors", tensors, {"request": self._request})
        self._state(first).unlink(missing_ok=True)

    def save_state(self, first: int, state: BatchState) -> None:
        """Keep the state of a batch on its way, instead of an earlier one."""
        storage.write(self._state(first), state.tensors(), {"request": self._request})

    def load_state(self, first: int) -> BatchState | None:
        """The state of a batch on its way, if one was kept; of another request it is removed.

        Errors: `ValueError` for a file that is damaged.
        """
        path = self._state(first)
        if not path.exists():
            return None
        stored = _read(path)
        if (stored.header or {}).get("request") == self._request:
            return BatchState.of(stored.tensors)
        path.unlink()
        return None

    def forget_state(self, first: int) -> None:
        """Begin a batch anew."""
        self._state(first).unlink(missing_ok=True)

    def _state(self, first: int) -> Path:
        return self.folder / f"{first:07d}.state"

    def load(self) -> dict[int, Structures]:
        """The batches kept, by the number of their first structure.

        Errors: `ValueError` for a file that is damaged.
        """
        kept = {}
        for path in self.folder.glob("*.safetensors"):
            stored = _read(path)
            if (stored.header or {}).get("request") == self._request:
                positions, species, cell, n_atoms = (stored.tensors[name] for name in _ARRAYS)
                told = {k.removeprefix(_PROPERTY): v for k, v in stored.tensors.items() if k.startswith(_PROPERTY)}
                kept[int(path.stem)] = Structures(positions, species, cell, n_atoms, told)
            else:
                path.unlink()
        return kept

    def remove(self) -> None:
        """Forget the batches: the output is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


class StateKeeper:
    """The state of one batch in `parts`: what was kept of it, and a new one now and then; nothing without `parts`."""

    def __init__(self, parts: Parts | None, first: int, *, every: float) -> None:
        self._parts, self._first, self._every, self._last = parts, first, every, time.monotonic()
        self.state = None if parts is None else parts.load_state(first)
        self.steps_done = 0 if self.state is None else self.state.steps_done
        self.n_systems = None if self.state is None else self.state.n_systems

    def now(self, state: Callable[[], BatchState]) -> None:
        """Keep the state if the last one is older than `every` seconds."""
        if self._parts is not None and time.monotonic() - self._last >= self._every:
            self._parts.save_state(self._first, state())
            self._last = time.monotonic()

    def forget(self) -> None:
        """Begin the batch anew."""
        if self._parts is not None:
            self._parts.forget_state(self._first)


def _read(path: Path) -> storage.Stored:
    try:
        return storage.read(path)
    except ValueError as error:
        raise ValueError(f"{error}; remove it, and its batch begins anew") from None
