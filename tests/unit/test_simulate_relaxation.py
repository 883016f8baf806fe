"""Relaxation: known minima, monotone descent, and what it says of systems that do not get there."""

import jaxtyping
import numpy as np
import pytest

from amden.simulate.potentials import StillingerWeber, bmp_shrm, evaluate
from amden.simulate.relaxation import cpu, minimum, relax, relax_structures
from amden.testing import diamond
from amden.units import EV_PER_A3_IN_GPA

SW = StillingerWeber()
LATTICE = 5.43095
"""Å, of Stillinger-Weber diamond."""
EIGHT = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4.0
ONE = np.array([8])


def strained(seed, *, strain=0.05, shake=0.1):
    """Eight atoms of diamond in a skewed, strained cell."""
    rng = np.random.default_rng(seed)
    cell = LATTICE * (np.eye(3) + strain * rng.uniform(-1.0, 1.0, (3, 3)))
    return EIGHT @ cell + shake * rng.normal(size=(8, 3)), cell[None]


def assert_same(a, b):
    for name in vars(a):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_strained_diamond_finds_its_lattice_constant_and_energy():
    positions, cell = strained(0)
    found = relax(SW, positions, cell, ONE, stress_tolerance=1e-4, force_tolerance=1e-4, device="cpu")
    assert found.converged.all()
    np.testing.assert_allclose(found.energy / 8, -4.3366, atol=1e-5)
    np.testing.assert_allclose(found.cell[0] @ found.cell[0].T, LATTICE**2 * np.eye(3), atol=1e-3)


def test_the_cell_is_stretched_and_not_rotated():
    positions, cell = strained(0)
    stretch = np.linalg.solve(cell[0], relax(SW, positions, cell, ONE, device="cpu").cell[0])
    np.testing.assert_allclose(stretch, stretch.T, atol=1e-12)
    assert np.linalg.eigvalsh(stretch).min() > 0.9


def test_numbers_at_the_end_are_those_of_evaluate():
    positions, cell = strained(1)
    found = relax(SW, positions, cell, ONE, max_steps=5, device="cpu")
    exact = evaluate(SW, found.positions, found.cell, ONE)
    np.testing.assert_allclose(found.energy, exact.energy, rtol=1e-12)
    np.testing.assert_allclose(found.stress, exact.stress, atol=1e-12)
    np.testing.assert_allclose(found.max_force[0], np.linalg.norm(exact.forces, axis=1).max(), rtol=1e-9)
    np.testing.assert_allclose(found.max_stress[0], abs(exact.stress).max() * EV_PER_A3_IN_GPA, rtol=1e-9)


@pytest.mark.parametrize("cell_kind", ["variable", "fixed"])
def test_energy_falls_with_every_step(cell_kind):
    positions, cell = strained(2, shake=0.4)
    energies = [
        relax(SW, positions, cell, ONE, cell=cell_kind, max_steps=k, device="cpu").energy[0] for k in range(1, 15)
    ]
    assert energies[0] < evaluate(SW, positions, cell, ONE).energy[0]
    assert (np.diff(energies) <= 0.0).all()
    assert energies[-1] < energies[0] - 0.1


def test_a_fixed_cell_is_left_alone():
    positions, cell = strained(3)
    found = relax(SW, positions, cell, ONE, cell="fixed", device="cpu")
    np.testing.assert_array_equal(found.cell, cell)
    assert found.converged.all()
    assert found.max_force[0] < 0.005 < 0.1 < found.max_stress[0]


def test_pressure():
    positions, cell = strained(4)
    found = relax(SW, positions, cell, ONE, pressure=5.0, device="cpu")
    assert found.converged.all()
    np.testing.assert_allclose(found.stress[0] * EV_PER_A3_IN_GPA, -5.0 * np.eye(3), atol=0.01)
    assert np.linalg.det(found.cell[0]) < 0.97 * LATTICE**3


def test_tolerances_far_below_the_rounding_of_the_energy_are_met():
    positions, cell = strained(5)
    found = relax(SW, positions, cell, ONE, force_tolerance=1e-9, stress_tolerance=1e-8, device="cpu")
    assert found.converged.all()
    assert found.max_force[0] <= 1e-9
    assert found.max_stress[0] <= 1e-8


def test_what_did_not_converge_is_told():
    positions, cell = strained(6)
    told = []
    found = relax(
        SW, np.concatenate([positions, EIGHT * LATTICE]), np.concatenate([cell, LATTICE * np.eye(3)[None]]),
        np.array([8, 8]), max_steps=2, progress=told.append, device="cpu",
    )  # fmt: skip
    assert found.converged.tolist() == [False, True]
    assert found.n_steps.tolist() == [2, 0]
    assert told == [1, 2]


def test_atoms_in_the_same_place_fail_alone():
    good, cell = strained(7)
    bad = good.copy()
    bad[1] = bad[0]
    both = relax(SW, np.concatenate([bad, good]), np.concatenate([cell, cell]), np.array([8, 8]), device="cpu")
    alone = relax(SW, good, cell, ONE, device="cpu")
    assert both.converged.tolist() == [False, True]
    assert np.isnan(both.energy[0])
    np.testing.assert_allclose(both.positions[:8], bad)
    np.testing.assert_array_equal(both.positions[8:], alone.positions)
    assert both.energy[1] == alone.energy[0]


def test_atoms_all_but_in_the_same_place_are_driven_apart():
    positions, cell = strained(8)
    positions[1] = positions[0] + [0.3, 0.0, 0.0]
    found = relax(SW, positions, cell, ONE, device="cpu")
    assert found.converged.all()
    assert found.energy[0] < -8 * 3.5


def test_launches_and_room_for_neighbours_change_nothing(monkeypatch):
    positions, cell = strained(9)
    whole = relax(SW, positions, cell, ONE, device="cpu")
    monkeypatch.setattr(cpu, "_TURNS", 3)
    monkeypatch.setattr(minimum, "_ROOM", 5)
    assert_same(relax(SW, positions, cell, ONE, device="cpu"), whole)
    monkeypatch.setattr(minimum, "_MOST_ROOM", 10)
    told = []
    given_up = relax(SW, positions, cell, ONE, device="cpu", progress=told.append)
    assert not given_up.converged.any()
    assert told == [1]


def test_atoms_stay_in_the_image_they_were_given_in():
    positions, cell = strained(10)
    far = positions + np.array([5.0, -3.0, 0.0]) @ cell[0]
    near, moved = (relax(SW, x, cell, ONE, device="cpu") for x in (positions, far))
    np.testing.assert_allclose(
        moved.positions - near.positions, np.tile([5.0, -3.0, 0.0] @ near.cell[0], (8, 1)), atol=1e-3
    )


def test_structures():
    given = diamond(a=5.5)
    found = relax_structures(given, SW, device="cpu")
    assert found.converged.all()
    np.testing.assert_allclose(found.structures.volume, LATTICE**3, rtol=1e-3)
    np.testing.assert_allclose(given.volume, 5.5**3)
    with pytest.raises(ValueError, match="the potential does not know C, it knows Si"):
        relax_structures(diamond(species=6), SW)


def test_an_error_in_between_ends_it():
    positions, cell = strained(0)

    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relax(
            SW, np.tile(positions, (20, 1)), np.tile(cell, (20, 1, 1)), np.full(20, 8), progress=interrupt, device="cpu"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": np.full((8, 3), np.nan)}, "`positions` of system 0 must be finite, got nan or inf"),
        ({"cells": np.full((1, 3, 3), np.inf)}, "`cells` of system 0 must be finite, got nan or inf"),
        ({"cells": np.ones((1, 3, 3))}, "`cells` must enclose a volume, got .* in system 0"),
        ({"n_atoms": np.array([7])}, "`n_atoms` must hold one count a cell and sum to 8 atoms"),
        ({"cells": np.zeros((2, 3, 3)), "n_atoms": np.array([8, 0])}, "`n_atoms` must be positive, got 0"),
        ({"species": np.ones(8, int)}, "`species` must be one number an atom, below 1"),
        ({"force_tolerance": 0.0}, "`force_tolerance` must be positive, got 0.0"),
        ({"stress_tolerance": -1.0}, "`stress_tolerance` must be positive, got -1.0"),
        ({"max_steps": 0}, "`max_steps` must be positive, got 0"),
        ({"pressure": np.inf}, "`pressure` must be finite, got inf"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    positions, cell = strained(0)
    with pytest.raises(ValueError, match=message):
        relax(SW, **({"positions": positions, "cells": cell, "n_atoms": ONE, "device": "cpu"} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "free"}, "`cell` must be 'variable' or 'fixed', got 'free'"),
        ({"device": "tpu"}, "`device` must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
    ],
)
def test_unknown_names_are_named(arguments, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    positions, cell = strained(0)
    with pytest.raises(ValueError, match=message):
        relax(SW, positions, cell, ONE, **arguments)


@pytest.mark.parametrize("apart", [6.0, 8.0])
def test_ions_that_come_from_afar_do_not_fall_into_each_other(apart):
    """Potassium and oxygen: beyond 7 Å they have no contact at the start, and nothing but that keeps them apart."""
    potential = bmp_shrm()
    pair = {"positions": np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0 + apart]]), "cells": 30.0 * np.eye(3)[None]}
    species = np.array([potential.symbols.index(name) for name in ("K", "O")])
    found = relax(potential, **pair, n_atoms=np.array([2]), species=species, cell="fixed", device="cpu")
    assert found.converged.all()
    assert 2.0 < np.linalg.norm(found.positions[1] - found.positions[0]) < 3.0
