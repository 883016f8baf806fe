"""The protocols `sio2` and `si-anneal` on CUDA, against the CPU engine and LAMMPS."""

import numpy as np
import pytest
import torch

from amden.random import spawn_seeds
from amden.simulate.catalogue import find_protocol
from amden.simulate.runs import run_protocol

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_silica_is_that_of_the_cpu():
    """Eight cells on the CPU: 2.251 g/cm³ (0.13 between cells), -6.512 eV an atom; LAMMPS: 2.25 g/cm³."""
    seeds = spawn_seeds(11, 264).tolist()
    runs = run_protocol(find_protocol("sio2"), seeds, device="cuda")
    frames = runs.structures
    assert not runs.failures
    assert frames.n_atoms.tolist() == find_protocol("sio2").sizes(seeds).tolist()
    assert 2.22 < frames.properties["density"].mean() < 2.28
    assert abs(frames.properties["potential_energy"].mean() + 6.512) < 0.015
    assert abs(frames.properties["temperature"].mean() - 300.0) < 3.0

    place = int(np.argmin(frames.n_atoms.numpy()))
    alone = run_protocol(find_protocol("sio2"), seeds[place : place + 1], device="cuda").structures
    assert torch.equal(alone.positions, frames.select([place]).positions)


def test_annealed_silicon_is_that_of_lammps():
    """150 cells in LAMMPS: 2.410 g/cm³; two frames: -4.090 eV an atom."""
    runs = run_protocol(find_protocol("si-anneal"), spawn_seeds(11, 132).tolist(), device="cuda")
    assert not runs.failures
    assert 2.395 < runs.structures.properties["density"].mean() < 2.425
    assert abs(runs.structures.properties["potential_energy"].mean() + 4.090) < 0.01
    assert abs(runs.structures.properties["temperature"].mean() - 300.0) < 3.0
