"""The chemical elements by atomic number: symbols, masses, covalent radii. Number 0 (`X`) is the ghost atom.

The tables are ASE's; what amden adds is the ghost and errors that name the choices.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols, covalent_radii

GHOST: Final = 0
"""Atomic number of the ghost atom, a vacancy that takes part in the diffusion and is removed at the end."""

MASSES: Final = np.array([0.0, *atomic_masses[1:]])
"""Standard atomic weights in amu by atomic number; the ghost weighs nothing."""

COVALENT_RADII: Final = np.array([0.0, *covalent_radii[1:]])
"""Covalent radii in Å by atomic number (Cordero et al., Dalton Trans. 2008, 2832)."""


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
