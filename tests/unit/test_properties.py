"""Properties of datasets: what is stored and recorded, what is computed again and what not, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from amden import properties
from amden.cli import main
from amden.dataset import load_dataset
from amden.io import read_structures
from amden.properties import PROPERTIES, Property, add_properties, at_rest
from amden.shard import load_provenance, load_shard, save_shard
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.relaxation import RelaxedStructures
from amden.structure import concatenate
from amden.testing import diamond
from fakes import Fake

SILICA = Path(__file__).parents[1] / "data" / "tersoff_sio2.extxyz"


@pytest.fixture
def campaign(tmp_path):
    run_campaign(find_protocol("si-melt"), n=10, seed=1, out=tmp_path / "d", engine=Fake())
    return tmp_path / "d"


@pytest.fixture
def counted(monkeypatch):
    """A property that counts how many structures it was asked for, and calls a function before."""
    calls: list[int] = []
    hooks: list = []

    def measure(structures, tools):
        for hook in hooks:
            hook(len(calls))
        calls.append(len(structures))
        return {"count": structures.n_atoms.double(), "other": structures.density}

    entry = Property({"count": "atoms", "other": "g/cm³"}, "counted", measure)
    monkeypatch.setattr(properties, "PROPERTIES", {**PROPERTIES, "counted": entry})
    return calls, hooks


def test_columns_conventions_and_the_manifest(campaign, counted):
    before = load_dataset(campaign)
    assert add_properties(campaign, ["density", "counted"]) == {"density": 0, "count": 0, "other": 0}
    after = load_dataset(campaign)
    torch.testing.assert_close(after.properties["density"], before.density.float())
    assert after.positions.equal(before.positions)
    assert after.properties["index"].equal(before.properties["index"])
    record = load_provenance(next(campaign.glob("*.safetensors")))["properties"]["density"]
    assert record["columns"] == {"density": "g/cm³"}
    assert record["convention"] == PROPERTIES["density"].convention
    manifest = json.loads((campaign / "manifest.json").read_text())
    assert set(manifest["properties"]) == {"density", "counted"}
    assert len(manifest["shards"]) == 3


def test_what_is_there_is_not_computed_again_unless_the_convention_changed(campaign, counted, monkeypatch):
    calls, _ = counted
    add_properties(campaign, ["counted"])
    done = sum(calls)
    assert done == len(load_dataset(campaign))
    add_properties(campaign, ["counted", "density"])
    assert sum(calls) == done
    changed = replace(properties.PROPERTIES["counted"], convention="counted anew")
    monkeypatch.setattr(properties, "PROPERTIES", {**properties.PROPERTIES, "counted": changed})
    add_properties(campaign, ["counted"])
    assert sum(calls) == 2 * done


def test_interrupted_it_goes_on_with_the_files_that_are_left(campaign, counted):
    calls, hooks = counted

    def interrupt(n):
        if n == 2:
            raise KeyboardInterrupt

    hooks.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        add_properties(campaign, ["counted"])
    assert len(calls) == 2
    hooks.clear()
    add_properties(campaign, ["counted"])
    assert len(calls) == 3
    assert not load_dataset(campaign).properties["count"].isnan().any()


def test_a_campaign_goes_on_after_properties_were_added(campaign, counted):
    add_properties(campaign, ["counted"])
    run_campaign(find_protocol("si-melt"), n=14, seed=1, out=campaign, engine=Fake())
    values = load_dataset(campaign).properties["count"]
    assert 0 < values.isnan().sum() < len(values)
    add_properties(campaign, ["counted"])
    assert not load_dataset(campaign).properties["count"].isnan().any()
    assert "counted" in json.loads((campaign / "manifest.json").read_text())["properties"]


def test_progress(campaign, counted):
    told = []
    add_properties(campaign, ["counted"], progress=told.append)
    total = len(load_dataset(campaign))
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert {p.total for p in told} == {total}
    assert (told[0].done, told[0].what, told[-1].done) == (0, "counted", total)


def test_rings_and_moduli_of_diamond_and_silica(tmp_path, monkeypatch, capsys):
    """Diamond: c11 151.4, c12 76.4, c44 56.4 GPa, so Voigt's and Reuss's G are 48.8 and 47.0, K is 101.4."""
    monkeypatch.setattr(properties, "TIGHT", 1e-3)
    save_shard(tmp_path / "si.safetensors", concatenate([diamond(), diamond(a=5.5)]))
    main(["properties", str(tmp_path / "si.safetensors"), "--rings", "--moduli", "--moduli-vrh", "--device", "cpu"])
    found = load_shard(tmp_path / "si.safetensors")
    values = found.structures.properties
    assert values["mean_ring_size"].tolist() == [6.0, 6.0]
    assert values["bulk_modulus_vrh"].tolist() == pytest.approx([101.4, 101.4], abs=0.5)
    assert values["shear_modulus_vrh"].tolist() == pytest.approx([47.9, 47.9], abs=0.5)
    assert values["shear_modulus"].tolist() == pytest.approx([56.4, 56.4], abs=8.0)  # 2 %, atoms hardly relaxed
    assert values["bulk_modulus"].tolist() == pytest.approx([101.4, 101.4], abs=5.0)
    assert found.provenance["properties"]["moduli"]["potential"] == "stillinger-weber-si"
    assert "shear_modulus_vrh\n" in capsys.readouterr().out

    save_shard(tmp_path / "sio2.safetensors", replace(read_structures(SILICA, index="1:2"), properties={}))
    add_properties(tmp_path / "sio2.safetensors", ["rings"])
    size = float(load_shard(tmp_path / "sio2.safetensors").structures.properties["mean_ring_size"][0])
    assert 4.0 < size < 6.0


def test_refusals(tmp_path, campaign, counted):
    with pytest.raises(ValueError, match="unknown property 'hardness': expected one of density, rings, fractions"):
        add_properties(campaign, ["hardness"])
    with pytest.raises(ValueError, match="unknown potential 'x': expected one of stillinger-weber-si, tersoff-sio"):
        add_properties(campaign, ["moduli"], potential="x")
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        add_properties(tmp_path / "nowhere", ["density"])
    (tmp_path / "text.extxyz").write_text("1")
    with pytest.raises(ValueError, match=r"text.extxyz: properties are added to datasets: a folder of .safetensors"):
        add_properties(tmp_path / "text.extxyz", ["density"])
    copper = replace(diamond(), species=torch.full_like(diamond().species, 29))
    save_shard(tmp_path / "cu.safetensors", copper)
    with pytest.raises(ValueError, match="moduli need a potential that knows all elements of the structures: "):
        add_properties(tmp_path / "cu.safetensors", ["moduli"])
    assert not load_shard(tmp_path / "cu.safetensors").structures.properties


def test_the_command_line_wants_something_to_compute(campaign, capsys):
    with pytest.raises(SystemExit):
        main(["properties", str(campaign)])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "amden: error: nothing to compute: name at least one of --density, --rings, --fractions, --moduli, --moduli-vrh"
    )


@pytest.mark.parametrize(("potential", "expected"), [(None, "StillingerWeber"), ("tersoff-sio", "Tersoff")])
def test_what_is_relaxed_by_which_potential(monkeypatch, potential, expected):
    told = []

    def still(structures, interaction, *, device):
        told.append(type(interaction).__name__)
        return RelaxedStructures(structures, np.array([-8.0]), np.array([True]))

    monkeypatch.setattr(properties, "relax_structures", still)
    found = at_rest(diamond(), ["density"], device="cpu", potential=potential)
    assert told == [expected]
    assert float(found.properties["potential_energy"]) == -1.0
