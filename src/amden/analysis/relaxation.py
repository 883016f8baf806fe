"""Potential energies of structures as they are, with any ASE calculator.

A calculator comes as a function that makes one, such as `functools.partial(PotentialCalculator, StillingerWeber())`.
Relaxation is a matter of `simulate`.
"""

from collections.abc import Callable

import numpy as np
from ase.calculators.calculator import Calculator
from jaxtyping import Float

from amden.io import to_ase
from amden.structure import Structures

MakeCalculator = Callable[[], Calculator]


def potential_energies(structures: Structures, *, calculator: MakeCalculator) -> Float[np.ndarray, " systems"]:
    """Potential energy of each structure in eV.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from amden.io import from_ase
    >>> potential_energies(from_ase([bulk("Cu", cubic=True)]), calculator=EMT).round(2).tolist()
    [-0.02]
    """
    shared = calculator()
    energies = np.empty(len(structures))
    for i, atoms in enumerate(to_ase(structures)):
        atoms.calc = shared
        energies[i] = atoms.get_potential_energy()
    return energies
