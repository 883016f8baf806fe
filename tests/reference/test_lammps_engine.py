"""Protocols in LAMMPS: the parameters and the start it gets are ours, and a campaign runs through it."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from amden.dataset import load_dataset
from amden.io import read_structures
from amden.random import spawn_seeds
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.lammps import LammpsEngine
from amden.simulate.lammps_input import lammps_deck
from amden.simulate.potentials import evaluate
from amden.simulate.runs import random_start
from amden.simulate.stages import Quench, Stage
from amden.structure import Structures

SEEDS = spawn_seeds(4, 2).tolist()
SHORT = {
    "si-melt": replace(find_protocol("si-melt"), n_atoms=64, stages=(Stage(0.1, (2500.0, 2000.0)),)),
    "sio2": replace(find_protocol("sio2"), n_atoms=96, stages=(Stage(0.05, (3500.0, 3500.0), timestep=0.0005),)),
}


def energies(protocol, frames: Structures) -> np.ndarray:
    species = np.searchsorted(protocol.elements, frames.species.numpy(), sorter=np.argsort(protocol.elements))
    species = np.argsort(protocol.elements)[species]
    cells, n_atoms = frames.cell.numpy().astype(np.float64), frames.n_atoms.numpy()
    positions = frames.positions.numpy().astype(np.float64)
    return evaluate(protocol.interaction, positions, cells, n_atoms, species=species).energy / n_atoms


class TestWithLammps:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("lammps")

    @pytest.mark.parametrize("name", SHORT)
    def test_the_parameters_are_ours(self, name):
        """Energies of LAMMPS' last frames, evaluated by amden: 1e-5 eV an atom, as positions are in float32."""
        frames = LammpsEngine().run(SHORT[name], SEEDS, on_launch=lambda *_: None).structures
        np.testing.assert_allclose(energies(SHORT[name], frames), frames.properties["potential_energy"], atol=1e-5)

    def test_the_start_is_ours(self):
        """After two steps of 1 fs: the first two kicks and drifts of the engine, within the reach of the thermostat."""
        protocol = replace(
            SHORT["sio2"], stages=(Stage(0.002, (3500.0, 3500.0), timestep=0.001, tau_T=1e3, tau_P=1e3),)
        )
        frames = LammpsEngine().run(protocol, SEEDS[:1], on_launch=lambda *_: None).structures
        start = random_start(protocol, SEEDS[:1])
        moved = frames.positions.numpy() - start.positions
        moved -= np.rint(moved / start.cell[0, 0, 0]) * start.cell[0, 0, 0]
        far = np.linalg.norm(start.velocities, axis=1) > 10.0
        np.testing.assert_allclose(moved[far], 0.002 * start.velocities[far], atol=0.02)
        assert np.abs(moved).max() > 0.02

    @pytest.mark.parametrize("cell", ["fixed", "variable"])
    def test_a_campaign_with_a_quench(self, tmp_path, cell):
        quench = Quench(cell, force_tolerance=1.0, max_steps=100)
        protocol = replace(SHORT["si-melt"], stages=(Stage(0.1, (2500.0, 2500.0)), quench, Stage(0.02, (300.0, 300.0))))
        done = run_campaign(protocol, n=1, seed=4, out=tmp_path, engine=LammpsEngine())
        assert (len(load_dataset(tmp_path)), done.failures) == (1, {})
        assert 20.0 < load_dataset(tmp_path).properties["temperature"] < 1000.0
        with pytest.raises(ValueError, match="holds a campaign of engine lammps, not amden"):
            run_campaign(protocol, n=1, seed=4, out=tmp_path, device="cpu")

    def test_a_relaxation_that_does_not_converge_costs_the_cell(self):
        quench = Quench("fixed", force_tolerance=1e-6, max_steps=1)
        protocol = replace(SHORT["si-melt"], stages=(Stage(0.01, (2500.0, 2500.0)), quench))
        found = LammpsEngine().run(protocol, SEEDS[:1], on_launch=lambda *_: None)
        assert found.failures == {0: "its relaxation did not converge"}

    def test_what_lammps_refuses_costs_the_cell(self):
        protocol = replace(SHORT["si-melt"], stages=(Stage(10.0, (2500.0, 2500.0), timestep=0.5),))
        found = LammpsEngine().run(protocol, SEEDS[:1], on_launch=lambda *_: None)
        assert found.failures[0].startswith("LAMMPS: ERROR")


def test_a_deck_can_be_read_by_people_and_amden(tmp_path):
    start = random_start(SHORT["sio2"], SEEDS[:1])
    lammps_deck(SHORT["sio2"], start).write(tmp_path / "cell")
    script = (tmp_path / "cell" / "in.lammps").read_text()
    assert "pair_coeff * * potential.txt Si O" in script
    assert "fix heat all temp/csvr 3500 3500 " in script
    assert "run 100\n" in script
    read = read_structures(tmp_path / "cell" / "start.data", min_distance=0.0)
    assert sorted(read.species.tolist()) == [8] * 64 + [14] * 32
    np.testing.assert_allclose(np.sort(read.positions[:, 0].numpy()), np.sort(start.positions[:, 0]))


def test_skewed_starts_are_refused():
    start = random_start(SHORT["si-melt"], SEEDS[:1])
    with pytest.raises(ValueError, match="`start` must have a rectangular cell"):
        lammps_deck(SHORT["si-melt"], replace(start, cell=start.cell + 0.1))


def test_a_missing_lammps_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lammps", None)
    with pytest.raises(ValueError, match=r"LAMMPS is not installed: pip install 'amden\[lammps\]'"):
        LammpsEngine().run(SHORT["si-melt"], SEEDS, on_launch=lambda *_: None)
