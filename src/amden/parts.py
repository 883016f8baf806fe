"""Finished batches of a generation and the state of the unfinished one, kept beside the output so that an interrupted
generation goes on."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden import storage
from amden.diffusion.denoiser import Sample
from amden.diffusion.hmc import HMCRecord, HMCState
from amden.structure import Structures

_ARRAYS = ("positions", "species", "cell", "n_atoms")
_PROPERTY = "property."
_RECORD = ("t", "energy", "probability", "step")
_SHORT = 40
"""Characters of a value that errors show."""


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

    def part(self, chosen: range, n_atoms: Int[Tensor, " systems"]) -> "BatchState":
        """That of some systems, where all have so many atoms."""
        own, hmc = slice(chosen.start, chosen.stop), None
        atoms = slice(int(n_atoms[: chosen.start].sum()), int(n_atoms[: chosen.stop].sum()))
        if self.hmc is not None:
            record = self.hmc.record
            columns = (getattr(record, name)[:, own] for name in _RECORD[1:])
            hmc = HMCState(self.hmc.step[own], HMCRecord(record.t, *columns))
        return BatchState(self.steps_done, len(chosen), self.positions[atoms], self.elements[atoms], hmc)

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors, to be written."""
        found = {"counts": torch.tensor([self.steps_done, self.n_systems])}
        found |= {"positions": self.positions, "elements": self.elements}
        if self.hmc is not None:
            found |= {"hmc.next": self.hmc.step, **{f"hmc.{name}": getattr(self.hmc.record, name) for name in _RECORD}}
        return found


class Parts:
    """A hidden folder beside the output, with one file a batch; bits are kept as they are. Several processes may keep
    theirs at a time.

    Batches of another `request` (model, seed, cells, settings: any JSON mapping) are not ours, and are refused.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> atom = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.0 * torch.eye(3)[None], torch.tensor([1]))
    >>> with TemporaryDirectory() as folder:
    ...     Parts(Path(folder) / "glass.extxyz", {"seed": 1}).save(4, atom)
    ...     sorted(Parts(Path(folder) / "glass.extxyz", {"seed": 1}).load())
    [4]
    """

    def __init__(self, out: Path, request: Mapping[str, Any]) -> None:
        self.folder = out.with_name(f".{out.name}.parts")
        self._request = json.loads(json.dumps(request))

    def save(self, first: int, structures: Structures) -> None:
        """Keep a batch whose first structure has this number."""
        tensors = {name: getattr(structures, name) for name in _ARRAYS}
        tensors |= {_PROPERTY + name: values for name, values in structures.properties.items()}
        header = {"request": self._request, "properties": list(structures.properties)}
        storage.write(self.folder / f"{first:07d}.safetensors", tensors, header)
        self._state(first).unlink(missing_ok=True)

    def save_state(self, first: int, state: BatchState) -> None:
        """Keep the state of a batch on its way, instead of an earlier one."""
        storage.write(self._state(first), state.tensors(), {"request": self._request})

    def load_state(self, first: int) -> BatchState | None:
        """The state of a batch on its way, if one was kept.

        Errors: `ValueError` for a file that is damaged, or of another request.
        """
        path = self._state(first)
        return BatchState.of(self._own(path).tensors) if path.exists() else None

    def forget_state(self, first: int) -> None:
        """Begin a batch anew."""
        self._state(first).unlink(missing_ok=True)

    def _state(self, first: int) -> Path:
        return self.folder / f"{first:07d}.state"

    def begun(self) -> list[int]:
        """The first structures of the batches on their way."""
        return [int(path.stem) for path in self.folder.glob("*.state")]

    def cut(self, at: Iterable[int], n_atoms: Int[Tensor, " systems"]) -> None:
        """Part the batches, finished and on their way, before these structures; `n_atoms` are those of all blanks.

        No other process may be at work here. Where it is interrupted, nothing is lost.
        """
        for first, held in self.load().items():
            for piece in _pieces(first, len(held), at):
                self.save(first + piece.start, held.select(piece))
        for first in self.begun():
            state = self.load_state(first)
            assert state is not None
            for piece in _pieces(first, state.n_systems, at):
                self.save_state(first + piece.start, state.part(piece, n_atoms[first : first + state.n_systems]))

    def load(self) -> dict[int, Structures]:
        """The batches kept, by the number of their first structure.

        Errors: `ValueError` for a file that is damaged, or of another request, be it a state.
        """
        for path in self.folder.glob("*.state"):
            with suppress(FileNotFoundError):  # another process has finished that batch meanwhile
                self._own(path)
        kept = {}
        for path in self.folder.glob("*.safetensors"):
            stored = self._own(path)
            positions, species, cell, n_atoms = (stored.tensors[name] for name in _ARRAYS)
            names = [name.removeprefix(_PROPERTY) for name in stored.tensors if name.startswith(_PROPERTY)]
            names = (stored.header or {}).get("properties", names)  # in their order, which tensors do not keep
            told = {name: stored.tensors[_PROPERTY + name] for name in names}
            kept[int(path.stem)] = Structures(positions, species, cell, n_atoms, told)
        return kept

    @property
    def n_kept(self) -> int:
        """Structures in the batches that `load` brings back."""
        return sum(map(len, self.load().values()))

    def _own(self, path: Path) -> storage.Stored:
        stored = _read(path)
        other = (stored.header or {}).get("request") or {}
        if other != self._request:
            what = ", ".join(differences(other, self._request))
            way = "repeat that one, remove the folder, or choose another `--out`"
            raise ValueError(f"{self.folder} holds unfinished work of another command ({what}): {way}")
        return stored

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


def _pieces(first: int, n: int, at: Iterable[int]) -> Iterator[range]:
    """What `n` structures from `first` on are cut into, if they are, counted from `first`; the one that takes the place
    of the whole comes last."""
    ends = [0, *sorted(cut - first for cut in at if 0 < cut - first < n), n]
    pieces = [range(*pair) for pair in pairwise(ends)]
    return reversed(pieces if len(pieces) > 1 else [])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in two JSON mappings, with the values where they are short.

    >>> differences({"seed": 1, "asked": {"targets": {}}}, {"seed": 2, "asked": {"targets": {"x": 1}}})
    ['targets x was none, is 1', 'seed was 1, is 2']
    """
    found = []
    for key in sorted({*before, *now}):
        one, other = before.get(key), now.get(key)
        if one == other:
            continue
        if isinstance(one or other, Mapping) and isinstance(one or {}, Mapping) and isinstance(other or {}, Mapping):
            within = differences(one or {}, other or {})
            found += within if key == "asked" else [f"{key} {each}" for each in within]
        else:
            texts = ["none" if value is None else str(value) for value in (one, other)]
            short = max(map(len, texts)) <= _SHORT
            found.append(f"{key} was {texts[0]}, is {texts[1]}" if short else f"other {key}")
    return found


def _read(path: Path) -> storage.Stored:
    try:
        return storage.read(path)
    except ValueError as error:
        raise ValueError(f"{error}; remove it, and its batch begins anew") from None
