"""Bonds by a cutoff distance: coordination numbers and the angles between bonds."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from jaxtyping import Float, Int

from amden.analysis.grid import kinds
from amden.analysis.histogram import bond_counts
from amden.elements import atomic_number, symbol
from amden.structure import Structures

Cutoff = float | Mapping[str, float]
"""Atoms closer than this, in Å, are bonded: one number for all, or `{"Si-O": 2.2}`, where other pairs never are."""


@dataclass(frozen=True)
class Coordination:
    """How many bonds the atoms have."""

    fractions: Float[np.ndarray, "systems bonds"]
    """Fraction of the atoms of each system with 0, 1, 2 … bonds; NaN for a system without such atoms."""

    @property
    def per_system(self) -> Float[np.ndarray, " systems"]:
        """Mean coordination number of each system."""
        return self.fractions @ np.arange(self.fractions.shape[1], dtype=np.float64)

    @property
    def distribution(self) -> Float[np.ndarray, " bonds"]:
        """Fraction of atoms with 0, 1, 2 … bonds: mean over the systems, each of the same weight."""
        return np.nanmean(self.fractions, axis=0)

    @property
    def mean(self) -> float:
        """Mean over the systems, each of the same weight."""
        return float(np.nanmean(self.per_system))


@dataclass(frozen=True)
class BondAngles:
    """Distribution of the angles between two bonds of an atom."""

    edges: Float[np.ndarray, " edges"]
    """Borders of the bins in degrees."""
    per_system: Float[np.ndarray, "systems bins"]
    """Probability density of each system per degree; NaN for a system without such angles."""

    @property
    def angle(self) -> Float[np.ndarray, " bins"]:
        """Centres of the bins in degrees."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def density(self) -> Float[np.ndarray, " bins"]:
        """Mean over the systems, each of the same weight, per degree."""
        return np.nanmean(self.per_system, axis=0)

    @property
    def mean(self) -> float:
        """Mean angle in degrees."""
        return float(np.sum(self.density * self.angle * np.diff(self.edges)))

    @property
    def spread(self) -> float:
        """Standard deviation of the angles in degrees, about the mean of all systems."""
        return float(np.sqrt(np.sum(self.density * (self.angle - self.mean) ** 2 * np.diff(self.edges))))


def coordination(structures: Structures, *, cutoff: Cutoff = 2.9, centre: str | None = None) -> Coordination:
    """Number of atoms closer than `cutoff` to each atom, or to each atom of the element `centre`, images included.

    The default of 2.9 Å is near the first minimum of g(r) in amorphous silicon.

    >>> import torch
    >>> cube = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.5 * torch.eye(3)[None], torch.tensor([1]))
    >>> coordination(cube).mean
    6.0
    """
    _require_present(structures, centre)
    bonds, _ = bond_counts(structures, cutoffs=cutoff_matrix(structures, cutoff), n_bins=1)
    chosen = None if centre is None else atomic_number(centre)
    return _coordination(structures, bonds.sum(axis=1), chosen)


def partial_coordination(structures: Structures, *, cutoff: Cutoff = 2.9) -> dict[str, Coordination]:
    """Coordination by pair of elements, as `coordination` counts it: `"Si-O"` is the oxygen around a silicon.

    Both orders are there. A pair that no system has is left out.

    >>> import torch
    >>> cscl = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
    >>> cell = Structures(cscl, torch.tensor([55, 17]), 4.0 * torch.eye(3)[None], torch.tensor([2]))
    >>> {pair: found.mean for pair, found in partial_coordination(cell, cutoff=3.6).items()}
    {'Cl-Cl': 0.0, 'Cl-Cs': 8.0, 'Cs-Cl': 8.0, 'Cs-Cs': 0.0}
    """
    bonds, _ = bond_counts(structures, cutoffs=cutoff_matrix(structures, cutoff), n_bins=1)
    present, system = kinds(structures), structures.system.cpu().numpy()
    number = structures.species.cpu().numpy()
    has = {z: np.bincount(system[number == z], minlength=len(structures)) > 0 for z in present}
    return {
        f"{symbol(a)}-{symbol(b)}": _coordination(structures, bonds[:, j], a)
        for a in present
        for j, b in enumerate(present)
        if np.any(has[a] & has[b])
    }


def bond_angles(
    structures: Structures, *, cutoff: Cutoff = 2.9, bin_width: float = 2.0, centre: str | None = None
) -> BondAngles:
    """Angles between all pairs of bonds that share an atom, or an atom of the element `centre`; the area is 1.

    No division by sin θ: uncorrelated bonds give ½ sin θ (per radian).

    Errors: `ValueError` if `bin_width` does not divide 180°, or if no atom at all has two bonds.

    >>> import torch
    >>> cube = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.5 * torch.eye(3)[None], torch.tensor([1]))
    >>> found = bond_angles(cube, bin_width=4.0)
    >>> found.angle[found.density > 0].tolist()  # 12 right angles and 3 straight lines
    [90.0, 178.0]
    """
    _require_present(structures, centre)
    counts = _angle_counts(structures, cutoff, bin_width).sum(axis=2)
    of_centres = counts.sum(1) if centre is None else counts[:, kinds(structures).index(atomic_number(centre))]
    if not of_centres.any():
        raise ValueError(f"`cutoff` finds no bond angle: no atom has two neighbours within {cutoff} Å")
    return _angles(of_centres)


def partial_bond_angles(
    structures: Structures, *, cutoff: Cutoff = 2.9, bin_width: float = 2.0
) -> dict[str, BondAngles]:
    """Bond angles by triple of elements, centre in the middle: `"Si-O-Si"`; of the ends the lighter element is first.

    Each triple has the area 1. A triple that no system has is left out.

    Errors: `ValueError` if `bin_width` does not divide 180°.

    >>> import torch
    >>> cscl = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
    >>> cell = Structures(cscl, torch.tensor([55, 17]), 4.0 * torch.eye(3)[None], torch.tensor([2]))
    >>> list(partial_bond_angles(cell, cutoff=3.6))
    ['Cs-Cl-Cs', 'Cl-Cs-Cl']
    """
    counts = _angle_counts(structures, cutoff, bin_width)
    names = [symbol(z) for z in kinds(structures)]
    return {
        f"{a}-{centre}-{b}": _angles(counts[:, i, j])
        for i, centre in enumerate(names)
        for j, (a, b) in enumerate(combinations_with_replacement(names, 2))
        if counts[:, i, j].any()
    }


def _coordination(structures: Structures, bonds: np.ndarray, centre: int | None) -> Coordination:
    """Fractions of the atoms, or of those of element `centre`, with 0, 1, 2 … `bonds`."""
    system = structures.system.cpu().numpy()
    if centre is not None:
        chosen = structures.species.cpu().numpy() == centre
        bonds, system = bonds[chosen], system[chosen]
    width = int(bonds.max(initial=0)) + 1
    counts = np.bincount(system * width + bonds, minlength=len(structures) * width).reshape(-1, width)
    return Coordination(_rows_to_one(counts))


def _angle_counts(
    structures: Structures, cutoff: Cutoff, bin_width: float
) -> Int[np.ndarray, "systems kinds ends bins"]:
    n_bins = round(180.0 / bin_width) if bin_width > 0 else 0
    if n_bins < 1 or abs(n_bins * bin_width - 180.0) > 1e-6:
        raise ValueError(f"`bin_width` must divide 180 degrees, got {bin_width}")
    return bond_counts(structures, cutoffs=cutoff_matrix(structures, cutoff), n_bins=n_bins)[1]


def _angles(counts: Int[np.ndarray, "systems bins"]) -> BondAngles:
    n_bins = counts.shape[1]
    return BondAngles(np.linspace(0.0, 180.0, n_bins + 1), _rows_to_one(counts) * n_bins / 180.0)


def _rows_to_one(counts: np.ndarray) -> Float[np.ndarray, "systems bins"]:
    """Counts divided by the sum of their row; NaN where that is 0."""
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def _require_present(structures: Structures, centre: str | None) -> None:
    if centre is not None and atomic_number(centre) not in kinds(structures):
        present = ", ".join(symbol(z) for z in kinds(structures))
        raise ValueError(f"`centre` {centre!r} does not occur in the structures, which have {present}")


def cutoff_matrix(structures: Structures, cutoff: Cutoff) -> Float[np.ndarray, "kinds kinds"]:
    """Bond lengths in Å between the `kinds` of atoms; 0 for pairs that never bond.

    Errors: `ValueError` if a mapping names no pair of elements that occur.
    """
    present = kinds(structures)
    if not isinstance(cutoff, Mapping):
        return np.full((len(present), len(present)), float(cutoff))
    matrix = np.zeros((len(present), len(present)))
    for pair, value in cutoff.items():
        a, _, b = pair.partition("-")
        za, zb = atomic_number(a), atomic_number(b)
        if za in present and zb in present:
            i, j = present.index(za), present.index(zb)
            matrix[i, j] = matrix[j, i] = float(value)
    if not matrix.any():
        names = ", ".join(symbol(z) for z in present)
        raise ValueError(f"`cutoff` names no pair of the elements present: {dict(cutoff)} for {names}")
    return matrix
