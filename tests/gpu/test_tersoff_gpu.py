"""Tersoff on CUDA against the CPU and against float64, in batches of cells of many sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from amden.simulate.engine import Segment, run, thermal_state
from amden.simulate.packing import random_packing
from amden.simulate.potentials import evaluate, munetoh_silica
from amden.units import AMU_A2_PER_PS2, EV_PER_A3_IN_GPA

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SILICA = munetoh_silica()
MASSES = np.array([28.085, 15.999])
FRAMES = read(Path(__file__).parents[1] / "data" / "tersoff_sio2.extxyz", ":4")
NPT = Segment(400, timestep=0.0005, temperature=(3500.0, 2500.0), pressure=1.0)


def state_of(*frames, temperature=3500.0, first_seed=10):
    return thermal_state(
        SILICA,
        np.concatenate([frame.positions for frame in frames]),
        cell=np.stack([frame.cell.array for frame in frames]),
        n_atoms=np.array([len(frame) for frame in frames]),
        seed=first_seed + np.arange(len(frames)),
        temperature=temperature,
        species=np.concatenate([(frame.symbols == "O").astype(np.uint8) for frame in frames]),
    )


def packed(units):
    starts = [random_packing(3 * n, volume=48.0 * n, min_distance=2.0, seed=n) for n in units]
    return thermal_state(
        SILICA,
        np.concatenate([positions for positions, _ in starts]),
        cell=np.stack([cell for _, cell in starts]),
        n_atoms=3 * np.array(units),
        seed=np.array(units),
        temperature=3500.0,
        species=np.concatenate([np.repeat(np.array([0, 1], np.uint8), [n, 2 * n]) for n in units]),
    )


def test_forces_energy_and_pressure_are_those_of_evaluate():
    """From rest, one very short step gives v = F dt / m; cubes and skewed cells of 90 to 219 atoms in one batch."""
    state, timestep = state_of(*FRAMES, temperature=0.0), 1e-6
    new, record = run(state, SILICA, Segment(1, timestep=timestep), device="cuda")
    exact = evaluate(SILICA, state.positions, state.cell, state.n_atoms, species=state.species.astype(int))
    forces = new.velocities * (MASSES[state.species][:, None] * AMU_A2_PER_PS2 / timestep)
    np.testing.assert_allclose(forces, exact.forces, rtol=1e-5, atol=1e-3)
    assert np.sqrt(np.mean((forces - exact.forces) ** 2)) < 1e-4
    np.testing.assert_allclose(record.final.potential_energy, exact.energy / state.n_atoms, atol=1e-5)
    pressure = -np.trace(exact.stress, axis1=1, axis2=2) / 3 * EV_PER_A3_IN_GPA
    np.testing.assert_allclose(record.final.pressure, pressure, atol=3e-3)


def test_every_size_agrees_with_the_cpu():
    """Velocities after 5 fs, in one batch: memory for 64 to 512 atoms, lists and moments in all places."""
    state = packed([12, 21, 22, 42, 43, 64, 65, 83, 85, 86, 128, 129, 170])
    segment = Segment(10, timestep=0.0005, temperature=(3500.0, 3500.0), pressure=0.0)
    gpu, cpu = (run(state, SILICA, segment, device=device) for device in ("cuda", "cpu"))
    assert not gpu[1].failed.any()
    np.testing.assert_allclose(gpu[0].cell, cpu[0].cell, rtol=1e-5)
    np.testing.assert_allclose(gpu[0].velocities, cpu[0].velocities, atol=2e-2)
    np.testing.assert_allclose(gpu[1].final.potential_energy, cpu[1].final.potential_energy, atol=1e-4)


def test_slices_and_batches_of_many_sizes_change_no_bit():
    units = [83, 27, 55, 30, 64, 43, 42, 33, 83, 70]
    state = packed(units)
    whole, _ = run(state, SILICA, NPT, device="cuda")
    sliced = state
    for first, n in ((0, 33), (33, 167), (200, 200)):
        sliced, _ = run(sliced, SILICA, NPT, device="cuda", first_step=first, n_steps=n)
    for name in ("positions", "velocities", "cell"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(sliced, name), err_msg=name)
    for place in (0, 1, 4):
        alone, _ = run(packed(units[place : place + 1]), SILICA, NPT, device="cuda")
        first = int(whole.offsets[place])
        np.testing.assert_array_equal(alone.positions, whole.positions[first : first + 3 * units[place]])


def test_energy_is_conserved():
    """0.5 fs in the melt; the CPU engine leaves 0.7 meV an atom of noise and no drift that could be told from it."""
    state = state_of(*8 * [FRAMES[0]])
    state, _ = run(state, SILICA, Segment(4000, timestep=0.0005, temperature=(3500.0, 3500.0)), device="cuda")
    new, record = run(state, SILICA, Segment(4000, timestep=0.0005), device="cuda")
    assert np.all(record.deviation.total_energy < 4e-3)
    assert np.mean(record.deviation.total_energy) < 2e-3
    momenta = (MASSES[new.species][:, None] * new.velocities).reshape(8, -1, 3).sum(axis=1)
    assert np.abs(momenta).max() / MASSES[new.species[:117]].sum() < 1e-3


def test_too_many_neighbours_stop_a_system():
    """Eleven silicon atoms within 2.5 Å of one: more than a block has room for."""
    crowd = random_packing(150, volume=900.0, min_distance=1.3, seed=1)
    state = thermal_state(
        SILICA, crowd[0], cell=crowd[1][None], n_atoms=np.array([150]), seed=np.array([1]), temperature=10.0
    )
    _, record = run(state, SILICA, NPT, device="cuda")
    assert record.failure.tolist() == [2]
