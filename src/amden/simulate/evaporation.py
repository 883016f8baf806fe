"""At which temperature a melt evaporates, from the pressure in a cell with room for a gas.

While nothing evaporates the pressure is that of a liquid with a surface: none, or a little below because the surface
pulls. Beyond the onset Te a share x of the N atoms is a gas,

    p(T) = x N k (T - Te) / V,

a straight line whose zero is Te. Both are fitted together: max(0, line) to all samples.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from amden.units import EV_PER_A3_IN_GPA, KB

EXPANDED: Final = 2.0
"""Times the volume of the melt before: a cell that has become so large has evaporated. 0.6 SiO2 0.4 Li2O grows by 15 %
between 2200 K and 0.75 Te."""

_GRID: Final = 10.0
"""K between the onsets that are tried."""
_LEAST_SAMPLES: Final = 3
"""On either side of the onset."""
_FEWEST: Final = 20
"""Samples in all."""
_ROUNDS: Final = 8
"""Of weights; they settle after three or four."""
_TUNING: Final = 1.345
"""Standard deviations from which on residuals count less (Huber)."""
_CLEAR: Final = 4.0
"""Standard errors: how much greater than nothing the slope must be."""


@dataclass(frozen=True)
class Onset:
    """Where a melt begins to evaporate."""

    temperature: float
    """Te, K; nan where the pressure does not tell."""
    slope: float
    """x N k / V, GPa/K."""

    def share(self, *, n_atoms: int, volume: float) -> float:
        """x, of the atoms of a cell of this volume (Å³)."""
        return self.slope / EV_PER_A3_IN_GPA * volume / (n_atoms * KB)


def evaporation_onset(temperature: Float64[np.ndarray, " samples"], pressure: Float64[np.ndarray, " samples"]) -> Onset:
    """Of samples of temperature (K) and pressure (GPa) taken while a cell was heated.

    Least squares with Huber's weights, so that a few wild samples change little; Te is found among all temperatures
    in steps of 10 K that leave three samples on either side.

    >>> T = np.linspace(2000.0, 9000.0, 50)
    >>> found = evaporation_onset(T, np.maximum(0.0, 4e-4 * (T - 4000.0)))
    >>> found.temperature, round(found.slope * 1e4, 3)
    (4000.0, 4.0)
    """
    if len(temperature) != len(pressure) or len(temperature) < _FEWEST:
        raise ValueError(f"an onset needs at least {_FEWEST} samples of both, got {len(temperature)}")
    order = np.sort(temperature)
    tried = np.arange(np.ceil(order[_LEAST_SAMPLES] / _GRID), order[-_LEAST_SAMPLES] / _GRID) * _GRID
    above = np.maximum(temperature - tried[:, None], 0.0)
    weights, best, slope = np.ones(len(pressure)), 0, 0.0
    scale = 0.0
    for _ in range(_ROUNDS):
        slopes = np.maximum((weights * above) @ pressure / ((weights * above) * above).sum(axis=1), 0.0)
        best = int(np.argmin((weights * (pressure - slopes[:, None] * above) ** 2).sum(axis=1)))
        slope = float(slopes[best])
        off = np.abs(pressure - slope * above[best])
        scale = max(1.4826 * float(np.median(off)), 1e-12)
        weights = 1.0 / np.maximum(off / (_TUNING * scale), 1.0)
    error = scale / np.sqrt((weights * above[best] ** 2).sum())
    clear = slope > _CLEAR * error and 0 < best < len(tried) - 1
    return Onset(float(tried[best]) if clear else float("nan"), slope)
