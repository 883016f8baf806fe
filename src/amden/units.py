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
