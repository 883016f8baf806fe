"""The engine on CUDA against the CPU and against float64."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from amden.simulate.engine import MDState, Segment, run, thermal_state
from amden.simulate.packing import random_packing
from amden.simulate.potentials import StillingerWeber, evaluate
from amden.units import AMU_A2_PER_PS2, EV_PER_A3_IN_GPA, KB

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SW = StillingerWeber()
FRAMES = read(Path(__file__).parents[1] / "data" / "sw_si.extxyz", ":")
NPT = Segment(400, temperature=(2500.0, 1500.0), pressure=1.0)


def state_of(*frames, temperature=2500.0, first_seed=10):
    return thermal_state(
        SW,
        np.concatenate([frame.positions for frame in frames]),
        cell=np.stack([frame.cell.array for frame in frames]),
        n_atoms=np.array([len(frame) for frame in frames]),
        seed=first_seed + np.arange(len(frames)),
        temperature=temperature,
    )


def packed(n_systems, n, *, density=0.05, temperature=2500.0):
    starts = [random_packing(n, volume=n / density, min_distance=2.1, seed=seed) for seed in range(n_systems)]
    return thermal_state(
        SW,
        np.concatenate([positions for positions, _ in starts]),
        cell=np.stack([cell for _, cell in starts]),
        n_atoms=np.full(n_systems, n),
        seed=np.arange(n_systems),
        temperature=temperature,
    )


def joined(a, b):
    return MDState(**{name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in vars(a)})


def assert_same(a, b):
    for name in ("positions", "velocities", "cell", "step"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_forces_energy_and_pressure_are_those_of_evaluate():
    """From rest, one very short step gives v = F dt / m; cells of 64 and 256 atoms, cubes and skewed, in one batch."""
    frames, timestep = FRAMES[:5], 1e-6
    new, record = run(state_of(*frames, temperature=0.0), SW, Segment(1, timestep=timestep), device="cuda")
    cells, n_atoms = np.stack([f.cell.array for f in frames]), np.array([len(f) for f in frames])
    exact = evaluate(SW, np.concatenate([f.positions for f in frames]), cells, n_atoms)
    forces = new.velocities * (28.085 * AMU_A2_PER_PS2 / timestep)
    np.testing.assert_allclose(forces, exact.forces, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(record.final.potential_energy, exact.energy / n_atoms, atol=1e-5)
    pressure = -np.trace(exact.stress, axis1=1, axis2=2) / 3 * EV_PER_A3_IN_GPA
    np.testing.assert_allclose(record.final.pressure, pressure, atol=1e-3)


@pytest.mark.parametrize("n", [40, 64, 100, 129, 256, 257, 512])
def test_every_size_agrees_with_the_cpu(n):
    """Positions after 10 fs: long enough for wrong forces, too short for chaos."""
    state = packed(2, n)
    gpu, cpu = (run(state, SW, replace(NPT, n_steps=5), device=device) for device in ("cuda", "cpu"))
    assert not gpu[1].failed.any()
    np.testing.assert_allclose(gpu[0].cell, cpu[0].cell, rtol=1e-5)
    np.testing.assert_allclose(gpu[0].velocities, cpu[0].velocities, atol=5e-3)
    np.testing.assert_allclose(gpu[1].final.potential_energy, cpu[1].final.potential_energy, atol=5e-5)


def test_more_atoms_than_threads_agree_with_the_cpu():
    """1,100 atoms on 576 threads, of which most have two; a smaller system beside them changes no bit."""
    large, small = packed(1, 1100), packed(1, 100)
    gpu, cpu = (run(large, SW, replace(NPT, n_steps=5), device=device) for device in ("cuda", "cpu"))
    assert not gpu[1].failed.any()
    np.testing.assert_allclose(gpu[0].cell, cpu[0].cell, rtol=1e-5)
    np.testing.assert_allclose(gpu[0].velocities, cpu[0].velocities, atol=5e-3)
    np.testing.assert_allclose(gpu[1].final.potential_energy, cpu[1].final.potential_energy, atol=5e-5)
    both, _ = run(joined(small, large), SW, replace(NPT, n_steps=5), device="cuda")
    np.testing.assert_array_equal(both.positions[100:], gpu[0].positions)


def test_slices_and_batches_change_no_bit():
    state = state_of(*FRAMES[:5])
    whole, _ = run(state, SW, NPT, device="cuda")
    sliced = state
    for first, n in ((0, 33), (33, 167), (200, 200)):
        sliced, _ = run(sliced, SW, NPT, device="cuda", first_step=first, n_steps=n)
    assert_same(whole, sliced)
    alone, _ = run(state_of(FRAMES[2], first_seed=12), SW, NPT, device="cuda")
    np.testing.assert_array_equal(alone.positions, whole.positions[512:768])


def test_energy_is_conserved():
    state, _ = run(packed(8, 256), SW, Segment(5000, temperature=(2500.0, 2500.0)), device="cuda")
    new, record = run(state, SW, Segment(5000), device="cuda")
    assert np.all(record.deviation.total_energy < 1.2e-4)
    assert np.all(np.abs(record.final.total_energy - record.mean.total_energy) < 4e-4)
    assert np.abs(new.velocities.reshape(8, 256, 3).mean(axis=1)).max() < 1e-3


def test_melt_has_the_density_and_energy_of_lammps():
    """2500 K and no pressure: 2.4125 g/cm³ and a frame energy of -3.63 eV an atom in LAMMPS."""
    segment = Segment(20_000, temperature=(2500.0, 2500.0), pressure=0.0)
    state, record = run(packed(200, 256), SW, segment, device="cuda", n_steps=10_000)
    state, record = run(state, SW, segment, device="cuda", first_step=10_000)
    assert not record.failed.any()
    density = 256 * 28.085 * 1.66053906660 / record.mean.volume
    assert density.mean() == pytest.approx(2.4125, abs=0.01)
    assert record.mean.potential_energy.mean() == pytest.approx(-3.632, abs=0.01)
    assert record.mean.pressure.mean() == pytest.approx(0.0, abs=0.05)
    kinetic = record.final.temperature
    assert kinetic.mean() == pytest.approx(2500.0, rel=0.01)
    assert kinetic.var() == pytest.approx(2500.0**2 * 2 / 765, rel=0.4)


def test_ideal_gas_has_the_exact_volumes():
    n, volume, temperature = 4, 4.0e5, 1.0e5
    pressure = (n + 1) * KB * temperature / volume * EV_PER_A3_IN_GPA
    segment = Segment(
        8000, temperature=(temperature,) * 2, pressure=pressure, tau_T=0.05, tau_P=0.5, compressibility=1.0 / pressure
    )
    _, record = run(packed(4000, n, density=n / volume, temperature=temperature), SW, segment, device="cuda")
    assert record.final.volume.mean() == pytest.approx(volume, rel=0.03)
    assert record.final.volume.std() == pytest.approx(volume / (n + 1) ** 0.5, rel=0.05)


def test_too_many_atoms_are_refused():
    with pytest.raises(ValueError, match="`n_atoms` must be at most 2048 on cuda, got 2049"):
        run(packed(1, 2049), SW, NPT, device="cuda")


def test_failed_system_leaves_the_others_alone():
    state = packed(2, 64)
    positions = state.positions.copy()
    positions[1] = positions[0] + 1e-4
    new, record = run(replace(state, positions=positions), SW, NPT, device="cuda")
    good, _ = run(state, SW, NPT, device="cuda")
    assert record.failed.tolist() == [True, False]
    np.testing.assert_array_equal(new.positions[64:], good.positions[64:])
