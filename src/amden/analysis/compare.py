"""Two sets of structures compared, every difference beside its noise floor."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from amden.analysis.grid import kinds
from amden.analysis.memorisation import Novelty, novelty
from amden.analysis.noise import (
    FEWEST,
    Distance,
    Floor,
    Sample,
    bootstrap_interval,
    difference_of_means,
    fraction_floor,
    noise_floor,
    rmsd_of_means,
    wasserstein,
)
from amden.analysis.observables import Observables, PotentialEnergy, Relax, Settings, bond_lengths, observe
from amden.analysis.parity import Parity, parities
from amden.elements import symbol
from amden.structure import Structures

_ROUNDING: Final = 1e-9
"""Differences below are of the arithmetic: sets of identical structures agree."""


@dataclass(frozen=True)
class Difference:
    """One way in which two sets differ."""

    quantity: str
    """What is compared: `g(r)`, `bond angles`, `coordination` …"""
    measure: str
    """How: `RMSD` of mean curves, `mean` (difference of means), `Wasserstein` distance of distributions, `fraction`
    (difference of the fractions of structures)."""
    unit: str
    value: float
    """Never negative; NaN where a set has no values."""
    floor: Floor
    generated: float = np.nan
    """Mean of the generated set, for quantities that are one number a structure."""
    reference: float = np.nan
    interval: tuple[float, float] = (np.nan, np.nan)
    """95 % interval of the value for quantities that are one number a structure, by bootstrap."""

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
    novelty: Novelty | None = None
    """Near copies, repeats and diversity; None if there is nothing to compare with."""
    parities: tuple[Parity, ...] = ()
    """Properties that the structures were made for, beside those that they have."""


def analyze(
    structures: Structures,
    reference: Structures | None = None,
    *,
    training: Structures | None = None,
    settings: Settings | None = None,
    energy: PotentialEnergy | None = None,
    relax: Relax | None = None,
) -> Analysis:
    """Measure `structures` and compare them with `reference`, both by the same settings and energies.

    `training` is what the model that made the structures was trained on: near copies of it are looked for.

    Errors: `ValueError` for sets without a bond that both have, as silicon and silica, and those of `observe`.

    >>> import torch
    >>> cube = Structures(torch.zeros(1, 3), torch.tensor([14]), 2.5 * torch.eye(3)[None], torch.tensor([1]))
    >>> [d.verdict for d in analyze(cube.select([0] * 4), cube.select([0] * 8)).differences[:2]]
    ['within noise', 'within noise']
    """
    settings = settings or Settings()
    if settings.bond_cutoff is None:
        sets = (s.without_ghosts() for s in (structures, reference) if s is not None)
        settings = replace(settings, bond_cutoff=bond_lengths(*sets))
    if reference is not None and isinstance(settings.bond_cutoff, Mapping):
        _require_bonds(structures, reference, settings.bond_cutoff)
    known = None if reference is None else observe(reference, settings=settings, energy=energy, relax=relax)
    usual = None if known is None else known.usual
    generated = observe(structures, settings=settings, usual=usual, energy=energy, relax=relax)
    new = None
    if reference is not None or training is not None:
        how = {"halvings": settings.halvings, "seed": settings.seed}
        new = novelty(structures, reference=reference, training=training, **how)
    differences = () if known is None else compare(generated, known, settings=settings)
    if new is not None:
        differences = (*differences, *_novelties(new, settings))
    return Analysis(settings, generated, known, differences, new, parities(structures))


def _require_bonds(structures: Structures, reference: Structures, bonds: Mapping[str, float]) -> None:
    """Both sets must have elements that bond by what is a bond in the two together."""
    ours, theirs = ({symbol(z) for z in kinds(s.without_ghosts())} for s in (structures, reference))
    if not all(any(set(pair.split("-")) <= own for pair in bonds) for own in (ours, theirs)):
        told = " and the reference ".join(", ".join(sorted(own)) for own in (ours, theirs))
        pairs = ", ".join(bonds)
        raise ValueError(f"the structures have {told}: they share no bonds ({pairs} count), nothing to compare")


def compare(
    generated: Observables, reference: Observables, *, settings: Settings | None = None
) -> tuple[Difference, ...]:
    """All differences between two sets measured alike, in the order in which they are reported."""
    settings = settings or Settings()
    return (
        *_curves(generated, reference, settings),
        *_scalars(generated, reference, settings),
        _fraction("invalid", generated.invalid, reference.invalid),
    )


def _curves(generated: Observables, reference: Observables, settings: Settings) -> Iterator[Difference]:
    known = reference.curves
    for quantity, ours in generated.curves.items():
        if quantity not in known:
            continue
        theirs = known[quantity]
        _, a, b = np.intersect1d(ours.x.round(6), theirs.x.round(6), return_indices=True)
        mine, others = (Sample(c.sample.values[:, k], c.sample.n_atoms) for c, k in ((ours, a), (theirs, b)))
        value, floor = _measured(mine, others, rmsd_of_means, settings=settings)
        yield Difference(quantity, "RMSD", ours.unit, value, floor)


def _scalars(generated: Observables, reference: Observables, settings: Settings) -> Iterator[Difference]:
    known = reference.scalars
    for quantity, (unit, ours) in generated.scalars.items():
        if quantity in known:
            yield from _numbers(quantity, unit, ours, known[quantity][1], settings)


def _numbers(quantity: str, unit: str, ours: Sample, theirs: Sample, settings: Settings) -> Iterator[Difference]:
    """A quantity that is one number a structure: its mean and its distribution."""
    for measure, distance in (("mean", difference_of_means), ("Wasserstein", wasserstein)):
        value, floor = _measured(ours, theirs, distance, settings=settings)
        how = {"resamples": settings.resamples, "seed": settings.seed}
        interval = bootstrap_interval(theirs, ours, distance=distance, **how)
        yield Difference(quantity, measure, unit, value, floor, _mean(ours), _mean(theirs), interval)


def _fraction(quantity: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """A quantity that is true or false of a structure."""
    a, b = float(ours.mean()), float(theirs.mean())
    return Difference(quantity, "fraction", "", abs(a - b), fraction_floor(theirs, ours), a, b)


def _novelties(found: Novelty, settings: Settings) -> Iterator[Difference]:
    """How close the structures come to the training set, and how far apart they are, beside what is usual."""
    if found.copies is not None:
        sets = ((c.novelty, c.local) for c in (found.copies.closest, found.copies.unseen))
        ours, theirs = ([Sample(v, np.ones(len(v), np.int64)) for v in values] for values in sets)
        yield from _numbers("novelty", "", ours[0], theirs[0], settings)
        yield from _numbers("local novelty", "", ours[1], theirs[1], settings)
    if found.diversity is not None:
        d = found.diversity
        yield Difference("diversity", "mean", "", abs(d.generated - d.reference), d.floor, d.generated, d.reference)


def _measured(ours: Sample, theirs: Sample, distance: Distance, *, settings: Settings) -> tuple[float, Floor]:
    value = distance(ours.values, theirs.values) if len(ours) and len(theirs) else np.nan
    return value, noise_floor(theirs, ours, distance=distance, halvings=settings.halvings, seed=settings.seed)


def _mean(sample: Sample) -> float:
    return float(sample.values.mean()) if len(sample) else np.nan
