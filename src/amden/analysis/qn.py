"""The network of a glass: how many bridging atoms each former has (Qⁿ), and what the bridging atoms bridge.

A bridging oxygen is bonded to two formers or more, of whatever element; one bonded to three is a bridge too, and
counted among the `bridges`. Q⁴ is a silicon with four of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from amden.analysis.bonds import Cutoff, cutoff_matrix
from amden.analysis.grid import kinds
from amden.analysis.rdf import first_minima
from amden.elements import atomic_number, symbol
from amden.neighbors import neighbor_list
from amden.structure import Structures, validate

CHUNK = 50_000
"""Atoms whose bonds are listed at a time."""


@dataclass(frozen=True)
class Qn:
    """Qⁿ of every system of a set."""

    formers: tuple[str, ...]
    bridge: str
    cutoffs: Mapping[str, float]
    """Atoms closer than this, in Å, are bonded, by pair of former and bridge."""
    fractions: Mapping[str, Float[np.ndarray, "systems n"]]
    """By former: fraction of its atoms with n = 0, 1, 2 … bridging neighbours; NaN for a system without it."""
    bridges: Float[np.ndarray, "systems formers"]
    """Fraction of the `bridge` atoms bonded to 0 (free), 1 (non-bridging), 2 (bridging), 3 … formers."""

    def distribution(self, former: str) -> Float[np.ndarray, " n"]:
        """Fraction of the atoms of a former that are Qⁿ: mean over the systems that have it, each weighs the same."""
        fractions = self.fractions[former]
        return fractions[np.isfinite(fractions[:, 0])].mean(axis=0)

    def per_system(self, former: str) -> Float[np.ndarray, " systems"]:
        """Mean n of each system, the connectivity of its network; NaN for a system without that former."""
        fractions = self.fractions[former]
        return fractions @ np.arange(fractions.shape[1], dtype=np.float64)

    @property
    def non_bridging(self) -> Float[np.ndarray, " systems"]:
        """Fraction of the `bridge` atoms of each system that are bonded to fewer than two formers."""
        return self.bridges[:, :2].sum(axis=1)

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary a system and former of plain numbers, for a CSV or JSON file; None where not known."""
        return [
            {
                "system": s,
                "former": former,
                "bridge": self.bridge,
                **{f"Q{n}": float(v) if np.isfinite(v) else None for n, v in enumerate(values)},
                "non_bridging": float(loose) if np.isfinite(loose) else None,
            }
            for former, fractions in self.fractions.items()
            for s, (values, loose) in enumerate(zip(fractions, self.non_bridging, strict=True))
        ]


def qn(
    structures: Structures, *, formers: Sequence[str] = ("Si",), bridge: str = "O", cutoff: Cutoff | None = None
) -> Qn:
    """Qⁿ of the atoms of the `formers`, all of which can be at the ends of a bridge; ghosts are removed.

    `cutoff` is as in `bonds`; None takes the first minimum of g(r) of each pair of former and bridge, over all the
    structures. Which it was is said in the result.

    Errors: `ValueError` for elements that do not occur, and for pairs without a first minimum.

    >>> from dataclasses import replace
    >>> from amden.testing import diamond
    >>> silicon = diamond((2, 1, 1), a=7.16)  # β-cristobalite: an oxygen in the middle of each bond
    >>> edges = neighbor_list(silicon, cutoff=3.2)
    >>> once = edges.source < edges.target
    >>> middles = silicon.positions[edges.source] + 0.5 * edges.vectors(silicon.positions, silicon.cell, silicon.system)
    >>> positions = torch.cat([silicon.positions, middles[once]])
    >>> species = torch.tensor([14] * 16 + [8] * 32)
    >>> glass = replace(silicon, positions=positions, species=species, n_atoms=torch.tensor([48]))
    >>> qn(glass, cutoff={"Si-O": 1.7}).per_system("Si").tolist()
    [4.0]
    """
    structures = structures.without_ghosts()
    validate(structures)
    _require(structures, "formers", formers)
    _require(structures, "bridge", (bridge,))
    if cutoff is None:
        cutoff = first_minima(structures, pairs=[f"{former}-{bridge}" for former in formers])
    matrix = cutoff_matrix(structures, cutoff)
    present = kinds(structures)
    b, centres = present.index(atomic_number(bridge)), [present.index(atomic_number(former)) for former in formers]
    limits = np.zeros(len(present))
    limits[centres] = matrix[centres, b]
    if not limits.max() > 0:
        raise ValueError(f"`cutoff` must be positive, got {cutoff}")
    kind = np.searchsorted(present, structures.species.cpu().numpy())
    bridging, linked = _bonds(structures, limits, kind, b)
    system = structures.system.cpu().numpy()
    return Qn(
        formers=tuple(formers),
        bridge=bridge,
        cutoffs={f"{former}-{bridge}": float(limits[c]) for former, c in zip(formers, centres, strict=True)},
        fractions={
            former: _fractions(bridging, system, kind == c, len(structures), 5)
            for former, c in zip(formers, centres, strict=True)
        },
        bridges=_fractions(linked, system, kind == b, len(structures), 3),
    )


def _bonds(
    structures: Structures, limits: np.ndarray, kind: np.ndarray, bridge: int
) -> tuple[Int[np.ndarray, " atoms"], Int[np.ndarray, " atoms"]]:
    """Bridging neighbours of each atom, and formers around each bridge."""
    bridging, linked = np.zeros(len(kind), np.int64), np.zeros(len(kind), np.int64)
    chunk = (torch.cumsum(structures.n_atoms, 0) - 1) // CHUNK
    begin = 0
    for number in chunk.unique().tolist():
        part = structures.select(torch.nonzero(chunk == number)[:, 0]).to("cpu", dtype=torch.float64)
        own = slice(begin, begin + len(part.positions))
        edges = neighbor_list(part, cutoff=float(limits.max()))
        length = edges.vectors(part.positions, part.cell, part.system).norm(dim=-1).numpy()
        source, target = edges.source.numpy(), edges.target.numpy()
        bond = (kind[own][target] == bridge) & (length < limits[kind[own][source]])
        source, target = source[bond], target[bond]
        linked[own] = np.bincount(target, minlength=len(part.positions))
        bridging[own] = np.bincount(source[linked[own][target] >= 2], minlength=len(part.positions))
        begin = own.stop
    return bridging, linked


def _fractions(
    numbers: np.ndarray, system: np.ndarray, chosen: np.ndarray, n_systems: int, least: int
) -> Float[np.ndarray, "systems n"]:
    """Fraction of the chosen atoms of each system with 0, 1, 2 … of `numbers`, at least so many columns."""
    width = max(int(numbers[chosen].max(initial=0)) + 1, least)
    places = system[chosen] * width + numbers[chosen]
    counts = np.bincount(places, minlength=n_systems * width).reshape(n_systems, width)
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def _require(structures: Structures, name: str, elements: Sequence[str]) -> None:
    for element in elements:
        if atomic_number(element) not in kinds(structures):
            present = ", ".join(symbol(z) for z in kinds(structures))
            raise ValueError(f"`{name}` {element!r} does not occur in the structures, which have {present}")
