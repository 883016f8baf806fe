"""Elastic constants of Stillinger-Weber silicon against the literature, by both ways of relaxing."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from amden.analysis.elastic import elastic_tensor, one_sided_moduli
from amden.io import from_ase
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.moduli import calculator_stress, relaxed_stress
from amden.simulate.potentials import StillingerWeber
from amden.testing import diamond

GLASS = read(Path(__file__).parents[1] / "data" / "sw_si.extxyz", 3)
"""256 atoms at a minimum with their cell (`tests/data/README.md`)."""
SILICON = from_ase([bulk("Si", a=5.43095)])


def test_diamond_silicon():
    """c11 = 151.4, c12 = 76.4, c44 = 56.4 GPa: E. R. Cowley, Phys. Rev. Lett. 60, 2379 (1988)."""
    found = elastic_tensor(SILICON, stress=relaxed_stress(StillingerWeber(), device="cpu"))
    expected = np.diag([151.4 - 76.4] * 3 + [56.4] * 3)
    expected[:3, :3] += 76.4
    np.testing.assert_allclose(found.tensor[0], expected, atol=0.06)
    assert found.asymmetry[0] < 1e-3
    assert found.converged.all()
    assert found.positive_definite.all()
    assert np.abs(found.stress).max() < 1e-3


def test_diamond_silicon_with_atoms_held():
    """c44 = 117.2 GPa without relaxation for a cohesive energy scaled to 4.63 eV an atom, 1.0676 times ours: Balamane,
    Halicioglu and Tiller, Phys. Rev. B 46, 2250 (1992)."""
    calculator = partial(PotentialCalculator, StillingerWeber())
    found = elastic_tensor(SILICON, stress=calculator_stress(calculator, max_steps=0))
    assert found.tensor[0, 3, 3] * 4.63 / 4.3366 == pytest.approx(117.2, abs=0.1)
    assert found.tensor[0, 0, 0] == pytest.approx(151.4, abs=0.06)
    assert found.converged.tolist() == [False]


def test_an_ase_calculator_gives_the_same():
    calculator = partial(PotentialCalculator, StillingerWeber())
    one = one_sided_moduli(SILICON, stress=calculator_stress(calculator))
    other = one_sided_moduli(SILICON, stress=relaxed_stress(StillingerWeber(), device="cpu"))
    np.testing.assert_allclose(one.components, other.components, atol=2e-3)
    assert one.converged.tolist() == other.converged.tolist() == [True]


def test_a_glass_is_stiffer_where_its_atoms_may_lag_behind():
    """Relaxed to the paper's 0.05 eV/Å, 2-4 GPa in G; at small strain nothing moves at all, and G doubles."""
    glass = from_ase([GLASS])
    loose, tight = (
        one_sided_moduli(glass, stress=relaxed_stress(StillingerWeber(), force_tolerance=f, device="cpu"))
        for f in (0.05, 0.001)
    )
    assert tight.converged.all()
    assert 2.0 < loose.shear[0] - tight.shear[0] < 8.0
    held, moved = (
        elastic_tensor(glass, stress=relaxed_stress(StillingerWeber(), force_tolerance=f, device="cpu"))
        for f in (0.05, 1e-5)
    )
    assert held.hill.shear[0] > 2.0 * moved.hill.shear[0]
    assert moved.asymmetry[0] < 0.2


def test_bad_input():
    with pytest.raises(ValueError, match=r"the potential does not know C, it knows Si"):
        elastic_tensor(diamond(species=6), stress=relaxed_stress(StillingerWeber()))
    with pytest.raises(
        ValueError, match=r"`force_tolerance` must be positive and `max_steps` not negative, got 0.0 an"
    ):
        calculator_stress(partial(PotentialCalculator, StillingerWeber()), force_tolerance=0.0)
