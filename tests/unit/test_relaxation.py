"""Energies of structures as they are."""

from functools import partial

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

from amden.analysis.relaxation import potential_energies
from amden.io import from_ase


def test_energies_are_those_of_the_calculator():
    images = [bulk("Cu", a=a, cubic=True) for a in (3.5, 3.7)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
    expected = [atoms.get_potential_energy() for atoms in images]
    np.testing.assert_allclose(potential_energies(from_ase(images), calculator=partial(EMT)), expected)
