"""Campaigns on CUDA, against the set measured with LAMMPS by the same protocol (100 quenches, stochastic thermostat and
barostat): density 2.493 g/cm³; frames of 8 quenches -4.045 eV an atom."""

import pytest
import torch

from amden.dataset import load_dataset
from amden.random import spawn_seeds
from amden.simulate.campaign import run_campaign
from amden.simulate.protocol import find_protocol
from amden.simulate.runs import run_protocol

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
    assert abs(properties["density"].mean() - 2.493) < 0.015
    assert abs(properties["potential_energy"].mean() + 4.045) < 0.006
    assert abs(properties["temperature"].mean() - 300.0) < 6.0

    index = 140
    alone = run_protocol(quench, spawn_seeds(11, 1, first=index).tolist(), device="cuda").structures
    assert torch.equal(alone.positions, cells.select([index]).positions)
