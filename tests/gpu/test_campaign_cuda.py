"""Campaigns on CUDA, against quenches run in LAMMPS by the same protocol: -4.045 eV an atom (8 frames).

A quench is no equilibrium, so its density depends on how the barostat answers: LAMMPS has 2.493 g/cm³ with stochastic
cell rescaling (100 cells) and 2.53 with Nosé-Hoover (8 cells); amden's CPU engine 2.504(3) (32 cells).
"""

from dataclasses import replace

import pytest
import torch

from amden.dataset import load_dataset
from amden.random import spawn_seeds
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.runs import run_protocol
from amden.simulate.stages import Stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_quenches_are_those_of_lammps(tmp_path):
    quench = find_protocol("si-quench")
    done = run_campaign(quench, n=264, seed=11, out=tmp_path, device="cuda", batch_size=132)
    cells = load_dataset(tmp_path)
    assert not done.failures
    assert len(cells) == 264
    properties = cells.properties
    assert 2.485 < properties["density"].mean() < 2.53
    assert abs(properties["potential_energy"].mean() + 4.045) < 0.006
    assert abs(properties["temperature"].mean() - 300.0) < 6.0

    index = 140
    alone = run_protocol(quench, spawn_seeds(11, 1, first=index).tolist(), device="cuda").structures
    assert torch.equal(alone.positions, cells.select([index]).positions)


class InterruptedRunError(Exception):
    pass


def test_an_interrupted_batch_goes_on_to_the_same_bits(tmp_path):
    protocol = replace(find_protocol("si-quench"), stages=(Stage(30.0, (2500.0, 300.0)),))

    def run(folder, stop_after=10**9):
        told = []

        def show(now):
            told.append(now.steps)
            if len(told) > stop_after:
                raise InterruptedRunError

        run_campaign(protocol, n=4, seed=5, out=folder, device="cuda", save_every=0.0, progress=show)
        return told

    straight = run(tmp_path / "straight")
    with pytest.raises(InterruptedRunError):
        run(tmp_path / "resumed", stop_after=4)
    assert [path.name for path in (tmp_path / "resumed").glob(".*.state")] == [".cells-0000000-0000004.state"]
    assert len(run(tmp_path / "resumed")) < len(straight)
    content = [{p.name: p.read_bytes() for p in (tmp_path / d).iterdir()} for d in ("straight", "resumed")]
    assert content[0] == content[1]
