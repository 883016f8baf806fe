"""Computed values beside measured ones, for glasses of which `experiment` knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.formula import Formula

from amden.analysis.experiment import MEASURED, Measured, measured
from amden.analysis.observables import Observables

QUANTITIES: Final[Mapping[str, str]] = {
    "density": "density",
    **{f"shear_modulus{ending}": "shear modulus" for ending in ("", "_vrh")},
    **{f"bulk_modulus{ending}": "bulk modulus" for ending in ("", "_vrh")},
    **{f"youngs_modulus{ending}": "Young's modulus" for ending in ("", "_vrh")},
}
"""Names in `experiment` of what is one number a structure (`Observables.scalars`); of two the latter is taken."""

SAME_GLASS: Final = 0.02
"""Fractions of the elements may differ by as much from those of the formula."""


@dataclass(frozen=True)
class Beside:
    """A measured value and the same of computed structures."""

    measured: Measured
    generated: float
    """Mean over the structures; NaN where it was not computed."""
    reference: float


def glass(observables: Observables) -> str | None:
    """Formula of the measured glass that structures are of, on average; None if none of those known."""
    ours = {name: float(fraction.mean()) for name, fraction in observables.fractions.items()}
    for formula in MEASURED:
        counts = Formula(formula).count()
        theirs = {name: n / sum(counts.values()) for name, n in counts.items()}
        if set(ours) == set(theirs) and all(abs(ours[name] - theirs[name]) < SAME_GLASS for name in ours):
            return formula
    return None


def beside_experiment(generated: Observables, reference: Observables | None = None) -> tuple[Beside, ...]:
    """What was measured and computed both, in the order of `experiment`; empty for a glass that is not known there."""
    formula = glass(generated)
    if formula is None:
        return ()
    ours, theirs = _values(generated), {} if reference is None else _values(reference)
    found = (Beside(m, ours.get(m.quantity, np.nan), theirs.get(m.quantity, np.nan)) for m in measured(formula))
    return tuple(b for b in found if np.isfinite(b.generated) or np.isfinite(b.reference))


def _values(o: Observables) -> dict[str, float]:
    """Mean values by the names that `experiment` has for them."""
    found = {"first sharp diffraction peak": o.scattering.peak(o.radiation)}
    for name, (_, sample) in o.scalars.items():
        if name in QUANTITIES and len(sample):
            found[QUANTITIES[name]] = float(sample.values.mean())
    for pair, g in o.partial_rdfs.items():
        for name in (pair, "-".join(reversed(pair.split("-")))):
            found[f"{name} bond length"] = g.peak
    for triple, a in o.partial_angles.items():
        found |= {f"{triple} angle": a.mean, f"{triple} angle, standard deviation": a.spread}
    if not o.partial_rdfs:
        found |= {"coordination": o.coordination.mean}
        found |= {"bond angle": o.angles.mean, "bond angle, standard deviation": o.angles.spread}
    return found
