"""Relaxation on CUDA against the CPU: the same steps, the same minima."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import iread

from amden.simulate.potentials import StillingerWeber, evaluate, munetoh_silica
from amden.simulate.relaxation import cuda, minimum, relax

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

DATA = Path(__file__).parents[1] / "data"
SW, SILICA = StillingerWeber(), munetoh_silica()


def batch(potential, name, index, repeats=1, shake=0.0):
    frames = [atoms for atoms in iread(DATA / name, index) for _ in range(repeats)]
    species = np.concatenate([[potential.symbols.index(s) for s in f.get_chemical_symbols()] for f in frames])
    positions = np.concatenate([f.positions for f in frames])
    positions = positions + shake * np.random.default_rng(0).normal(size=positions.shape)
    cells, n_atoms = np.stack([f.cell.array for f in frames]), np.array([len(f) for f in frames])
    return {"positions": positions, "cells": cells, "n_atoms": n_atoms, "species": species}


CASES = [(SW, "sw_si.extxyz", "1:7"), (SW, "glasses.extxyz", "0:2"), (SILICA, "glasses.extxyz", "2:4")]


@pytest.mark.parametrize(("potential", "name", "index"), CASES)
@pytest.mark.parametrize("cell", ["variable", "fixed"])
def test_first_steps_are_those_of_the_cpu(potential, name, index, cell):
    systems = batch(potential, name, index, shake=0.02)
    host, device = (relax(potential, **systems, cell=cell, max_steps=8, device=d) for d in ("cpu", "cuda"))
    for field in ("positions", "cell", "energy", "max_force", "max_stress", "stress"):
        np.testing.assert_allclose(getattr(device, field), getattr(host, field), rtol=1e-6, atol=1e-7, err_msg=field)
    np.testing.assert_array_equal(device.n_steps, host.n_steps)


@pytest.mark.parametrize(("potential", "name", "index"), CASES)
def test_minima_are_those_of_the_cpu(potential, name, index):
    systems = batch(potential, name, index)
    host, device = (relax(potential, **systems, device=d) for d in ("cpu", "cuda"))
    assert device.converged.all()
    n_atoms = systems["n_atoms"]
    np.testing.assert_allclose(device.energy / n_atoms, host.energy / n_atoms, atol=1e-4)
    exact = evaluate(potential, device.positions, device.cell, n_atoms, species=systems["species"])
    np.testing.assert_allclose(device.energy, exact.energy, rtol=1e-12)
    np.testing.assert_allclose(device.stress, exact.stress, atol=1e-10)


def test_a_system_is_the_same_in_any_batch_and_however_it_is_cut_bit_by_bit(monkeypatch):
    systems = batch(SW, "sw_si.extxyz", "0:7", repeats=20, shake=0.1)
    told = []
    whole = relax(SW, **systems, device="cuda", progress=told.append)
    assert told[-1] == len(systems["cells"])
    assert sorted(told) == told
    monkeypatch.setattr(cuda, "_TURNS", 7)
    monkeypatch.setattr(cuda, "_MOST_MEMORY", 16 * 2**20)
    monkeypatch.setattr(minimum, "_ROOM", 20)
    cut = relax(SW, **systems, device="cuda")
    for name in vars(whole):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name), err_msg=name)
    alone = {
        name: systems[name][:n] for name, n in (("positions", 256), ("cells", 1), ("n_atoms", 1), ("species", 256))
    }
    assert relax(SW, **alone, device="cuda").energy[0] == whole.energy[0]


def test_atoms_in_the_same_place_fail_alone():
    systems = batch(SW, "glasses.extxyz", "0:2")
    systems["positions"][1] = systems["positions"][0]
    found = relax(SW, **systems, device="cuda")
    assert found.converged.tolist() == [False, True]
    assert np.isnan(found.energy[0])
