"""BMP-shrm on CUDA against the CPU and against float64, in cells of up to 1,024 atoms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from amden.elements import MASSES, atomic_number
from amden.simulate.engine import MDState, Segment, run, thermal_state
from amden.simulate.oxides import neutral_counts, with_oxygen
from amden.simulate.packing import ion_distances, random_ion_packing
from amden.simulate.potentials import bmp_shrm, evaluate
from amden.simulate.relaxation import relax
from amden.units import AMU_A2_PER_PS2, EV_PER_A3_IN_GPA

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

GLASS = bmp_shrm()
MASS = MASSES[[atomic_number(symbol) for symbol in GLASS.symbols]]
MELT = read(Path(__file__).parents[1] / "data" / "bmp_meg.extxyz", "0")
SKEW = np.array([[1.0, 0.0, 0.0], [0.2, 0.95, 0.0], [-0.15, 0.2, 1.05]])
CATIONS = {"Si": 0.35, "P": 0.1, "Al": 0.15, "Li": 0.1, "Be": 0.1, "K": 0.05, "Ca": 0.05, "Ti": 0.05, "Ba": 0.05}
NPT = Segment(200, timestep=0.002, temperature=(3000.0, 2500.0), pressure=0.0)


def kinds(symbols):
    return np.array([GLASS.symbols.index(symbol) for symbol in symbols], np.uint8)


def frames():
    """The stored melt as it is and skewed, at rest."""
    return thermal_state(
        GLASS,
        np.concatenate([MELT.positions, MELT.positions @ SKEW]),
        cell=np.stack([MELT.cell.array, MELT.cell.array @ SKEW]),
        n_atoms=np.array([len(MELT), len(MELT)]),
        seed=np.array([1, 2]),
        temperature=0.0,
        species=np.tile(kinds(MELT.get_chemical_symbols()), 2),
    )


def melts(sizes) -> MDState:
    """Random ions after a soft start on the CPU; equal sizes are equal cells."""
    counts = [neutral_counts(with_oxygen(CATIONS), n_atoms=n) for n in sizes]
    species = [kinds([symbol for symbol, n in c.items() for _ in range(n)]) for c in counts]
    packings = [
        random_ion_packing(
            s.astype(int), volume=len(s) / 0.065, min_distances=ion_distances(GLASS.symbols), seed=len(s)
        )
        for s in species
    ]
    state = thermal_state(
        GLASS,
        np.concatenate([positions for positions, _ in packings]),
        cell=np.stack([cell for _, cell in packings]),
        n_atoms=np.array([len(s) for s in species]),
        seed=np.array([len(s) for s in species]),
        temperature=300.0,
        species=np.concatenate(species),
    )
    soft = Segment(200, timestep=0.001, temperature=(300.0, 3000.0), max_displacement=0.03)
    return run(state, GLASS, soft, device="cuda")[0]


def test_forces_energy_and_pressure_are_those_of_evaluate():
    """From rest, one very short step gives v = F dt / m; the cells are 18.7 Å wide."""
    state, timestep = frames(), 1e-6
    new, record = run(state, GLASS, Segment(1, timestep=timestep), device="cuda")
    exact = evaluate(GLASS, state.positions, state.cell, state.n_atoms, species=state.species.astype(int))
    forces = new.velocities * (MASS[state.species][:, None] * AMU_A2_PER_PS2 / timestep)
    np.testing.assert_allclose(forces, exact.forces, rtol=1e-5, atol=1e-3)
    assert np.sqrt(np.mean((forces - exact.forces) ** 2)) < 1e-4
    np.testing.assert_allclose(record.final.potential_energy, exact.energy / state.n_atoms, atol=2e-5)
    pressure = -np.trace(exact.stress, axis1=1, axis2=2) / 3 * EV_PER_A3_IN_GPA
    np.testing.assert_allclose(record.final.pressure, pressure, atol=3e-3)


def test_every_size_agrees_with_the_cpu():
    """Velocities after 5 fs: motion and moments in shared and in global memory."""
    state = melts([210, 300, 402, 510, 640, 800, 1010])
    segment = Segment(5, timestep=0.001, temperature=(3000.0, 3000.0), pressure=0.0)
    gpu, cpu = (run(state, GLASS, segment, device=device) for device in ("cuda", "cpu"))
    assert not gpu[1].failed.any()
    np.testing.assert_allclose(gpu[0].cell, cpu[0].cell, rtol=1e-5)
    np.testing.assert_allclose(gpu[0].velocities, cpu[0].velocities, atol=2e-2)
    np.testing.assert_allclose(gpu[1].final.potential_energy, cpu[1].final.potential_energy, atol=1e-4)


def test_slices_and_batches_change_no_bit():
    state = melts([402, 800, 402])
    whole, record = run(state, GLASS, NPT, device="cuda")
    assert not record.failed.any()
    sliced = state
    for first, n in ((0, 33), (33, 67), (100, 100)):
        sliced, _ = run(sliced, GLASS, NPT, device="cuda", first_step=first, n_steps=n)
    for name in ("positions", "velocities", "cell"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(sliced, name), err_msg=name)
    n = int(state.n_atoms[0])
    np.testing.assert_array_equal(whole.positions[:n], whole.positions[-n:])


def test_relaxation_agrees_with_the_cpu():
    state = melts([210])
    arguments = {"species": state.species.astype(int), "cell": "fixed", "force_tolerance": 0.05}
    gpu, cpu = (
        relax(GLASS, state.positions, state.cell, state.n_atoms, max_steps=20, device=device, **arguments)
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(gpu.energy, cpu.energy, rtol=1e-9)
