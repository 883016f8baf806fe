"""Protocols that adapt to their cells: with silicon, which is quick to simulate."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from amden.random import spawn_seeds
from amden.shard import load_shard
from amden.simulate import adaptation, runs
from amden.simulate.ase_engine import CalculatorEngine
from amden.simulate.batch import Batch
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.engine import thermal_state
from amden.simulate.evaporation import Onset
from amden.simulate.lammps_input import lammps_deck
from amden.simulate.potentials import bmp_shrm
from amden.simulate.runs import random_start, run_protocol
from amden.simulate.snapshot import StateFile
from amden.simulate.stages import Adapted, Evaporation, Relative, Stage

UNDER, MELTED, ROOM = Relative(0.75, -500.0), Relative(0.75), Relative(offset=300.0)
TRIED = (Stage(1.0, (2500.0, 2500.0)), Evaporation(20.0, (2500.0, 14000.0), stretch=2.0))
MELT = (Adapted((UNDER, MELTED), duration=1.0), Adapted((MELTED, MELTED), duration=3.0, least_displacement=2.0))
QUENCH = (Adapted((MELTED, ROOM), rate=2000.0), Stage(0.2, (300.0, 300.0)))
SHORT = replace(find_protocol("si-melt"), n_atoms=64, stages=(*TRIED, *MELT, *QUENCH))
SEEDS = [1, 2, 3]


@pytest.fixture(scope="module")
def glasses():
    return run_protocol(SHORT, SEEDS, device="cpu")


@pytest.fixture
def onsets(monkeypatch):
    """Evaporation temperatures that are given, so that the trial may be short."""

    def given(*kelvin):
        left = list(kelvin)
        monkeypatch.setattr(adaptation, "evaporation_onset", lambda T, p: Onset(left.pop(0), 0.0))
        return replace(SHORT, stages=(TRIED[0], replace(TRIED[1], duration=0.1), *MELT, *QUENCH))

    return given


def columns(found):
    return {name: values.tolist() for name, values in found.structures.properties.items()}


def test_silicon_evaporates_where_it_should(glasses):
    """Silicon of Stillinger and Weber boils near 5000 K in equilibrium; heated by 575 K/ps it is late."""
    found = columns(glasses)
    assert glasses.failures == {}
    assert all(5000.0 < Te < 10000.0 for Te in found["evaporation_temperature"])
    assert len(set(found["evaporation_temperature"])) > 1  # on a grid of 10 K two may meet
    assert found["T_high"] == [0.75 * Te for Te in found["evaporation_temperature"]]
    assert min(found["displacement"]) > 2.0
    assert 2.0 < min(found["density"]) < max(found["density"]) < 2.7  # frozen in by 2000 K/ps; chance differs by CPU


def test_a_cell_does_not_depend_on_the_others(glasses):
    alone = run_protocol(SHORT, SEEDS[1:2], device="cpu").structures
    together = glasses.structures.select([1])
    assert torch.equal(alone.positions, together.positions)
    assert all(torch.equal(values, together.properties[name]) for name, values in alone.properties.items())


def test_the_trial_leaves_the_melt_as_it_was(onsets, monkeypatch):
    seen = {}
    opened, closed = adaptation.opened, adaptation.closed

    def watch_opened(stage, batch):
        seen["before"], seen["open"] = batch.state, opened(stage, batch)
        return seen["open"]

    def watch_closed(stage, batch):
        seen["trial"], seen["closed"] = batch.state, closed(stage, batch)
        return seen["closed"]

    monkeypatch.setattr(adaptation, "opened", watch_opened)
    monkeypatch.setattr(adaptation, "closed", watch_closed)
    run_protocol(onsets(4000.0, 4000.0), SEEDS[:2], device="cpu")
    before, trial, after = seen["before"], seen["trial"], seen["closed"].state
    np.testing.assert_array_equal(seen["open"].state.cell, before.cell * np.array([[2.0], [1.0], [1.0]]))
    np.testing.assert_array_equal(trial.cell, seen["open"].state.cell)
    assert np.abs(trial.positions - before.positions).max() > 0.1
    for name in ("positions", "velocities", "cell"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_array_equal(after.step, before.step + 50)


def test_each_cell_is_quenched_for_as_long_as_it_takes(onsets, monkeypatch):
    steps, protocol = [], onsets(4000.0, 5000.0)
    run = runs.run

    def watched(state, potential, segment, **options):
        steps.append(segment)
        return run(state, potential, segment, **options)

    monkeypatch.setattr(runs, "run", watched)
    found = run_protocol(protocol, SEEDS[:2], device="cpu")
    quenches = [own for own in steps if isinstance(own, list) and own[0].temperature[1] == 300.0]
    assert [[own.n_steps for own in segments] for segments in quenches] == [[675, 863], [675, 863]]
    assert columns(found)["T_high"] == [3000.0, 3750.0]


def test_no_cell_waits_for_the_stages_of_another(onsets, monkeypatch):
    """Of two cells the cold one is quenched in its second stage while the hot one is in its first, with the same end as
    alone."""
    halfway = Relative(offset=1000.0)
    stages = (Adapted((MELTED, halfway), rate=1000.0), Adapted((halfway, ROOM), rate=500.0))

    def quenched(protocol, seeds):
        calls, engine = [], runs.run

        def watched(state, potential, segment, **options):
            if isinstance(segment, list):
                calls.append([own.temperature[1] for own in segment])
            return engine(state, potential, segment, **options)

        with monkeypatch.context() as patch:
            patch.setattr(runs, "run", watched)
            patch.setattr(runs, "LAUNCH", {"cpu": 250})
            found = run_protocol(
                replace(protocol, stages=(*protocol.stages[:3], *stages, QUENCH[-1])), seeds, device="cpu"
            )
        return found.structures, calls

    together, calls = quenched(onsets(4000.0, 8000.0), SEEDS[:2])
    assert [300.0, 1000.0] in calls
    # Launches of 250 steps: 2 of the ramp, then 1,000 or 2,500 steps to 1000 K and 700 to 300 K.
    assert len(calls) == 2 + 10 + 3
    assert [len(each) for each in calls] == [2] * (2 + 4 + 3) + [1] * 6
    for i, Te in enumerate((4000.0, 8000.0)):
        alone, _ = quenched(onsets(Te), SEEDS[i : i + 1])
        assert torch.equal(alone.positions, together.select([i]).positions)


@pytest.fixture
def _short_launches(monkeypatch):
    monkeypatch.setattr(runs, "LAUNCH", {"cpu": 100})


@pytest.mark.usefixtures("_short_launches")
def test_stopped_again_and_again_it_goes_on_to_the_same_bits(tmp_path):
    class Interrupted(Exception):  # noqa: N818
        pass

    early = Adapted((MELTED, MELTED), duration=8.0, least_displacement=3.0, until_displaced=True, typical_duration=0.6)
    protocol = replace(SHORT, stages=(*TRIED, MELT[0], early, *QUENCH))
    lost = spawn_seeds(1, 4).tolist()
    straight = run_protocol(protocol, lost, device="cpu")

    def told(steps, failed):
        launches.append(steps)
        if len(launches) > 40:
            raise Interrupted

    done = []
    for _ in range(20):
        launches = []
        keeper = StateFile(tmp_path / "state", origin={}, every=0.0)
        try:
            resumed = run_protocol(protocol, lost, device="cpu", on_launch=told, keeper=keeper)
        except Interrupted:
            done += launches
            continue
        done += launches
        break
    assert len(done) > 100
    assert done == sorted(done)
    assert done[-1] == protocol.n_steps
    assert (resumed.kept, resumed.failures) == (straight.kept, straight.failures)
    assert torch.equal(resumed.structures.positions, straight.structures.positions)
    assert columns(resumed) == columns(straight)


def test_campaigns_set_cells_aside_with_reason_and_numbers(onsets, tmp_path):
    protocol = onsets(4000.0, float("nan"), 4000.0)
    stages = (*protocol.stages[:3], replace(MELT[1], least_displacement=90.0), *protocol.stages[4:])
    done = run_campaign(replace(protocol, stages=stages), n=3, seed=1, out=tmp_path, device="cpu")
    assert done.failures[1] == "no clear onset of evaporation between 2500 and 14000 K"
    assert done.failures[0].startswith("Si has moved ")
    assert done.failures[0].endswith(" Å in the melt, less than 90 Å")
    assert len(done.failures) == 3
    columns = load_shard(next(tmp_path.glob("*.safetensors"))).structures.properties
    assert {"evaporation_temperature", "T_high", "displacement"} <= set(columns)
    assert all(len(values) == 0 for values in columns.values())


def test_a_gas_is_set_aside(onsets):
    found = run_protocol(onsets(4000.0, 60000.0), SEEDS[:2], device="cpu")
    assert found.kept == (0,)
    assert found.failures[1].startswith("evaporated: ")
    assert found.failures[1].endswith(" times the volume of the melt before")


def test_ways_are_followed_across_the_boundary():
    """Of a steady drift, and without the expansion of the cell."""
    state = random_start(replace(SHORT, n_atoms=27), SEEDS[:2])
    ran, batch = np.array([False, True]), Batch.begun(state)
    drift, start = np.array([1.3, -0.7, 2.1]), state.positions[27:]
    for k in range(1, 21):
        cell, L = 1.01**k * state.cell[1:], 1.01**k * state.cell[1, 0, 0]
        part = replace(
            thermal_state(
                SHORT.interaction,
                ((start / state.cell[1, 0, 0] + k * drift / 20.0) % 1.0) * L,
                cell=cell,
                n_atoms=state.n_atoms[1:],
                seed=state.seed[1:],
                temperature=300.0,
            )
        )
        before = replace(
            state,
            positions=np.concatenate(
                [state.positions[:27], (start / state.cell[1, 0, 0] + (k - 1) * drift / 20.0) % 1.0 * L]
            ),
            cell=np.concatenate([state.cell[:1], cell]),
        )
        batch = adaptation.followed(replace(batch, state=before), part, ran)
    lengths = 1.01 ** np.arange(1, 21) * state.cell[1, 0, 0] / 20.0
    np.testing.assert_allclose(batch.of_atoms["moved"][27:], np.tile(drift * lengths.sum(), (27, 1)), rtol=1e-4)
    assert not batch.of_atoms["moved"][:27].any()
    ways = adaptation.displacements(batch, 2)
    assert ways[:, 1].tolist() == [np.inf, np.inf]
    np.testing.assert_allclose(ways[:, 0], [0.0, np.linalg.norm(drift) * lengths.sum()], rtol=1e-4)


def test_other_engines_refuse_by_name():
    message = "protocol 'si-melt' adapts to its cells, which {} cannot do: only amden's own engine"
    with pytest.raises(ValueError, match=message.format("LAMMPS")):
        lammps_deck(SHORT, random_start(SHORT, [1]))
    with pytest.raises(ValueError, match=message.format("a calculator")):
        CalculatorEngine("ase.calculators.emt:EMT").run(SHORT, [1], on_launch=lambda *_: None)


def test_glasses_are_melted_from_neutral_cells():
    """The whole protocol of the paper on a small scale takes minutes; its first steps are tested here."""
    glass = find_protocol("meg")
    state = random_start(glass, SEEDS, [7, 8, 9])
    charges = np.array(bmp_shrm().pair_sums.charges)[state.species]
    np.testing.assert_allclose(np.add.reduceat(charges, state.offsets), 0.0, atol=1e-9)
    assert [glass.counts(k) != glass.counts(k + 1) for k in (7, 8)] == [True, True]
