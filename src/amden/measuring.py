"""Structures relaxed and measured some at a time, each batch kept on the disk, so that an interrupted one goes on."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from amden.parts import Parts
from amden.properties import Progress, at_rest, property_of
from amden.structure import Structures, concatenate

AT_ONCE: Final = {"cpu": 16, "cuda": 128}
"""Structures of a batch: minutes of work where they are of a thousand atoms."""

_OXYGEN, _SILICON = 8, 14


def measurable(columns: Iterable[str], species: Collection[int]) -> list[str]:
    """The properties with these columns, and what is measured of whatever is made of these elements (atomic numbers).

    Rings count silicon atoms, so they are always measured unless silicon is one cation of several.

    >>> measurable(["youngs_modulus"], [8, 14]), measurable(["youngs_modulus"], [3, 8, 14])
    (['density', 'rings', 'moduli'], ['density', 'moduli'])

    Errors: `ValueError` for a column that amden does not know how to measure.
    """
    mixed = _SILICON in species and not set(species) <= {_OXYGEN, _SILICON}
    names = ["density"] if mixed else ["density", "rings"]
    for column in columns:
        name = property_of(column)
        if name is None:
            raise ValueError(f"{column!r} cannot be measured by amden: generate with `amden generate --target`")
        names += [] if name in names else [name]
    return names


def kept_at_rest(
    structures: Structures,
    names: Sequence[str],
    *,
    out: Path,
    device: Literal["cpu", "cuda"],
    potential: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Structures, Parts]:
    """`at_rest` batch by batch, on `cpu` or `cuda`; what was measured, and the parts beside `out` that it is kept in.

    Those of the same structures and names are gone on with, whatever device they were measured on. They are the
    caller's to remove, once what they are for is written.

    Errors: those of `at_rest`, and `ValueError` for parts of other structures.
    """
    parts, first = Parts(out, _request(structures, names, potential)), 0
    kept = parts.load()
    while first < len(structures):
        if first not in kept:
            end = min(first + AT_ONCE[device], len(structures), *(n for n in kept if n > first))
            tell = lambda now, first=first: progress(replace(now, done=first + now.done, total=len(structures)))  # noqa: E731
            batch = structures.select(range(first, end))
            kept[first] = at_rest(batch, names, device=device, potential=potential, progress=tell)
            parts.save(first, kept[first])
        first += len(kept[first])
    return concatenate([kept[first] for first in sorted(kept)]), parts


def _request(structures: Structures, names: Sequence[str], potential: str | None) -> Mapping[str, Any]:
    digest = hashlib.sha256()
    for values in (structures.positions, structures.species, structures.cell, structures.n_atoms):
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return {"names": list(names), "potential": potential, "structures": digest.hexdigest()[:16]}
