"""Relaxation's CUDA path where there is no GPU: in Numba's simulator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from amden.simulate.potentials import StillingerWeber, bmp_shrm
from amden.simulate.relaxation import relax, terms

SIMULATION = """
import sys
from types import SimpleNamespace
import numpy as np
from numba.cuda.simulator.cudadrv.devices import FakeCUDAContext
from amden.simulate.potentials import StillingerWeber
from amden.simulate.relaxation import cuda, minimum, relax

cuda._TURNS, cuda._MOST_THREADS = 4, 2  # several launches, of few threads for the simulator's sake
if len(sys.argv) > 2:
    FakeCUDAContext.get_memory_info = lambda _: SimpleNamespace(free=float(sys.argv[2]))
minimum._ROOM = 12  # too few for the primitive cell, which then runs with 24
given, told = np.load(sys.argv[1]), []
found = relax(StillingerWeber(), **given, device="cuda", max_steps=6, progress=told.append)
np.savez(sys.argv[1], told=told, **vars(found))
"""

CHOICE = """
import sys
from dataclasses import replace
import numpy as np
from amden.simulate.potentials import bmp_shrm
from amden.simulate.relaxation import cuda, relax, terms

cuda._TURNS, cuda._MOST_THREADS, terms.ASTRAY, glass = 3, 4, 0.6, bmp_shrm()
short = replace(glass, pair_sums=replace(glass.pair_sums, cutoff=5.0, contact_cutoff=3.5))
found = relax(short, **np.load(sys.argv[1]), force_tolerance=2.0, stress_tolerance=10.0, device="cuda")
np.savez(sys.argv[1], **vars(found))
"""

FIXED_CELL = CHOICE.replace("force_tolerance=2.0, stress_tolerance=10.0", "cell='fixed', force_tolerance=0.02")


@pytest.fixture
def systems():
    """Two primitive cells of diamond, strained, with four atoms of it in a box between them."""
    primitive = 5.6 / 2 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.1], [1.0, 1.0, 0.0]])
    pair = np.array([[0.0, 0.0, 0.0], [1.3, 1.4, 1.5]])
    four = np.array([[0.0, 0.0, 0.0], [2.2, 0.1, 0.0], [-0.7, 2.2, 0.0], [-0.7, -1.0, 2.1]])
    return {
        "positions": np.concatenate([pair, four, pair + 0.05 * np.eye(2, 3)]),
        "cells": np.stack([primitive, 8.0 * np.eye(3), primitive]),
        "n_atoms": np.array([2, 4, 2]),
    }


@pytest.fixture
def simulate(simulated_cuda, tmp_path):
    """What a script leaves of systems."""

    def run(script, systems, *arguments):
        path = tmp_path / "systems.npz"
        np.savez(path, **systems)
        simulated_cuda(script, path, *arguments)
        return np.load(path)

    return run


@pytest.mark.parametrize(("free", "told"), [((), [1, 3]), (("100",), [1, 2, 3])], ids=["endless", "for one system"])
def test_simulated_blocks_of_threads_do_what_the_cpu_does(systems, free, told, simulate):
    """In as much memory as the simulator tells of, and in so little that one system is at work at a time."""
    simulated = simulate(SIMULATION, systems, *free)
    compiled = relax(StillingerWeber(), **systems, max_steps=6, device="cpu")
    assert simulated["told"].tolist() == told
    assert compiled.n_steps.max() == 6
    for name, values in vars(compiled).items():
        np.testing.assert_allclose(simulated[name], values, rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.fixture
def short(monkeypatch):
    """BMP-shrm with short cutoffs for the simulator's sake, compiled for atoms that stray sooner: for it alone."""
    monkeypatch.setattr(terms, "ASTRAY", 0.6)
    glass = bmp_shrm()
    return replace(glass, pair_sums=replace(glass.pair_sums, cutoff=5.0, contact_cutoff=3.5))


def test_terms_of_pairs_are_chosen_anew_in_simulated_blocks_too(simulate, short):
    """Shaken quartz; the minimum after 4 steps has other terms."""
    quartz = read(Path(__file__).parents[1] / "data" / "bmp_meg.extxyz", 1)
    system = {
        "positions": quartz.positions + np.random.default_rng(0).normal(size=(9, 3), scale=0.15),
        "cells": quartz.cell.array[None],
        "n_atoms": np.array([9]),
        "species": np.array([short.symbols.index(name) for name in quartz.get_chemical_symbols()]),
    }
    simulated = simulate(CHOICE, system)
    compiled = relax(short, **system, force_tolerance=2.0, stress_tolerance=10.0, device="cpu")
    assert compiled.converged.all()
    for name, values in vars(compiled).items():
        np.testing.assert_allclose(simulated[name], values, rtol=1e-7, atol=1e-9, err_msg=name)


def test_terms_are_chosen_anew_where_atoms_stray_in_simulated_blocks_too(simulate, short):
    """Lithium and oxygen beyond the reach of their contact, which fall into each other without it: they stray before
    any force is small enough for a choice at a minimum."""
    ions = {
        "positions": np.array([[0.0, 0.0, 0.0], [3.0, 2.0, 1.0]]),
        "cells": 15.0 * np.eye(3)[None],
        "n_atoms": np.array([2]),
        "species": np.array([short.symbols.index(name) for name in ("Li", "O")]),
    }
    simulated = simulate(FIXED_CELL, ions)
    compiled = relax(short, **ions, cell="fixed", force_tolerance=0.02, device="cpu")
    assert compiled.converged.all()
    assert 1.5 < np.linalg.norm(compiled.positions[1] - compiled.positions[0]) < 2.5
    for name, values in vars(compiled).items():
        np.testing.assert_allclose(simulated[name], values, rtol=1e-7, atol=1e-9, err_msg=name)
