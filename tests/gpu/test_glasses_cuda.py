"""Protocols that adapt to their cells, on CUDA: small silicon against the CPU, and glasses through all their stages."""

from dataclasses import replace

import pytest
import torch

from amden.simulate import runs
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.runs import run_protocol
from amden.simulate.stages import Adapted, Evaporation, Relative, Stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

UNDER, MELTED, ROOM = Relative(0.75, -500.0), Relative(0.75), Relative(offset=300.0)
SILICON = replace(
    find_protocol("si-melt"),
    n_atoms=64,
    stages=(
        Stage(1.0, (2500.0, 2500.0)),
        Evaporation(40.0, (2500.0, 14000.0), stretch=2.0),
        Adapted((UNDER, MELTED), duration=1.0),
        Adapted((MELTED, MELTED), duration=20.0, least_displacement=4.0, until_displaced=True),
        Adapted((MELTED, ROOM), rate=1000.0),
        Stage(1.0, (300.0, 300.0)),
    ),
)


class InterruptedRunError(Exception):
    pass


def test_silicon_is_that_of_the_cpu():
    """Each cell evaporates at a temperature of its own, whose mean is the same."""
    device, host = (run_protocol(SILICON, range(24), device=name).structures.properties for name in ("cuda", "cpu"))
    for name, margin in (("evaporation_temperature", 300.0), ("density", 0.04), ("potential_energy", 0.02)):
        assert abs(device[name].mean() - host[name].mean()) < margin, name
    assert (device["displacement"] >= 4.0).all()


def test_interrupted_in_any_stage_it_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LAUNCH", {"cuda": 400})

    def run(folder, stop_after=10**9):
        told = []

        def show(now):
            told.append(now.steps)
            if len(told) > stop_after:
                raise InterruptedRunError

        run_campaign(SILICON, n=6, seed=5, out=folder, device="cuda", save_every=0.0, progress=show)
        return told

    straight, times = run(tmp_path / "straight"), 0
    while times < 50:
        try:
            run(tmp_path / "resumed", stop_after=25)
        except InterruptedRunError:
            times += 1
            continue
        break
    assert 2 <= times < 50
    assert len(straight) > 60
    content = [{p.name: p.read_bytes() for p in (tmp_path / d).iterdir()} for d in ("straight", "resumed")]
    assert content[0] == content[1]


def test_glasses_pass_all_stages():
    glass = find_protocol("meg-short")
    quick = []
    for stage in glass.stages:
        if isinstance(stage, Adapted) and stage.rate:
            quick.append(replace(stage, rate=100.0))
        elif isinstance(stage, Adapted) and stage.until_displaced:
            quick.append(replace(stage, duration=40.0, least_displacement=2.0, typical_duration=None))
        elif isinstance(stage, Adapted):
            quick.append(replace(stage, duration=2.0, least_displacement=0.0))
        else:
            quick.append(replace(stage, duration=min(stage.duration, 30.0)))
    found = run_protocol(replace(glass, n_atoms=300, stages=tuple(quick)), range(24), device="cuda")
    assert len(found.kept) >= 20, found.failures
    measured = found.structures.properties
    assert ((measured["evaporation_temperature"] > 2500.0) & (measured["evaporation_temperature"] < 9000.0)).all()
    torch.testing.assert_close(measured["T_high"], 0.75 * measured["evaporation_temperature"])
    assert ((measured["density"] > 1.9) & (measured["density"] < 5.0)).all()
    assert abs(measured["temperature"].mean() - 300.0) < 10.0
