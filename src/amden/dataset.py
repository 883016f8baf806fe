"""Datasets on disk and batches from them: load, split, describe, draw. One file's layout is `shard`'s matter.

A dataset is a folder of safetensors shards (what `simulate` writes), one such file, or any structure file that `io`
reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from amden.elements import COVALENT_RADII, GHOST, MASSES, symbol
from amden.io import read_structures, write_structures
from amden.neighbors import shortest_distance
from amden.random import Streams, spawn_seeds
from amden.segment import segment_mean
from amden.shard import load_shard
from amden.structure import Structures, concatenate, validate

SUFFIX: Final = ".safetensors"

FEW: Final = 100
"""Fewer structures than this earn a warning."""
ODD_DENSITY: Final = 1.5
"""A density this many times the median, or its inverse, is odd."""
OVERLAP: Final = 0.6
"""Atoms closer than this part of the smallest bond length, twice the covalent radius, overlap."""
MEASURED: Final = 1000
"""Structures in which distances are measured for a description: a second or two."""


def load_dataset(path: str | Path, *, dtype: torch.dtype = torch.float32, min_distance: float = 0.5) -> Structures:
    """All structures of a folder of shards, of one shard, or of a structure file; floating-point arrays in `dtype`.

    In a structure file, atoms closer than `min_distance` Å are an error; 0 allows all.

    Errors: `FileNotFoundError`; `ValueError` for an empty folder or a file that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.glob(f"*{SUFFIX}") if not file.name.startswith("."))
        if not files:
            raise ValueError(f"{path}: the folder holds no {SUFFIX} files")
        structures = concatenate([load_shard(file).structures for file in files])
    else:
        packed = path.suffix == SUFFIX
        structures = load_shard(path).structures if packed else read_structures(path, min_distance=min_distance)
    validate(structures, source=str(path))
    return structures.to(dtype=dtype)


def export_dataset(path: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Write a dataset as one structure file, such as extxyz."""
    write_structures(target, load_dataset(path), overwrite=overwrite)


@dataclass(frozen=True, eq=False)
class Split:
    """A dataset in two parts without a common structure."""

    training: Structures
    validation: Structures


def split(structures: Structures, *, validation: float | int, seed: int = 0) -> Split:
    """Set a random part aside: a fraction below 1, or a number of structures; the order within each part is kept.

    >>> one = Structures(torch.zeros(1, 3), torch.tensor([14]), torch.eye(3)[None], torch.tensor([1]))
    >>> parts = split(concatenate([one] * 10), validation=0.2)
    >>> len(parts.training), len(parts.validation)
    (8, 2)
    """
    n = len(structures)
    wanted = round(validation * n) if validation < 1 else int(validation)
    if validation < 0 or wanted >= n:
        raise ValueError(f"`validation` must leave some of the {n} structures for training, got {validation}")
    held_out = torch.zeros(n, dtype=torch.bool)
    held_out[shuffled(n, seed=seed, draw=0)[:wanted]] = True
    return Split(structures.select(torch.nonzero(~held_out)[:, 0]), structures.select(torch.nonzero(held_out)[:, 0]))


def shuffled(n: int, *, seed: int, draw: int) -> Int[Tensor, " n"]:
    """A random order of `n` things, a pure function of (n, seed, draw)."""
    keys = Streams.of(spawn_seeds(seed, 1), torch.tensor([n])).uniform((2,), draw=draw)
    return torch.from_numpy(np.lexsort(keys.numpy().T))


@dataclass(frozen=True, eq=False)
class Batches:
    """Random batches of structures without end: in each epoch every one at most once, in an order drawn from (seed,
    epoch).

    What batch number `step` holds is a pure function of the step, so training goes on exactly where it stopped. What
    does not fill a last batch is left out of its epoch, unless it is the epoch's only one.
    """

    sizes: Int[Tensor, " systems"]
    """Atoms of each structure, ghosts included for instance; on the CPU."""
    batch_size: int
    """Structures a batch."""
    seed: int = 0
    max_atoms: int | None = None
    """For mixed sizes: a batch ends before it has more atoms than this. A larger structure comes alone."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be positive, got {self.batch_size}")
        if self.max_atoms is not None and self.max_atoms < 1:
            raise ValueError(f"`max_atoms` must be positive, got {self.max_atoms}")
        if len(self.sizes) == 0:
            raise ValueError("`sizes` is empty: no batches to draw")

    def chosen_at(self, step: int = 0, *, stride: int = 1) -> Iterator[Int[Tensor, " batch"]]:
        """The indices of the structures in batches number `step`, `step + stride`, `step + 2 stride` … (with a stride,
        each worker takes its own), on the CPU."""
        return islice(self._chosen(step), 0, None, stride)

    def in_order(self, *, whole: bool = False) -> Iterator[Int[Tensor, " batch"]]:
        """The indices of the batches of one epoch in which the structures keep their order; if `whole`, with those that
        do not fill a last batch."""
        bounds = self._bounds(self.sizes)
        rest = [(bounds[-1][1], len(self.sizes))] if whole and bounds[-1][1] < len(self.sizes) else []
        return (torch.arange(first, last) for first, last in [*bounds, *rest])

    def _chosen(self, step: int) -> Iterator[Int[Tensor, " batch"]]:
        epoch = 0
        if self.max_atoms is None:
            epoch, step = divmod(step, max(1, len(self.sizes) // self.batch_size))
        for number in count(epoch):
            order = shuffled(len(self.sizes), seed=self.seed, draw=number)
            bounds = self._bounds(self.sizes[order])
            yield from (order[first:last] for first, last in bounds[step:])
            step = max(0, step - len(bounds))

    def _bounds(self, n_atoms: Int[Tensor, " systems"]) -> list[tuple[int, int]]:
        """First and last of each batch of an epoch whose structures have these sizes."""
        total = np.cumsum(n_atoms.numpy())
        bounds: list[tuple[int, int]] = []
        first, full = 0, True
        while first < len(total):
            last = first + self.batch_size
            full = last <= len(total)
            if self.max_atoms is not None:
                before = total[first - 1] if first else 0
                by_atoms = max(first + 1, int(np.searchsorted(total, before + self.max_atoms, side="right")))
                full = full or by_atoms < len(total)
                last = min(last, by_atoms)
            bounds.append((first, min(last, len(total))))
            first = last
        return bounds if full or len(bounds) == 1 else bounds[:-1]


@dataclass(frozen=True)
class Description:
    """What a dataset holds, in lines for the terminal."""

    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    """What is missing or odd."""


def describe(structures: Structures) -> Description:
    """What a user's dataset holds, and what is missing or odd in it.

    Distances are measured in at most `MEASURED` structures, evenly spread over the set.
    """
    size, density = structures.n_atoms, structures.density
    measured = torch.linspace(0, len(structures) - 1, min(MEASURED, len(structures))).round().long()
    shortest = shortest_distance(structures.select(measured))
    species, counts = structures.species.unique(return_counts=True)
    share = [
        f"{symbol(int(z))} {100 * n / len(structures.species):.3g} %" for z, n in zip(species, counts, strict=True)
    ]
    facts = [
        f"{len(structures)} structures, {_span(size, 'atoms')}",
        f"elements: {', '.join(share)}",
        f"density: {_span(density, 'g/cm³')}",
        f"shortest distance{_share(measured, structures)}: {_span(shortest, 'Å')}",
        *(f"property {name}: {_property(values)}" for name, values in sorted(structures.properties.items())),
    ]
    return Description(tuple(facts), tuple(_oddities(structures, shortest, measured)))


def data_facts(structures: Structures) -> dict[str, Any]:
    """What generation later asks of the training data: how dense it was, what its atoms weigh, how large it was."""
    masses = torch.as_tensor(MASSES)[structures.species.cpu()]
    real = structures.species.cpu() != GHOST
    return {
        "structures": len(structures),
        "density": float(structures.density.mean()),
        "density_std": float(structures.density.std(correction=0)),
        "mean_mass": float(masses[real].mean()),
        "atoms": [int(structures.n_atoms.min()), int(structures.n_atoms.max())],
        "elements": [symbol(int(z)) for z in structures.species.unique() if z != GHOST],
    }


def _oddities(
    structures: Structures, shortest: Float[Tensor, " measured"], measured: Int[Tensor, " measured"]
) -> Iterator[str]:
    """What is missing or odd, in one line each."""
    n = len(structures)
    if n < FEW:
        yield f"only {n} structures: a model will learn them by heart (hundreds are a start)"
    real = structures.species[structures.species != GHOST].unique().tolist()
    close = shortest < OVERLAP * 2.0 * float(COVALENT_RADII[real or [GHOST]].min())
    if close.any():
        where = f"closest {float(shortest.min()):.3f} Å (structure {int(measured[shortest.argmin()])})"
        yield f"{int(close.sum())} structures{_share(measured, structures)} with overlapping atoms, {where}"
    ghosts = int((structures.species == GHOST).sum())
    if ghosts:
        yield f"{ghosts} ghost atoms (element X)"
    spread = structures.density / structures.density.median()
    far = (spread > ODD_DENSITY) | (spread < 1.0 / ODD_DENSITY)
    if far.any():
        yield (
            f"{int(far.sum())} structures {ODD_DENSITY:g} times denser or thinner than the median, "
            f"the first structure {int(far.nonzero()[0])}"
        )
    twins = n - len(torch.unique(_fingerprints(structures), dim=0))
    if twins:
        yield f"{twins} structures are copies of others: validation will not be independent"
    if not structures.properties:
        yield "no properties: the model cannot be conditioned on any"
    for name, values in sorted(structures.properties.items()):
        yield from _property_oddities(name, values.flatten(1) if values.ndim > 1 else values[:, None])


def _property_oddities(name: str, values: Float[Tensor, "systems components"]) -> Iterator[str]:
    unknown = int(values.isnan().any(1).sum())
    if unknown:
        yield f"property {name}: unknown (NaN or absent) in {unknown} of {len(values)} structures"
    if values.isinf().any():
        yield f"property {name}: infinite in structure {int(values.isinf().any(1).nonzero()[0])}"
    known = values[values.isfinite().all(1)]
    if len(known) > 1 and bool((known == known[0]).all()):
        yield f"property {name}: the same in all structures"


def _fingerprints(structures: Structures) -> Float[Tensor, "systems numbers"]:
    """Numbers that only copies share: the cell, and the first and the mean position."""
    positions, n = structures.positions.double(), len(structures)
    mean = segment_mean(positions, structures.system, n_systems=n)
    return torch.cat([structures.cell.double().flatten(1), positions[structures.first], mean], 1)


def _share(measured: Int[Tensor, " measured"], structures: Structures) -> str:
    return "" if len(measured) == len(structures) else f" (of {len(measured)})"


def _span(values: Shaped[Tensor, " n"], unit: str) -> str:
    low, middle, high = values.min().item(), values.median().item(), values.max().item()
    return f"{low:.4g} {unit}" if low == high else f"{low:.4g} to {high:.4g} {unit}, median {middle:.4g}"


def _property(values: Float[Tensor, "systems *shape"]) -> str:
    known = values[values.isfinite().flatten(1).all(1)] if values.ndim > 1 else values[values.isfinite()]
    if len(known) == 0:
        return "all unknown"
    shape = f", array {tuple(values.shape[1:])}" if values.ndim > 1 else ""
    deviation = f", standard deviation {known.std().item():.4g}" if len(known) > 1 else ""
    return f"{known.min().item():.6g} to {known.max().item():.6g}, mean {known.mean().item():.6g}{deviation}{shape}"
