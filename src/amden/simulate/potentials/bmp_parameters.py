"""The tables of BMP-shrm as published: data alone. The formulas are in `bmp`.

Pair terms: A. Pedone, G. Malavasi, M. C. Menziani, A. N. Cormack, U. Segre, J. Phys. Chem. B 110, 11780 (2006), and
M. Bertani, M. C. Menziani, A. Pedone, Phys. Rev. Materials 5, 045602 (2021), which replaced those of P, Li and K with
oxygen and added the cation-cation and the three-body terms. D, α, r0 and B are the numbers that reproduce the tables
which the authors distribute for LAMMPS (`Table_PMMCS-*.dat`, `Table_BMP-*.dat`) to 5e-7 in energies and forces from
1 to 7 Å; the other terms are those of their LAMMPS input (`in.BMP`, `BMP.nb3b.shrm`).
"""

from typing import Final

CHARGES: Final = {
    "Si": 2.4, "O": -1.2, "P": 3.0, "Al": 1.8, "Li": 0.6, "Be": 1.2, "K": 0.6, "Ca": 1.2, "Ti": 2.4, "Ba": 1.2,
    "Zn": 1.2,
}  # fmt: skip
"""e: 0.6 times the formal charges."""

MORSE_WITH_OXYGEN: Final = {
    "Si": (0.340554, 2.0067, 2.1, 1.0),
    "O": (0.042395, 1.379316, 3.618701, 100.0),
    "P": (0.831326, 2.585833, 1.79079, 1.0),
    "Al": (0.361581, 1.900442, 2.164818, 0.9),
    "Li": (0.041556, 1.758181, 2.55136, 1.0),
    "Be": (0.239919, 2.52742, 1.815405, 1.0),
    "K": (0.016098, 2.0679, 3.18003, 5.0),
    "Ca": (0.030211, 2.241334, 2.923245, 5.0),
    "Ti": (0.024235, 2.254703, 2.708943, 1.0),
    "Ba": (0.065011, 1.547596, 3.39341, 5.0),
    "Zn": (0.001221, 3.150679, 2.85185, 1.0),
}
"""Element beside oxygen: D (eV), α (1/Å), r0 (Å), B (eV Å¹²)."""

BUCKINGHAM: Final = {
    ("Si", "Si"): (7.093669, 0.975598),
    ("Si", "Al"): (8.09083, 0.521919),
    ("Al", "Al"): (7.05969, 0.919844),
    ("P", "P"): (5.093669, 0.905598),
    ("Si", "P"): (5.093669, 0.905598),
}
"""A (eV), ρ (Å)."""

ANGLES_AT_OXYGEN: Final = {("Si", "Si"): 12.5, ("P", "P"): 32.5, ("Si", "P"): 60.0}
"""K (eV) of the two ends."""

LEGS_AT_OXYGEN: Final = {"Si": 3.3, "P": 2.0}
"""Cutoff (Å) of the element at an end."""

THETA0: Final = 109.47
"""Degrees."""
RHO: Final = 1.0
"""Å."""
DAMPING: Final = 0.2
"""1/Å."""
COULOMB_CUTOFF: Final = 12.0
"""Å."""
CONTACT_CUTOFF: Final = 7.0
"""Å."""
