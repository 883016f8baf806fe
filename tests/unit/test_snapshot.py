"""A batch that is interrupted between any two launches goes on to the same bits."""

from dataclasses import replace

import pytest
import torch

from amden import storage
from amden.simulate import runs, snapshot
from amden.simulate.catalogue import find_protocol
from amden.simulate.runs import run_protocol
from amden.simulate.snapshot import Snapshot, StateFile
from amden.simulate.stages import Stage

SHORT = replace(
    find_protocol("si-quench"),
    n_atoms=64,
    min_distance=0.7,
    stages=(Stage(0.1, (2500.0, 2500.0)), Stage(0.2, (300.0, 300.0))),
)
SEEDS = list(range(1, 10))
ORIGIN = {"protocol": "short", "seeds": SEEDS}


class InterruptedRunError(Exception):
    pass


@pytest.fixture(autouse=True)
def _short_launches(monkeypatch):
    monkeypatch.setattr(runs, "LAUNCH", {"cpu": 20})


def run(path=None, *, stop_after=None, origin=ORIGIN, every=0.0, error=InterruptedRunError):
    launches = []

    def told(steps, failed):
        launches.append(steps)
        if len(launches) == stop_after:
            raise error

    keeper = StateFile(path, origin=origin, every=every) if path else None
    return run_protocol(SHORT, SEEDS, device="cpu", on_launch=told, keeper=keeper), launches


def test_stopped_again_and_again_it_goes_on_to_the_same_bits(tmp_path):
    straight, launches = run()
    assert 0 < len(straight.failures) < len(SEEDS)
    path, done = tmp_path / "state.safetensors", []
    for _ in range(20):
        try:
            resumed, rest = run(path, stop_after=4)
        except InterruptedRunError:
            continue
        done = rest
        break
    assert 0 < len(done) <= 2
    assert done == launches[-len(done) :]
    assert (resumed.kept, resumed.failures) == (straight.kept, straight.failures)
    for a, b in zip(vars(resumed.structures).items(), vars(straight.structures).items(), strict=True):
        assert a[0] == b[0]
        if isinstance(a[1], torch.Tensor):
            assert torch.equal(a[1], b[1])
    for name, values in straight.structures.properties.items():
        assert torch.equal(values, resumed.structures.properties[name])


def test_only_the_state_of_this_very_run_is_gone_on_with(tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(InterruptedRunError):
        run(path, stop_after=3)
    own, other = StateFile(path, origin=ORIGIN), StateFile(path, origin={**ORIGIN, "seeds": [1]})
    kept = own.load()
    assert isinstance(kept, Snapshot)
    assert (kept.launches, kept.told) == (3, run()[1][2])
    assert own.progress() == (kept.told, len(kept.failures))
    assert (other.load(), other.progress()) == (None, None)
    path.write_bytes(path.read_bytes()[:-1])
    assert (own.load(), own.progress()) == (None, None)
    own.remove()
    assert not list(tmp_path.iterdir())
    assert (own.load(), own.progress(), own.put_aside()) == (None, None, None)


def test_what_cannot_be_gone_on_with_is_put_aside_with_a_word(tmp_path, monkeypatch):
    path, aside = tmp_path / "cells.state", tmp_path / "cells.state.old"
    own, other = StateFile(path, origin=ORIGIN), StateFile(path, origin={**ORIGIN, "seeds": [1]})
    with pytest.raises(InterruptedRunError):
        run(path, stop_after=1)
    whole = path.read_bytes()
    assert own.put_aside() is None
    assert path.exists()

    rest = ": its cells begin anew, and it is kept as cells.state.old"
    assert other.put_aside() == f"{path} is of other cells{rest}"
    assert (path.exists(), aside.read_bytes()) == (False, whole)
    path.write_bytes(whole[:-1])
    assert own.put_aside() == f"{path} is truncated or damaged{rest}"
    storage.write(path, {"x": torch.zeros(1)}, {"kind": "structures"})
    assert own.put_aside() == f"{path} is no state of a simulation{rest}"
    path.write_bytes(whole)
    monkeypatch.setattr(snapshot, "LAYOUT", snapshot.LAYOUT + 1)
    assert own.put_aside() == f"{path} was written by another version of amden{rest}"


def test_all_machines_are_told(tmp_path):
    path, told = tmp_path / "state", []
    for name in ("a", "b", "a"):
        keeper = StateFile(path, origin=ORIGIN, machine={"device": name}, every=0.0)
        kept = keeper.load()
        told.append([each["device"] for each in keeper.machines])
        if kept is None:
            with pytest.raises(InterruptedRunError):
                run(path, stop_after=1)
            kept = StateFile(path, origin=ORIGIN).load()
        keeper.keep(kept)
    assert told == [["a"], ["a", "b"], ["a", "b"]]


@pytest.mark.parametrize("stop", [1, 3])
def test_ctrl_c_keeps_the_newest_launch_however_young(tmp_path, stop):
    path, (straight, launches) = tmp_path / "state", run()
    with pytest.raises(KeyboardInterrupt):
        run(path, stop_after=stop, every=3600.0, error=KeyboardInterrupt)
    assert StateFile(path, origin=ORIGIN).progress()[0] == launches[stop - 1]
    resumed, rest = run(path)
    assert rest == launches[stop:]
    assert torch.equal(resumed.structures.positions, straight.structures.positions)


def test_states_are_not_written_more_often_than_asked(tmp_path):
    path = tmp_path / "state.safetensors"
    run(path, every=3600.0)
    assert not path.exists()
