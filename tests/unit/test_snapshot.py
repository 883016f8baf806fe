"""A batch that is interrupted between any two launches goes on to the same bits."""

from dataclasses import replace

import pytest
import torch

from amden.simulate import runs
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


def run(path=None, *, stop_after=None, origin=ORIGIN, every=0.0):
    launches = []

    def told(steps, failed):
        launches.append(steps)
        if len(launches) - 1 == stop_after:
            raise InterruptedRunError

    keeper = StateFile(path, origin=origin, every=every) if path else None
    return run_protocol(SHORT, SEEDS, device="cpu", on_launch=told, keeper=keeper), launches


def test_stopped_again_and_again_it_goes_on_to_the_same_bits(tmp_path):
    straight, launches = run()
    assert 0 < len(straight.failures) < len(SEEDS)
    path, done = tmp_path / "state.safetensors", []
    for _ in range(20):
        try:
            resumed, rest = run(path, stop_after=2)
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
    kept = StateFile(path, origin=ORIGIN).load()
    assert isinstance(kept, Snapshot)
    assert kept.launches == 3
    assert StateFile(path, origin={**ORIGIN, "seeds": [1]}).load() is None
    path.write_bytes(path.read_bytes()[:-1])
    assert StateFile(path, origin=ORIGIN).load() is None
    StateFile(path, origin=ORIGIN).remove()
    assert not list(tmp_path.iterdir())


def test_states_are_not_written_more_often_than_asked(tmp_path):
    path = tmp_path / "state.safetensors"
    run(path, every=3600.0)
    assert not path.exists()
