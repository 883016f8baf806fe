"""Columns of datasets: what is stored and recorded, what is computed again and what not, what is refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from amden.cli import main
from amden.dataset import load_dataset
from amden.properties import PROPERTIES, Property
from amden.property_columns import add_properties
from amden.shard import load_provenance, load_shard, save_shard
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.testing import diamond
from fakes import Fake


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
    monkeypatch.setitem(PROPERTIES, "counted", entry)
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
    changed = replace(PROPERTIES["counted"], convention="counted anew")
    monkeypatch.setitem(PROPERTIES, "counted", changed)
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


def test_interrupted_in_the_second_property_the_first_is_kept(campaign, counted):
    calls, hooks = counted
    hooks.append(lambda n: interrupt())
    with pytest.raises(KeyboardInterrupt):
        add_properties(campaign, ["fractions", "counted"])
    first = min(campaign.glob("*.safetensors"))
    assert set(load_provenance(first)["properties"]) == {"fractions"}
    assert (load_shard(first).structures.properties["si_fraction"] == 1.0).all()
    hooks.clear()
    add_properties(campaign, ["fractions", "counted"])
    assert len(calls) == 3


def interrupt():
    raise KeyboardInterrupt


def test_files_of_other_processes_are_left_to_them(campaign, counted):
    """The other process has the first of three files; the others are done meanwhile."""
    script = (
        "import sys; from amden.simulate.folder import CampaignFolder\n"
        "with CampaignFolder(sys.argv[1]).claimed(range(0, 4)): print(flush=True); sys.stdin.read()\n"
    )
    command, told = [sys.executable, "-c", script, campaign], []
    first, *rest = sorted(campaign.glob("*.safetensors"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.warns(UserWarning, match=r"d: another process is writing cells-0000000-0000004.safetensors; left"):
            unknown = add_properties(campaign, ["counted"], progress=told.append)
        with pytest.raises(ValueError, match=r"d/cells-0000000-0000004.safetensors: another process is writing it"):
            add_properties(first, ["counted"])
        other.communicate()
    n = len(load_dataset(first))
    assert unknown == {"count": n, "other": n}
    assert told[-1].total - told[-1].done == n > 0
    assert told[-1].what == "(the others are left to another process)"
    assert "count" not in load_dataset(first).properties
    assert all("count" in load_dataset(file).properties for file in rest)
    assert set(json.loads((campaign / "manifest.json").read_text())["properties"]) == {"counted"}
    assert add_properties(campaign, ["counted"]) == {"count": 0, "other": 0}
    assert "count" in load_dataset(first).properties


def test_locks_are_for_folders_of_campaigns(tmp_path, campaign):
    save_shard(tmp_path / "si.safetensors", diamond())
    add_properties(tmp_path / "si.safetensors", ["density"])
    assert not (tmp_path / ".lock").exists()
    one = min(campaign.glob("*.safetensors"))
    (campaign / ".lock").unlink()
    add_properties(one, ["density"])
    assert (campaign / ".lock").exists()
    assert "density" in json.loads((campaign / "manifest.json").read_text())["properties"]


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
