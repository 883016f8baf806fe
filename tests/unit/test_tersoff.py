"""Tersoff: derivatives, images, limits, errors; in the engine: forces, conservation, batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from amden.simulate.engine import Segment, run, thermal_state
from amden.simulate.potentials import Potential, evaluate, munetoh_silica
from amden.units import AMU_A2_PER_PS2, EV_PER_A3_IN_GPA

SILICA = munetoh_silica()
SKEWED = np.array([[5.1, 0.2, -0.3], [1.6, 4.8, 0.4], [-1.9, 0.9, 5.2]])
TINY = np.array([[2.7, 0.1, 0.0], [0.6, 2.6, -0.2], [-0.4, 0.5, 2.75]])
FRAMES = read(Path(__file__).parents[1] / "data" / "tersoff_sio2.extxyz", ":")
MELT, GLASS = FRAMES[0], FRAMES[1]


def crowd(cell, n, seed):
    """Atoms no closer than 1.4 Å, so that the energy is smooth on the scale of the differences."""
    rng, placed = np.random.default_rng(seed), []
    images = [np.array([a, b, c]) @ cell for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    while len(placed) < n:
        candidate = rng.random(3) @ cell
        if all(np.linalg.norm(candidate - p + s) > 1.4 for p in placed for s in images):
            placed.append(candidate)
    return np.array(placed), rng.integers(0, 2, n)


def energy(positions, species, cell):
    return evaluate(SILICA, positions, cell[None], np.array([len(positions)]), species=species).energy[0]


CASES = [(SKEWED, 14, 0), (SKEWED, 10, 1), (TINY, 2, 2), (TINY, 1, 3)]


def test_it_is_a_potential():
    assert isinstance(SILICA, Potential)
    assert munetoh_silica() == SILICA
    assert hash(SILICA) == hash(munetoh_silica())


@pytest.mark.parametrize(("cell", "n", "seed"), CASES)
def test_force_is_minus_the_gradient(cell, n, seed):
    positions, species = crowd(cell, n, seed)
    forces = evaluate(SILICA, positions, cell[None], np.array([n]), species=species).forces
    h = 1e-5
    for i in range(0, n, 3):
        for d in range(3):
            step = np.zeros_like(positions)
            step[i, d] = h
            slope = (energy(positions + step, species, cell) - energy(positions - step, species, cell)) / (2 * h)
            assert forces[i, d] == pytest.approx(-slope, abs=2e-6, rel=1e-6)


@pytest.mark.parametrize(("cell", "n", "seed"), CASES)
def test_stress_is_the_derivative_with_strain(cell, n, seed):
    positions, species = crowd(cell, n, seed)
    result, h = evaluate(SILICA, positions, cell[None], np.array([n]), species=species), 1e-6
    for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        strain = np.zeros((3, 3))
        strain[a, b] += h / 2
        strain[b, a] += h / 2
        up, down = np.eye(3) + strain, np.eye(3) - strain
        slope = (energy(positions @ up, species, cell @ up) - energy(positions @ down, species, cell @ down)) / (2 * h)
        assert result.stress[0, a, b] * np.linalg.det(cell) == pytest.approx(slope, abs=2e-5, rel=1e-6)


@pytest.mark.parametrize(("cell", "n", "seed"), CASES)
def test_supercells_have_the_same_forces(cell, n, seed):
    """In the small cells an atom has several images of the same neighbour, and of itself."""
    positions, species = crowd(cell, n, seed)
    shifts = np.array([[a, b, c] for a in range(3) for b in range(2) for c in range(2)])
    many = (positions + (shifts @ cell)[:, None]).reshape(-1, 3)
    one = evaluate(SILICA, positions, cell[None], np.array([n]), species=species)
    big = evaluate(SILICA, many, (cell * [[3], [2], [2]])[None], np.array([12 * n]), species=np.tile(species, 12))
    assert big.energy[0] == pytest.approx(12 * one.energy[0], rel=1e-12)
    np.testing.assert_allclose(big.forces, np.tile(one.forces, (12, 1)), atol=1e-9)
    np.testing.assert_allclose(big.stress, one.stress, atol=1e-11)


def test_a_dimer_has_the_energy_of_the_pair_functions():
    """One bond, no third atom: b = 1."""
    bond, r = SILICA.bonds[1], 1.6
    dimer = np.array([[0.0, 0.0, 0.0], [r, 0.0, 0.0]])
    expected = bond.A * np.exp(-bond.lambda1 * r) - bond.B * np.exp(-bond.lambda2 * r)
    assert energy(dimer, np.array([0, 1]), 20.0 * np.eye(3)) == pytest.approx(expected, rel=1e-12)


def test_the_energy_ends_smoothly_at_the_cutoffs():
    for species, reach in (((0, 0), 2.8), ((0, 1), 5.6**0.5), ((1, 1), 2.0)):
        cell, kinds = 20.0 * np.eye(3), np.array([*species, 0])
        far = np.array([[0.0, 0.0, 0.0], [reach + 1e-9, 0.0, 0.0], [10.0, 10.0, 10.0]])
        near = far - [[0.0, 0.0, 0.0], [1e-4, 0.0, 0.0], [0.0, 0.0, 0.0]]
        results = [evaluate(SILICA, p, cell[None], np.array([3]), species=kinds) for p in (far, near)]
        assert results[0].energy[0] == 0.0
        assert not results[0].forces.any()
        assert 0.0 < abs(results[1].energy[0]) < 1e-6
        assert 0.0 < np.abs(results[1].forces).max() < 2e-2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": ()}, "0 `symbols` need 0 `centers` and 0 `bonds`, got 2 and 3"),
        ({"bonds": SILICA.bonds[:2]}, "2 `symbols` need 2 `centers` and 3 `bonds`, got 2 and 2"),
        ({"bonds": (replace(SILICA.bonds[0], R=2.9), *SILICA.bonds[1:])}, "`R` and `S` of a bond must be positive and"),
        ({"centers": (replace(SILICA.centers[0], n=0.0), SILICA.centers[1])}, "`n` and `beta` of a centre must be"),
    ],
)
def test_bad_parameters_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SILICA, **change)


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


def test_the_engine_has_the_forces_of_evaluate():
    """From rest, one very short step gives v = F dt / m."""
    timestep, state = 1e-6, state_of(MELT, GLASS, temperature=0.0)
    new, record = run(state, SILICA, Segment(1, timestep=timestep))
    exact = evaluate(SILICA, state.positions, state.cell, state.n_atoms, species=state.species.astype(int))
    masses = np.array([28.085, 15.999])[state.species][:, None]
    forces = new.velocities * (masses * AMU_A2_PER_PS2 / timestep)
    np.testing.assert_allclose(forces, exact.forces, rtol=1e-6, atol=2e-4)
    assert np.sqrt(np.mean((forces - exact.forces) ** 2)) < 5e-5  # float32; processors differ by a fifth
    np.testing.assert_allclose(record.final.potential_energy, exact.energy / state.n_atoms, atol=5e-6)
    pressure = -np.trace(exact.stress, axis1=1, axis2=2) / 3 * EV_PER_A3_IN_GPA
    np.testing.assert_allclose(record.final.pressure, pressure, atol=1e-3)


def test_energy_and_momentum_are_conserved():
    """0.5 fs at 3500 K: 0.7 meV an atom of noise. (1 fs heats by 24 meV/ps, in LAMMPS too: f is short and steep.)"""
    state, _ = run(state_of(MELT), SILICA, Segment(500, timestep=0.0005, temperature=(3500.0, 3500.0)))
    new, record = run(state, SILICA, Segment(4000, timestep=0.0005))
    masses = np.array([28.085, 15.999])[new.species][:, None]
    assert np.abs((masses * new.velocities).sum(axis=0) / masses.sum()).max() < 2e-4
    assert record.deviation.total_energy[0] < 3e-3
    assert abs(record.final.total_energy[0] - record.mean.total_energy[0]) < 6e-3
    assert record.deviation.potential_energy[0] > 0.02


def test_a_system_depends_on_no_other_and_on_no_list():
    npt = Segment(300, timestep=0.001, temperature=(3500.0, 2500.0), pressure=1.0)
    both, _ = run(state_of(MELT, GLASS), SILICA, npt)
    alone, last = state_of(GLASS, first_seed=11), None
    for first, n in ((0, 7), (7, 93), (100, 200)):
        alone, last = run(alone, SILICA, npt, first_step=first, n_steps=n)
    assert last is not None
    np.testing.assert_array_equal(both.positions[len(MELT) :], alone.positions)
    np.testing.assert_array_equal(both.velocities[len(MELT) :], alone.velocities)
    np.testing.assert_array_equal(both.cell[1], alone.cell[0])
