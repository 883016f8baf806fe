"""Crystals are told from glasses, and set aside."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from amden.io import from_ase, read_structures
from amden.simulate.catalogue import find_protocol
from amden.simulate.crystal import crystalline_share
from amden.simulate.runs import Runs
from amden.simulate.screening import screened
from amden.structure import concatenate

EXAMPLES = Path(__file__).parents[2] / "examples"
QUENCH = find_protocol("si-quench")


def share(*atoms: Atoms) -> list[float]:
    return crystalline_share(from_ase(list(atoms))).tolist()


@pytest.fixture
def diamond():
    return bulk("Si", cubic=True) * (3, 3, 3)


def test_diamond_is_found_at_room_temperature_and_turned(diamond):
    diamond.rattle(0.1, seed=1)  # Å; at 300 K about 0.08
    turned = diamond.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    assert share(diamond, turned) == pytest.approx([1.0, 1.0], abs=0.02)


def test_lonsdaleite_and_cristobalite_are_found():
    a, c = 3.84, 3.84 * np.sqrt(8.0 / 3.0)
    hexagonal = crystal(["Si"], [(1 / 3, 2 / 3, 1 / 16)], spacegroup=194, cellpar=[a, a, c, 90, 90, 120]) * (4, 4, 3)
    silica = crystal(["Si", "O"], [(0, 0, 0), (1 / 8, 1 / 8, 1 / 8)], spacegroup=227, cellpar=[7.16] * 3 + [90] * 3)
    assert share(hexagonal, silica * (2, 2, 2)) == [1.0, 1.0]


def test_melts_and_quenches_are_none():
    for name in ("si-melt", "si-quench"):
        glass = read_structures(EXAMPLES / f"{name}-reference.extxyz", index=":20")
        found = crystalline_share(glass)
        assert found.max() < 0.05


def test_half_a_crystal_is_half(diamond):
    liquid = diamond.copy()
    liquid.rattle(0.9, seed=1)
    half = diamond.positions[:, 0] < diamond.cell[0, 0] / 2
    diamond.positions[~half] = liquid.positions[~half]
    assert 0.1 < share(diamond)[0] < 0.5  # the layers at the border have lost neighbours


def test_where_there_is_nothing_to_ask():
    assert share(bulk("Si"), bulk("Cu", cubic=True)) == [0.0, 0.0]


def test_crystals_and_vapours_are_set_aside_with_the_reason(diamond):
    glass = read_structures(EXAMPLES / "si-quench-reference.extxyz", index=":2")
    vapour = replace(glass.select([0]), cell=1.5 * glass.cell[:1])
    frames = concatenate([replace(s, properties={}) for s in (glass, vapour, from_ase([diamond]))])
    frames = replace(frames, properties={"number": torch.arange(4.0)})
    found = screened(QUENCH, Runs(frames, (0, 2, 3, 5), {1: "blew up", 4: "blew up"}))
    assert found.kept == (0, 2)
    assert found.structures.properties["number"].tolist() == [0.0, 1.0]
    assert found.failures[3].startswith("evaporated: 0.7")
    assert found.failures[5] == "crystallised: 100 % of the silicon atoms sit as in diamond"
    assert found.failures[1] == "blew up"


def test_nothing_to_set_aside(diamond):
    glass = read_structures(EXAMPLES / "si-quench-reference.extxyz", index=":2")
    runs = Runs(glass, (0, 1), {})
    assert screened(QUENCH, runs) is runs
    assert screened(QUENCH, Runs(glass.select([]), (), {0: "blew up"})).kept == ()
