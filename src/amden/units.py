"""The unit system of amden and the constants that follow from it.

========== ================ =========================================
quantity   unit             remark
========== ================ =========================================
length     Å                cells, positions, noise levels
energy     eV
mass       amu
time       ps               velocities are Å/ps
temperature K
pressure   GPa              inside the engine: eV/Å³
stress     eV/Å³            tension positive, as in ASE
density    g/cm³
angle      degree           in results; radians inside functions
========== ================ =========================================

A unit appears in a name only where it is not the one above (`rate_K_per_ps`). Constants: CODATA 2018, exact where the
SI defines them so.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

EV_IN_JOULE: Final = 1.602176634e-19
AMU_IN_KG: Final = 1.66053906660e-27

KB: Final = 8.617333262e-5
"""Boltzmann's constant in eV/K."""

AMU_A2_PER_PS2: Final = AMU_IN_KG * 1e4 / EV_IN_JOULE
"""One amu Å²/ps² in eV: kinetic energy = ½ m v² · AMU_A2_PER_PS2."""

EV_PER_A3_IN_GPA: Final = EV_IN_JOULE * 1e30 / 1e9
"""One eV/Å³ in GPa."""

AMU_PER_A3_IN_G_PER_CM3: Final = AMU_IN_KG * 1e3 / 1e-24
"""One amu/Å³ in g/cm³."""

KNOWN: Final[tuple[Mapping[str, float], ...]] = tuple(
    MappingProxyType(each)
    for each in (
        {"GPa": 1.0, "MPa": 1e-3, "kPa": 1e-6, "Pa": 1e-9, "bar": 1e-4, "kbar": 0.1, "eV/Å³": EV_PER_A3_IN_GPA},
        {"g/cm³": 1.0, "g/cm3": 1.0, "kg/m³": 1e-3, "kg/m3": 1e-3},
        {"Å": 1.0, "nm": 10.0, "pm": 0.01},
        {"eV": 1.0, "meV": 1e-3, "kJ/mol": 0.01036427, "kcal/mol": 0.04336410},
        {"K": 1.0},
        {"degree": 1.0, "°": 1.0},
    )
)
"""Units that can be turned into each other, with their size in the first of each row, which is amden's."""


def converted(value: float, unit: str, to: str) -> float:
    """A value in another unit of the same quantity.

    Errors: `ValueError` for a unit that is unknown or of another quantity, with those that will do.

    >>> converted(36000.0, "MPa", "GPa")
    36.0
    """
    for row in KNOWN:
        if to in row:
            if unit in row:
                return value * row[unit] / row[to]
            raise ValueError(f"unit {unit!r} cannot be turned into {to}: expected one of {', '.join(row)}")
    raise ValueError(f"unit {to!r} is unknown")
