"""Properties that structures were made for, beside those that they have."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float

from amden.analysis.observables import TARGET, UNITS
from amden.structure import Structures

REQUENCHED: Final = "requenched_"
"""What the names of properties begin with that are those of the same compositions, melt-quenched anew."""


@dataclass(frozen=True)
class Parity:
    """One property of the structures that have both numbers."""

    name: str
    unit: str
    target: Float[np.ndarray, " systems"]
    value: Float[np.ndarray, " systems"]
    requenched: Float[np.ndarray, " systems"] | None = None
    """That of the same compositions melt-quenched anew, NaN where unknown."""

    def __len__(self) -> int:
        return len(self.target)

    @property
    def mean_absolute_error(self) -> float:
        """MAE, in the unit of the property."""
        return float(np.abs(self.value - self.target).mean())

    @property
    def requenched_error(self) -> float:
        """MAE of what was requenched; NaN where nothing was."""
        off = np.zeros(0) if self.requenched is None else np.abs(self.requenched - self.target)
        known = off[np.isfinite(off)]
        return float(known.mean()) if len(known) else np.nan

    @property
    def root_mean_square_error(self) -> float:
        """RMSE, in the unit of the property."""
        return float(np.sqrt(np.mean((self.value - self.target) ** 2)))

    @property
    def r_squared(self) -> float:
        """R² = 1 - Σ (value - target)² / Σ (value - mean value)²; NaN where the values do not vary.

        Of the line value = target, nothing is fitted: it is negative where that is worse than the mean.
        """
        spread = float(np.sum((self.value - self.value.mean()) ** 2))
        return 1.0 - float(np.sum((self.value - self.target) ** 2)) / spread if spread > 0 else np.nan


def parities(structures: Structures) -> tuple[Parity, ...]:
    """A `Parity` for each property `X` that comes with a `target_X`; with `requenched_X` where there is one.

    >>> import torch
    >>> from dataclasses import replace
    >>> from amden.testing import random_structures
    >>> numbers = {"target_shear_modulus": torch.tensor([25.0, 30.0]), "shear_modulus": torch.tensor([26.0, 28.0])}
    >>> (found,) = parities(replace(random_structures([5, 5]), properties=numbers))
    >>> found.name, found.unit, found.mean_absolute_error
    ('shear_modulus', 'GPa', 1.5)
    """
    found = []
    for wanted, numbers in sorted(structures.properties.items()):
        name = wanted.removeprefix(TARGET)
        if name == wanted or numbers.ndim != 1:
            continue
        values = structures.density if name == "density" else structures.properties.get(name)
        if values is None or values.ndim != 1:
            continue
        target, value = numbers.cpu().double().numpy(), values.cpu().double().numpy()
        known = np.isfinite(target) & np.isfinite(value)
        if known.any():
            unit = "g/cm³" if name == "density" else UNITS.get(name, "")
            anew = structures.properties.get(REQUENCHED + name)
            others = None if anew is None else anew.cpu().double().numpy()[known]
            found.append(Parity(name, unit, target[known], value[known], others))
    return tuple(found)
