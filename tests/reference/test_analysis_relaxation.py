"""Minima of Stillinger-Weber silicon against those that other programs find from the same start."""

from functools import partial
from pathlib import Path

import numpy as np

from amden.analysis.relaxation import relax
from amden.io import read_structures
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.potentials import StillingerWeber

FRAMES = Path(__file__).parents[1] / "data" / "sw_si.extxyz"


def test_a_quench_and_a_relaxed_anneal():
    structures = read_structures(FRAMES, index="1:4:2")
    found = relax(structures, calculator=partial(PotentialCalculator, StillingerWeber()), workers=1)
    assert found.converged.all()
    # The quench as ASE 3.29 relaxes it: FrechetCellFilter, PreconLBFGS with the Exp preconditioner, fmax 0.005;
    # the anneal as LAMMPS has relaxed it.
    lammps = structures.properties["lammps_energy"][1].item() / 256
    np.testing.assert_allclose(found.energy / 256, [-4.08063, lammps], atol=1e-4)
