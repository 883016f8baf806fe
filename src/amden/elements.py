"""The chemical elements by atomic number: symbols, masses, radii, charges, scattering. Number 0 (`X`) is the ghost.

Symbols, masses and radii are ASE's; what amden adds is the ghost, errors that name the choices, formal charges, and how
the elements scatter neutrons and X-rays (`scattering.csv`, where the sources are).
"""

import csv
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols, covalent_radii
from jaxtyping import Float

GHOST: Final = 0
"""Atomic number of the ghost atom, a vacancy that takes part in the diffusion and is removed at the end."""

MASSES: Final = np.array([0.0, *atomic_masses[1:]])
"""Standard atomic weights in amu by atomic number; the ghost weighs nothing."""

COVALENT_RADII: Final = np.array([0.0, *covalent_radii[1:]])
"""Covalent radii in Å by atomic number (Cordero et al., Dalton Trans. 2008, 2832)."""

FORMAL_CHARGES: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(("H", "Li", "Na", "K", "Rb", "Cs", "Ag"), 1)
    | dict.fromkeys(("Be", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd", "Pb"), 2)
    | dict.fromkeys(("B", "Al", "Ga", "In", "Sc", "Y", "La", "Pr", "Nd", "Sm", "Gd", "Dy", "Er", "Yb", "Lu", "Bi"), 3)
    | dict.fromkeys(("Si", "Ge", "Ti", "Zr", "Hf"), 4)
    | dict.fromkeys(("P", "Nb", "Ta"), 5)
    | dict.fromkeys(("Mo", "W"), 6)
    | dict.fromkeys(("F", "Cl", "Br", "I"), -1)
    | dict.fromkeys(("O", "S", "Se"), -2)
    | {"N": -3}
)
"""Formal charges in e of the ions in ordinary glasses, those of Shannon's table (Acta Cryst. A32, 751 (1976)).

Elements that glasses have in several states, such as Fe, Mn, Cu, Ce, As, Sb, Sn and Te, are left out on purpose.
"""


def atomic_number(symbol: str) -> int:
    """Atomic number of a chemical symbol.

    >>> atomic_number("Si")
    14
    """
    if symbol not in atomic_numbers:
        raise ValueError(f"unknown element {symbol!r}: expected a chemical symbol such as 'Si' or 'O'")
    return atomic_numbers[symbol]


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number; the ghost is `X`.

    >>> symbol(14), symbol(0)
    ('Si', 'X')
    """
    if not 0 <= number < len(chemical_symbols):
        raise ValueError(f"unknown atomic number {number}: expected 0 (ghost) to {len(chemical_symbols) - 1}")
    return chemical_symbols[number]


def formula(numbers: Iterable[int]) -> str:
    """Hill-like formula of a list of atomic numbers, elements in order of atomic number.

    >>> formula([14, 8, 8])
    'O2Si'
    """
    values, counts = np.unique(np.fromiter(numbers, dtype=np.int64), return_counts=True)
    return "".join(f"{symbol(int(z))}{n if n > 1 else ''}" for z, n in zip(values, counts, strict=True))


def scattering_length(number: int) -> float:
    """Bound coherent neutron scattering length in fm, natural abundance (Sears 1992); of complex ones the real part.

    Errors: `ValueError` where none is tabulated.

    >>> scattering_length(14), scattering_length(8)
    (4.1491, 5.803)
    """
    row = _scattering().get(number)
    if row is None or not row["b"]:
        raise ValueError(f"no neutron scattering length is tabulated for {symbol(number)!r}")
    return float(row["b"])


def form_factor(number: int, q: Float[np.ndarray, "*bins"]) -> Float[np.ndarray, "*bins"]:
    """X-ray form factor of the neutral atom in electrons, without dispersion (Waasmaier and Kirfel 1995).

        f(q) = c + Σ_i a_i exp[-b_i (q / 4π)²]

    `q` in 1/Å, up to 75. Errors: `ValueError` where none is tabulated.

    >>> form_factor(14, np.array([0.0, 5.0])).round(2).tolist()
    [14.0, 7.22]
    """
    row = _scattering().get(number)
    if row is None:
        raise ValueError(f"no X-ray form factor is tabulated for {symbol(number)!r}")
    s2 = (np.asarray(q, np.float64) / (4.0 * np.pi)) ** 2
    terms = [float(row[f"a{i}"]) * np.exp(-float(row[f"b{i}"]) * s2) for i in range(1, 6)]
    return float(row["c"]) + np.sum(terms, axis=0)


@cache
def _scattering() -> dict[int, dict[str, str]]:
    with files("amden").joinpath("scattering.csv").open(encoding="utf-8") as lines:
        return {int(row["Z"]): row for row in csv.DictReader(line for line in lines if not line.startswith("#"))}
