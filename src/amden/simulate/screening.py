"""Which finished cells are no glass: those that crystallised or evaporated are set aside with the reason."""

from dataclasses import replace
from typing import Final

import numpy as np

from amden.simulate.crystal import crystalline_share
from amden.simulate.protocol import IONS_IN_SPACE, Protocol
from amden.simulate.runs import Runs

CRYSTALLINE: Final = 0.3
"""Share of atoms in the environment of diamond from which on a cell has crystallised. Quenched silicon has 0.00 to
0.01, a crystal at 300 K 1.00."""
EVAPORATED: Final = 0.5
"""Density, in that of the protocol's random start, below which a cell has evaporated."""
_MEASURED_AT_ONCE: Final = 256
"""Cells."""


def screened(protocol: Protocol, runs: Runs) -> Runs:
    """The runs without cells that crystallised or evaporated; those join the failures."""
    n, frames = len(runs.kept), runs.structures
    crystal = np.concatenate(
        [np.zeros(0)]
        + [
            crystalline_share(frames.select(range(first, min(first + _MEASURED_AT_ONCE, n)))).numpy()
            for first in range(0, n, _MEASURED_AT_ONCE)
        ]
    )
    density = frames.density.numpy()
    begun = (density * frames.volume.numpy() / frames.n_atoms.numpy() * IONS_IN_SPACE).tolist()
    begun = begun if protocol.density is None else [protocol.density] * n
    reasons = {}
    for i in range(n):
        if density[i] < EVAPORATED * begun[i]:
            reasons[i] = f"evaporated: {density[i]:.2f} g/cm³, begun with {begun[i]:.4g} g/cm³"
        elif crystal[i] >= CRYSTALLINE:
            reasons[i] = f"crystallised: {100 * crystal[i]:.0f} % of the silicon atoms sit as in diamond"
    if not reasons:
        return runs
    rest = [i for i in range(n) if i not in reasons]
    return replace(
        runs,
        structures=frames.select(rest),
        kept=tuple(runs.kept[i] for i in rest),
        failures={**runs.failures, **{runs.kept[i]: why for i, why in reasons.items()}},
    )
