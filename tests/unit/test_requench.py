"""Compositions melt-quenched anew, by protocols too short to make a glass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from amden.properties import at_rest
from amden.requench import requench, unfit
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol, with_counts
from amden.simulate.stages import Stage
from amden.structure import Structures, concatenate

SILICON = replace(find_protocol("si-melt"), stages=(Stage(0.1, (1000.0, 1000.0)),))


def made_of(*species: int) -> Structures:
    n = len(species)
    return Structures(torch.rand(n, 3), torch.tensor(species), 8.0 * torch.eye(3)[None], torch.tensor([n]))


CELLS = concatenate([made_of(*[14] * 24), made_of(*[14] * 20, *[8] * 4), made_of(*[14] * 30, 0)])


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def test_each_composition_is_melted_and_measured_as_any_structure(tmp_path):
    found = requench(CELLS, ["density", "rings"], protocol=SILICON, seed=3, out=tmp_path, device="cpu")
    own = with_counts(SILICON, [{"Si": 24}, {"Si": 30}])
    run_campaign(own, n=2, seed=3, out=tmp_path / "again", device="cpu")
    (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("si-melt-"))
    assert list(files(folder).values()) == list(files(tmp_path / "again").values())

    assert found.failures == {1: "the potential stillinger-weber-si does not know O"}
    made = found.structures
    assert made is not None
    assert made.n_atoms.tolist() == [24, 30]
    assert made.properties["structure"].tolist() == [0.0, 2.0]
    alike = at_rest(made, ["density", "rings"], device="cpu")
    assert set(found.columns) == {f"requenched_{name}" for name in ("density", "mean_ring_size", "potential_energy")}
    for name, values in found.columns.items():
        own_values = alike.properties[name.removeprefix("requenched_")]
        assert values[[0, 2]].tolist() == pytest.approx(own_values.tolist(), rel=1e-3, nan_ok=True)
        assert values[1].isnan()
    assert found.columns["requenched_density"][0] > 1.0


def test_it_goes_on_where_it_was_interrupted_and_does_nothing_twice(tmp_path):
    how = {"protocol": SILICON, "seed": 3, "device": "cpu", "batch_size": 1}

    def interrupted(now):
        if now.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        requench(CELLS, ["density"], out=tmp_path / "one", progress=interrupted, **how)
    begun = files(tmp_path / "one")
    assert len(begun) == 1
    told = []
    again = requench(CELLS, ["density"], out=tmp_path / "one", progress=told.append, **how)
    assert told[0].done == 1
    assert len(files(tmp_path / "one")) == 2
    assert begun.items() <= files(tmp_path / "one").items()
    whole = requench(CELLS, ["density"], out=tmp_path / "two", **how)
    np.testing.assert_array_equal(again.columns["requenched_density"], whole.columns["requenched_density"])


def test_other_atoms_and_other_seeds_have_other_folders(tmp_path):
    for cells, seed in ((CELLS, 1), (CELLS, 2), (CELLS.select([0]), 1)):
        requench(cells, ["density"], protocol=SILICON, seed=seed, out=tmp_path, device="cpu")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cell_that_does_not_come_out_is_set_aside_with_the_reason(tmp_path):
    hot = replace(SILICON, stages=(Stage(5.0, (2500.0, 2500.0), timestep=0.05),))
    found = requench(CELLS.select([1, 0]), ["density"], protocol=hot, seed=1, out=tmp_path, device="cpu")
    assert found.structures is None
    assert found.failures[0].endswith("does not know O")
    assert "blew up" in found.failures[1]
    assert found.columns["requenched_density"].isnan().all()
    none = requench(CELLS.select([1]), ["density"], protocol=SILICON, seed=1, out=tmp_path / "none", device="cpu")
    assert none.structures is None
    assert not (tmp_path / "none").exists()


def test_what_does_not_relax_is_told(tmp_path, monkeypatch):
    def restless(structures, names, *, device, potential, **_):
        known = at_rest(structures, names, device=device)
        lost = torch.tensor([False, True])
        told = {name: values.masked_fill(lost, torch.nan) for name, values in known.properties.items()}
        potentials.append(potential)
        return replace(known, properties=told)

    potentials = []
    monkeypatch.setattr("amden.measuring.at_rest", restless)
    found = requench(CELLS, ["density"], protocol=SILICON, seed=3, out=tmp_path, device="cpu")
    assert found.failures[2] == "its relaxation did not converge"
    assert 0 not in found.failures
    assert potentials == ["stillinger-weber-si"]


@pytest.mark.parametrize(
    ("protocol", "counts", "reason"),
    [
        ("si-melt", {}, "it has no atoms"),
        ("sio2", {"Si": 20, "O": 40}, None),
        ("sio2", {"O": 50, "Si": 25}, None),
        ("sio2", {"O": 2, "Si": 2}, "it is Si2O2, and sio2 makes SiO2"),
        ("meg", {"Li": 80, "Si": 40, "O": 120}, None),
        ("meg", {"Li": 2, "Si": 1, "O": 3}, "6 atoms are too few for bmp-shrm: 4.5 Å of 14.0"),
        ("meg", {"Li": 2, "Si": 1, "O": 2}, "its formal charge is +2 e"),
        ("meg", {"Na": 2, "Si": 1, "O": 3}, "the potential bmp-shrm does not know Na"),
    ],
)
def test_what_a_protocol_makes(protocol, counts, reason):
    assert unfit(counts, find_protocol(protocol)) == reason
