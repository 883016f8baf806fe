"""The engine: forces, independence of batch and slices, conservation, failures, errors."""

from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from ase.io import read

from amden.simulate.engine import FAILURES, MDState, Segment, run, thermal_state
from amden.simulate.packing import random_packing
from amden.simulate.potentials import StillingerWeber, evaluate
from amden.units import AMU_A2_PER_PS2, EV_PER_A3_IN_GPA

SW = StillingerWeber()
FRAMES = read(Path(__file__).parents[1] / "data" / "sw_si.extxyz", ":")
MELT, SKEWED = FRAMES[0], FRAMES[4]
NPT = Segment(60, temperature=(2500.0, 1500.0), pressure=1.0)


def state_of(*frames, temperature=2500.0, first_seed=10):
    return thermal_state(
        SW,
        np.concatenate([frame.positions for frame in frames]),
        cell=np.stack([frame.cell.array for frame in frames]),
        n_atoms=np.array([len(frame) for frame in frames]),
        seed=first_seed + np.arange(len(frames)),
        temperature=temperature,
    )


def packed(n=32, *, length=9.0, min_distance=2.0, seeds=(1,), temperature=2000.0):
    starts = [random_packing(n, volume=length**3, min_distance=min_distance, seed=seed) for seed in seeds]
    return thermal_state(
        SW,
        np.concatenate([positions for positions, _ in starts]),
        cell=np.stack([cell for _, cell in starts]),
        n_atoms=np.full(len(starts), n),
        seed=np.array(seeds),
        temperature=temperature,
    )


def assert_same(a: MDState, b: MDState):
    for name in ("positions", "velocities", "cell", "step"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("frame", [MELT, SKEWED], ids=["cube", "skewed"])
def test_forces_energy_and_pressure_are_those_of_evaluate(frame):
    """From rest, one very short step gives v = F dt / m."""
    timestep, state = 1e-6, state_of(frame, temperature=0.0)
    new, record = run(state, SW, Segment(1, timestep=timestep))
    exact = evaluate(SW, frame.positions, frame.cell.array[None], np.array([len(frame)]))
    forces = new.velocities * (28.085 * AMU_A2_PER_PS2 / timestep)
    np.testing.assert_allclose(forces, exact.forces, rtol=1e-6, atol=2e-5)
    assert record.final.potential_energy[0] == pytest.approx(exact.energy[0] / len(frame), abs=5e-6)  # of float32
    pressure = -np.trace(exact.stress[0]) / 3 * EV_PER_A3_IN_GPA
    assert record.final.pressure[0] == pytest.approx(pressure, abs=1e-4)


def test_positions_come_back_as_they_went():
    state = state_of(MELT, SKEWED)
    again, _ = run(state, SW, Segment(1), n_steps=0)
    cells = np.repeat(state.cell, state.n_atoms, axis=0)
    shift = np.linalg.solve(cells.transpose(0, 2, 1), (again.positions - state.positions)[..., None])
    np.testing.assert_allclose(shift, np.rint(shift), atol=1e-9)


@pytest.mark.parametrize("segment", [Segment(60), replace(NPT, pressure=None), NPT], ids=["NVE", "NVT", "NPT"])
def test_slices_are_the_whole_bit_by_bit(segment):
    state = state_of(SKEWED, SKEWED)
    whole, record = run(state, SW, segment)
    sliced = state
    for first, n in ((0, 7), (7, 13), (20, 0), (20, 40)):
        sliced, last = run(sliced, SW, segment, first_step=first, n_steps=n)
    assert_same(whole, sliced)
    np.testing.assert_array_equal(record.final.total_energy, last.final.total_energy)


def test_a_system_does_not_depend_on_its_batch():
    state = state_of(MELT, SKEWED)
    both, _ = run(state, SW, NPT)
    alone = state_of(SKEWED, first_seed=11)
    np.testing.assert_array_equal(alone.velocities, state.velocities[256:])
    alone, _ = run(alone, SW, NPT)
    np.testing.assert_array_equal(both.positions[256:], alone.positions)
    np.testing.assert_array_equal(both.cell[1], alone.cell[0])


def test_seeds_make_systems_differ():
    state = packed(seeds=(3, 3))
    new, _ = run(replace(state, seed=np.array([3, 4])), SW, replace(NPT, n_steps=20))
    np.testing.assert_array_equal(state.velocities[:32], state.velocities[32:])
    assert np.abs(new.velocities[:32] - new.velocities[32:]).max() > 1e-3


def test_momentum_and_energy_are_conserved():
    """2 fs at 2500 K: LAMMPS' velocity Verlet, too, leaves 0.07 meV an atom."""
    state, _ = run(state_of(MELT), SW, Segment(200, temperature=(2500.0, 2500.0)))
    new, record = run(state, SW, Segment(3000))
    assert np.abs(new.velocities.astype(float).mean(axis=0)).max() < 1e-4
    assert record.deviation.total_energy[0] < 1.0e-4
    assert abs(record.final.total_energy[0] - record.mean.total_energy[0]) < 3e-4
    assert record.deviation.potential_energy[0] > 3e-3


def test_energy_error_falls_with_the_square_of_the_timestep():
    state, _ = run(state_of(MELT), SW, Segment(200, temperature=(2500.0, 2500.0)))
    errors = [
        run(state, SW, Segment(round(1.0 / dt), timestep=dt, interval=1))[1].deviation.total_energy[0]
        for dt in (0.001, 0.002, 0.004)
    ]
    orders = np.log2(np.divide(errors[1:], errors[:-1]))
    assert np.all((orders > 1.6) & (orders < 2.6)), errors


def test_temperature_follows_the_ramp():
    segment = Segment(2000, temperature=(2500.0, 500.0), tau_T=0.02)
    state = packed(seeds=tuple(range(8)), temperature=2500.0)
    state, _ = run(state, SW, segment, n_steps=1000)
    _, record = run(state, SW, segment, first_step=1000)
    assert record.mean.temperature.mean() == pytest.approx(1000.0, rel=0.08)
    _, record = run(state, SW, segment, first_step=1000, n_steps=50)
    assert record.mean.temperature.mean() == pytest.approx(1475.0, rel=0.15)


OWN = (
    Segment(30, temperature=(2000.0, 1000.0), pressure=0.0),
    Segment(12, temperature=(500.0, 3000.0), interval=4),
    Segment(20, timestep=0.001),
)


def test_systems_follow_segments_of_their_own_bit_by_bit():
    """In slices too: what is done stops."""
    state = packed(seeds=(1, 2, 3))
    together, record = run(state, SW, OWN)
    assert together.step.tolist() == [30, 12, 20]
    sliced, ends = state, []
    for first in range(0, 30, 8):
        sliced, part = run(sliced, SW, OWN, first_step=first, n_steps=min(8, 30 - first))
        ends.append(sliced.step.tolist())
    assert ends == [[8, 8, 8], [16, 12, 16], [24, 12, 20], [30, 12, 20]]
    assert_same(sliced, together)
    np.testing.assert_array_equal(part.final.potential_energy, record.final.potential_energy)
    for i, segment in enumerate(OWN):
        alone, own = run(packed(seeds=(i + 1,)), SW, segment)
        np.testing.assert_array_equal(alone.positions, together.positions[32 * i : 32 * (i + 1)])
        np.testing.assert_array_equal(alone.velocities, together.velocities[32 * i : 32 * (i + 1)])
        assert own.mean.temperature[0] == record.mean.temperature[i]


def test_systems_go_on_from_steps_of_their_own_bit_by_bit():
    state = packed(seeds=(1, 2, 3))
    whole, _ = run(state, SW, OWN)
    apart = [run(state, SW, OWN, n_steps=n)[0] for n in (8, 4, 20)]
    # The first system after 8 of its steps, the second after 4, the third at the end.
    mixed = replace(
        state,
        **{
            name: np.concatenate([np.split(getattr(part, name), 3)[i] for i, part in enumerate(apart)])
            for name in ("positions", "velocities", "cell", "step")
        },
    )
    there, _ = run(mixed, SW, OWN, first_step=np.array([8, 4, 20]))
    assert there.step.tolist() == [30, 12, 20]
    assert_same(there, whole)


def test_each_system_needs_its_segment():
    with pytest.raises(ValueError, match="`segment` must be one, or one for each of 2 systems, got 3"):
        run(packed(seeds=(1, 2)), SW, OWN)


def test_soft_start_survives_overlaps():
    state = packed(min_distance=0.6, seeds=(1, 2), temperature=300.0)
    soft = Segment(400, temperature=(300.0, 300.0), max_displacement=0.05)
    new, record = run(state, SW, soft)
    assert not record.failed.any()
    assert np.abs(np.add.reduceat(new.velocities.astype(float), [0, 32])).max() < 0.2
    _, record = run(new, SW, Segment(400, temperature=(300.0, 300.0)))
    assert np.all(record.final.temperature < 600.0)


def failing(kind):
    if kind == 1:
        state = packed(seeds=(1, 2))
        positions = state.positions.copy()
        positions[1] = positions[0] + 1e-4
        return replace(state, positions=positions), NPT
    if kind == 2:
        return packed(500, length=9.0, min_distance=0.5, seeds=(1,), temperature=10.0), NPT
    state = packed(seeds=(1, 2), length=9.0)
    return state, Segment(4000, temperature=(300.0, 300.0), pressure=200.0)


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_failures_are_flagged(kind):
    state, segment = failing(kind)
    new, record = run(state, SW, segment)
    assert record.failure[0] == kind
    assert record.failed[0]
    assert new.step[0] == 0


def test_a_failed_system_leaves_the_others_alone():
    state, _ = failing(1)
    new, record = run(state, SW, NPT)
    good, _ = run(packed(seeds=(2,)), SW, NPT)
    assert record.failed.tolist() == [True, False]
    np.testing.assert_array_equal(new.positions[32:], good.positions)
    assert np.isnan(record.mean.temperature[0])
    assert new.step.tolist() == [0, 60]


def test_results_belong_to_their_systems_in_any_order_of_sizes():
    """The engine begins with the largest system."""
    starts = [random_packing(n, volume=900.0, min_distance=2.0, seed=n) for n in (32, 44, 36)]
    positions = np.concatenate([positions for positions, _ in starts])
    positions[1] = positions[0] + 1e-4
    state = thermal_state(
        SW,
        positions,
        cell=np.stack([cell for _, cell in starts]),
        n_atoms=np.array([32, 44, 36]),
        seed=np.array([1, 2, 3]),
        temperature=2000.0,
    )
    new, record = run(state, SW, replace(NPT, n_steps=20))
    assert record.failure.tolist() == [1, 0, 0]
    assert new.step.tolist() == [0, 20, 20]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_steps": 0}, "`n_steps` must be at least 1, got 0"),
        ({"interval": 0}, "`interval` must be at least 1, got 0"),
        ({"timestep": -0.1}, "`timestep` must be positive, got -0.1"),
        ({"tau_T": 0.0}, "`tau_T` must be positive, got 0.0"),
        ({"max_displacement": 0.0}, "`max_displacement` must be positive, got 0.0"),
        ({"max_displacement": 0.1}, "`max_displacement` needs constant volume"),
        ({"temperature": None}, "`pressure` needs a `temperature`"),
        ({"temperature": (300.0, 0.0)}, "`temperature` must be positive"),
        ({"pressure": float("nan")}, "`pressure` must be finite, got nan"),
    ],
)
def test_bad_segments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(NPT, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_atoms": np.array([31])}, "`n_atoms` must hold one count a cell and sum to 32"),
        ({"n_atoms": np.array([1, 31]), "cell": np.ones((2, 3, 3))}, "`n_atoms` must be at least 2, got 1"),
        ({"velocities": np.zeros((3, 3), np.float32)}, "`velocities` must have length 32, got 3"),
        ({"seed": np.zeros(2, np.int64)}, "`seed` must have length 1, got 2"),
    ],
)
def test_bad_states_are_named(change, message, monkeypatch):
    """Without jaxtyping's own check of shapes, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        replace(packed(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.full((32, 3), np.nan)}, "`positions` must be finite"),
        ({"positions": np.full((32, 3), 1e20)}, "`positions` must be within 10⁹ cells of the origin"),
        ({"species": np.ones(32, np.uint8)}, "`species` must be below 1, got 1"),
        ({"cell": np.zeros((1, 3, 3))}, "`cell` must enclose a volume"),
        ({"cell": 7.0 * np.eye(3)[None]}, r"`cell` must be at least twice the cutoff high \(7.542 Å\), got 7.000 Å"),
    ],
)
def test_bad_systems_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        run(replace(packed(), **change), SW, NPT)


def test_bad_calls_are_named():
    with pytest.raises(ValueError, match="`n_atoms` must be at most 65535, got 65536"):
        run(packed(2**16, length=110.0, temperature=1.0), SW, NPT)
    with pytest.raises(ValueError, match="`first_step` and `n_steps` must lie within the 60 steps"):
        run(packed(), SW, NPT, first_step=50, n_steps=20)
    with pytest.raises(ValueError, match="`temperature` must not be negative, got -1"):
        packed(temperature=-1.0)
