"""Two sets of structures compared, every difference beside its noise floor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from amden.analysis.noise import (
    FEWEST,
    Distance,
    Floor,
    Sample,
    difference_of_means,
    noise_floor,
    rmsd_of_means,
    wasserstein,
)
from amden.analysis.observables import Observables, PotentialEnergy, Relax, Settings, observe
from amden.structure import Structures

_ROUNDING: Final = 1e-9
"""Differences below are of the arithmetic: sets of identical structures agree."""


@dataclass(frozen=True)
class Difference:
    """One way in which two sets differ."""

    quantity: str
    """What is compared: `g(r)`, `bond angles`, `coordination` …"""
    measure: str
    """How: `RMSD` of mean curves, `mean` (difference of means), `Wasserstein` distance of distributions."""
    unit: str
    value: float
    """Never negative; NaN where a set has no values."""
    floor: Floor
    generated: float = np.nan
    """Mean of the generated set, for quantities that are one number a structure."""
    reference: float = np.nan

    @property
    def floors(self) -> float:
        """The difference in units of the floor expected for sets of these sizes."""
        return self.value / self.floor.expected if self.floor.expected > 0 else np.nan

    @property
    def within_noise(self) -> bool:
        """True if two sets made the same way would differ as much one time in twenty or more."""
        return bool(self.value <= self.floor.limit + _ROUNDING)

    @property
    def verdict(self) -> str:
        """`within noise`, or how far off."""
        if np.isnan(self.value):
            return "not known"
        if np.isnan(self.floor.limit):
            return f"no floor: fewer than {FEWEST} reference structures"
        if self.within_noise:
            return "within noise"
        return f"{self.floors:.1f} floors off" if self.floor.expected > 0 else "off; the reference does not vary"


@dataclass(frozen=True)
class Analysis:
    """What was measured on a set of structures and, if there is a reference, how the two differ."""

    settings: Settings
    generated: Observables
    reference: Observables | None = None
    differences: tuple[Difference, ...] = ()


def analyze(
    structures: Structures,
    reference: Structures | None = None,
    *,
    settings: Settings | None = None,
    energy: PotentialEnergy | None = None,
    relax: Relax | None = None,
) -> Analysis:
    """Measure `structures` and compare them with `reference`, both by the same settings and energies.

    >>> import torch
    >>> cube = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.5 * torch.eye(3)[None], torch.tensor([1]))
    >>> [d.verdict for d in analyze(cube.select([0] * 4), cube.select([0] * 8)).differences[:2]]
    ['within noise', 'within noise']
    """
    settings = settings or Settings()
    generated = observe(structures, settings=settings, energy=energy, relax=relax)
    if reference is None:
        return Analysis(settings, generated)
    known = observe(reference, settings=settings, energy=energy, relax=relax)
    return Analysis(settings, generated, known, compare(generated, known, settings=settings))


def compare(
    generated: Observables, reference: Observables, *, settings: Settings | None = None
) -> tuple[Difference, ...]:
    """All differences between two sets measured alike, in the order in which they are reported."""
    settings = settings or Settings()
    return (*_curves(generated, reference, settings), *_scalars(generated, reference, settings))


def _curves(generated: Observables, reference: Observables, settings: Settings) -> Iterator[Difference]:
    known = reference.curves
    for quantity, (unit, ours) in generated.curves.items():
        value, floor = _measured(ours, known[quantity][1], rmsd_of_means, settings=settings)
        yield Difference(quantity, "RMSD", unit, value, floor)


def _scalars(generated: Observables, reference: Observables, settings: Settings) -> Iterator[Difference]:
    known = reference.scalars
    for quantity, (unit, ours) in generated.scalars.items():
        theirs = known[quantity][1]
        for measure, distance in (("mean", difference_of_means), ("Wasserstein", wasserstein)):
            value, floor = _measured(ours, theirs, distance, settings=settings)
            yield Difference(quantity, measure, unit, value, floor, _mean(ours), _mean(theirs))


def _measured(ours: Sample, theirs: Sample, distance: Distance, *, settings: Settings) -> tuple[float, Floor]:
    value = distance(ours.values, theirs.values) if len(ours) and len(theirs) else np.nan
    return value, noise_floor(theirs, ours, distance=distance, halvings=settings.halvings, seed=settings.seed)


def _mean(sample: Sample) -> float:
    return float(sample.values.mean()) if len(sample) else np.nan
