"""Runs of a protocol with several elements, cells of several sizes and a quench."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from amden.simulate.catalogue import find_protocol
from amden.simulate.engine import Segment, run, thermal_state
from amden.simulate.relaxation import relax
from amden.simulate.runs import run_protocol
from amden.simulate.stages import Quench, Stage

QUENCH = Quench("fixed", force_tolerance=0.05)
SHORT = replace(
    find_protocol("sio2"),
    n_atoms=(36, 60),
    stages=(
        Stage(0.2, (3500.0, 3500.0), timestep=0.0005),
        QUENCH,
        Stage(0.2, (300.0, 300.0), timestep=0.001),
    ),
)
SEEDS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def glasses():
    return run_protocol(SHORT, SEEDS, device="cpu")


def arrays(structures):
    return structures.positions.double().numpy(), structures.cell.double().numpy(), structures.n_atoms.numpy()


def oxygen(structures):
    return structures.species.numpy() == 8


def test_cells_have_their_own_sizes_and_elements(glasses):
    frames = glasses.structures
    assert frames.n_atoms.tolist() == SHORT.sizes(SEEDS).tolist()
    assert len(set(frames.n_atoms.tolist())) > 1
    for i, n in enumerate(frames.n_atoms.tolist()):
        assert frames.select([i]).species.tolist() == [14] * (n // 3) + [8] * (2 * n // 3)


def test_properties_are_those_of_the_frames(glasses):
    frames = glasses.structures
    positions, cells, n_atoms = arrays(frames)
    state = thermal_state(
        SHORT.interaction,
        positions,
        cell=cells,
        n_atoms=n_atoms,
        seed=np.arange(4),
        temperature=0.0,
        species=oxygen(frames).astype(np.uint8),
    )
    energies = run(state, SHORT.interaction, Segment(1), n_steps=0)[1].final.potential_energy
    np.testing.assert_allclose(frames.properties["potential_energy"], energies, atol=1e-4)
    torch.testing.assert_close(frames.properties["density"].double(), frames.density.double())


def test_a_cell_does_not_depend_on_the_others(glasses):
    alone = run_protocol(SHORT, SEEDS[2:3], device="cpu").structures
    assert torch.equal(alone.positions, glasses.structures.select([2]).positions)
    assert torch.equal(alone.cell, glasses.structures.select([2]).cell)


def test_a_quench_ends_in_the_minimum():
    runs = run_protocol(replace(SHORT, stages=SHORT.stages[:2]), SEEDS, device="cpu")
    frames = runs.structures
    assert frames.properties["temperature"].tolist() == [0.0] * 4
    positions, cells, n_atoms = arrays(frames)
    again = relax(
        SHORT.interaction,
        positions,
        cells,
        n_atoms,
        species=oxygen(frames).astype(int),
        cell="fixed",
        force_tolerance=0.051,
        device="cpu",
    )
    assert again.n_steps.tolist() == [0] * 4
    np.testing.assert_allclose(frames.properties["potential_energy"], again.energy / n_atoms, atol=1e-6)


def test_after_the_quench_the_glass_is_cold():
    """Atoms leave their minima with the velocities of 300 K, half of which turns into potential energy."""
    still, held = (
        run_protocol(replace(SHORT, stages=(*SHORT.stages[:2], *more)), SEEDS, device="cpu").structures.properties
        for more in ((), (Stage(0.02, (300.0, 300.0)),))
    )
    change = held["potential_energy"] - still["potential_energy"]
    assert 0.0 < change.mean() < 1.5 * 8.617e-5 * 300.0
    assert torch.all(held["temperature"] < 600.0)


def test_what_does_not_converge_is_set_aside():
    hasty = replace(SHORT, stages=(SHORT.stages[0], replace(QUENCH, max_steps=1), SHORT.stages[2]))
    runs = run_protocol(hasty, SEEDS[:2], device="cpu")
    assert runs.failures == {0: "its relaxation did not converge", 1: "its relaxation did not converge"}
    assert len(runs.structures) == 0
