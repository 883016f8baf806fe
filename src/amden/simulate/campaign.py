"""Many runs of a protocol into a dataset folder, shard by shard; what was interrupted goes on.

A cell is a function of (protocol, seed of the campaign, its index): the same whatever `n`, the shards, or when a run
was interrupted. The folder holds `cells-<first>-<end>.safetensors`, each written whole or not at all and telling its
own origin, and `manifest.json`, the summary for people.
"""

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from os import cpu_count
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
import torch

from amden import __version__, storage
from amden.random import spawn_seeds
from amden.shard import load_provenance, save_shard
from amden.simulate.protocol import Protocol
from amden.simulate.runs import Device, Runs, run_protocol

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class Progress:
    """How far a campaign is, told after every launch of the engine."""

    n: int
    """Cells asked for."""
    done: int
    """Cells on disk or set aside."""
    failed: int
    """Cells set aside so far."""
    batch: int
    """Cells under way."""
    steps: int
    """Steps each of them has done."""


@dataclass(frozen=True)
class Campaign:
    """What a finished campaign left on disk."""

    folder: Path
    n: int
    """Cells run, those of earlier calls included."""
    failures: Mapping[int, str]
    """Why a cell was set aside, by its index."""


def run_campaign(
    protocol: Protocol,
    *,
    n: int,
    seed: int,
    out: str | Path,
    device: str = "auto",
    batch_size: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Campaign:
    """Run cells 0 to `n` of a campaign into the folder `out`, leaving out those already there.

    `batch_size` is the number of cells a shard, chosen for the device when left out. A cell that blows up is set
    aside with the reason; nothing takes its place.

    Errors: `ValueError` if the folder holds a campaign of another protocol or seed, or shards of something else.
    """
    if n < 1:
        raise ValueError(f"`n` must be positive, got {n}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"`batch_size` must be positive, got {batch_size}")
    machine, folder = choose_device(device), Path(out)
    origin = {"protocol": asdict(protocol), "seed": seed}
    failures = dict(_taken_up(folder, origin))
    _write_manifest(folder, origin, n)
    for first, end in _missing(folder, n, batch_size or _batch_size(machine)):
        state = Progress(n, _covered(folder, n), len(failures), end - first, 0)
        progress(state)
        runs = run_protocol(
            protocol,
            spawn_seeds(seed, end - first, first=first).tolist(),
            device=machine,
            on_launch=lambda steps, lost, s=state: progress(replace(s, steps=steps, failed=s.failed + lost)),
        )
        failures |= _save(folder, first, runs, origin, machine)
        _write_manifest(folder, origin, n)
        progress(replace(state, done=_covered(folder, n), failed=len(failures), batch=0))
    return Campaign(folder, max(n, *(end for _, end in _shards(folder)), 0), failures)


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


def _batch_size(device: Device) -> int:
    """Cells a shard: some tens of seconds of work on the CPU; on CUDA, one block a cell, every multiprocessor busy."""
    if device == "cpu":
        return 8 * (cpu_count() or 1)
    return 8 * torch.cuda.get_device_properties(0).multi_processor_count


def _shards(folder: Path) -> list[tuple[int, int]]:
    """First and end of each shard on disk, in order."""
    names = (path.stem.split("-") for path in folder.glob("cells-*-*.safetensors"))
    return sorted((int(first), int(end)) for _, first, end in names)


def _path(folder: Path, first: int, end: int) -> Path:
    return folder / f"cells-{first:07d}-{end:07d}.safetensors"


def _covered(folder: Path, n: int) -> int:
    return sum(min(end, n) - min(first, n) for first, end in _shards(folder))


def _missing(folder: Path, n: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `size` cells that no shard holds."""
    held = [(0, 0), *_shards(folder), (n, n)]
    for (_, gap), (gap_end, _) in pairwise(held):
        for first in range(gap, min(gap_end, n), size):
            yield first, min(first + size, gap_end, n)


def _taken_up(folder: Path, origin: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Failures of the shards already there, once their origin proved to be ours; leftovers of a kill are removed."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; a campaign needs a folder")
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    if (folder / MANIFEST).exists():
        _require_same(folder, _read_manifest(folder), origin)
    for path in folder.glob("*.safetensors"):
        provenance = load_provenance(path)
        _require_same(folder, provenance, origin)
        yield from ((int(i), reason) for i, reason in provenance["failures"].items())


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except ValueError:
        raise ValueError(f"{folder / MANIFEST}: not the manifest of a campaign") from None


def _require_same(folder: Path, found: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    if "protocol" not in found or "seed" not in found:
        raise ValueError(f"{folder}: holds structures that no campaign made; choose another folder")
    if found["seed"] != origin["seed"]:
        raise ValueError(
            f"{folder}: holds a campaign of seed {found['seed']}, not {origin['seed']}; choose another folder"
        )
    own = json.loads(json.dumps(origin["protocol"]))
    for key in own.keys() - {"doc"}:
        if found["protocol"].get(key) != own[key]:
            raise ValueError(
                f"{folder}: holds a campaign of another protocol (`{key}` is {found['protocol'].get(key)}, "
                f"not {own[key]}); choose another folder"
            )


def _save(folder: Path, first: int, runs: Runs, origin: Mapping[str, Any], device: Device) -> dict[int, str]:
    """Write a shard; returns its failures by index."""
    failures = {first + place: reason for place, reason in runs.failures.items()}
    end = first + len(runs.kept) + len(failures)
    index = torch.tensor([first + place for place in runs.kept], dtype=torch.float64)
    properties = {**runs.structures.properties, "index": index}
    provenance = {**origin, "failures": failures, "device": _device_name(device), "versions": _versions()}
    save_shard(_path(folder, first, end), replace(runs.structures, properties=properties), provenance=provenance)
    return failures


def _write_manifest(folder: Path, origin: Mapping[str, Any], n: int) -> None:
    shards, failures = [], {}
    for first, end in _shards(folder):
        path = _path(folder, first, end)
        lost = load_provenance(path)["failures"]
        shards.append({"file": path.name, "first": first, "end": end, "failed": len(lost)})
        failures |= lost
    n = max(n, *(end for _, end in _shards(folder)), 0)
    manifest = {**origin, "n": n, "shards": shards, "failures": failures, "versions": _versions()}
    with storage.replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _device_name(device: Device) -> str:
    return torch.cuda.get_device_name(0) if device == "cuda" else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    return {
        "amden": __version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
