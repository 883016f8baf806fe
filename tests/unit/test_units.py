"""Against CODATA as scipy has it, and against ASE; both are newer or older editions, so to eight digits."""

import ase.units
import pytest
from scipy import constants

from amden import units


def test_constants_are_codata():
    amu = constants.physical_constants["atomic mass constant"][0]
    assert pytest.approx(constants.k / constants.e, rel=1e-9) == units.KB
    assert pytest.approx(amu * (1e-10 / 1e-12) ** 2 / constants.e, rel=1e-8) == units.AMU_A2_PER_PS2
    assert pytest.approx(constants.e / 1e-30 / 1e9, rel=1e-12) == units.EV_PER_A3_IN_GPA
    assert pytest.approx(amu * 1e3 / (1e-8) ** 3, rel=1e-8) == units.AMU_PER_A3_IN_G_PER_CM3


def test_units_agree_with_ase():
    assert pytest.approx(ase.units.kB, rel=1e-6) == units.KB
    assert pytest.approx(1 / ase.units.GPa, rel=1e-6) == units.EV_PER_A3_IN_GPA
    picosecond = 1000 * ase.units.fs
    assert pytest.approx(1 / picosecond**2, rel=1e-6) == units.AMU_A2_PER_PS2


def test_argon_at_room_temperature_moves_at_431_m_per_s():
    """Root mean square speed of an ideal gas, sqrt(3 kT/m); Ar at 298.15 K: 431 m/s (kinetic theory)."""
    speed = (3 * units.KB * 298.15 / (39.948 * units.AMU_A2_PER_PS2)) ** 0.5
    assert 100 * speed == pytest.approx(431.4, abs=0.5)  # 1 Å/ps = 100 m/s
