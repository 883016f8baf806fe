import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from amden.dataset import load_dataset
from amden.random import spawn_seeds
from amden.shard import save_shard
from amden.simulate import engines, runs
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.engines import BuiltIn, choose_device
from amden.simulate.folder import CampaignFolder, origin_of
from amden.simulate.runs import launch_steps, run_protocol
from amden.simulate.stages import Stage
from fakes import Fake

SHORT = replace(
    find_protocol("si-quench"),
    n_atoms=64,
    stages=(Stage(0.1, (2500.0, 2500.0)), Stage(0.2, (300.0, 300.0))),
)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def run(folder: Path, n: int, **options):
    return run_campaign(SHORT, **{"n": n, "seed": 1, "out": folder, "engine": Fake(), **options})


def assert_same_cells(a: Path, b: Path) -> None:
    one, other = load_dataset(a), load_dataset(b)
    assert torch.equal(one.positions, other.positions)
    assert torch.equal(one.cell, other.cell)
    assert all(torch.equal(one.properties[k], other.properties[k]) for k in one.properties)


class TestFolder:
    def test_shards_and_manifest(self, tmp_path):
        result = run(tmp_path, 10)
        names = ["cells-0000000-0000004.safetensors", "cells-0000004-0000008.safetensors"]
        assert sorted(content(tmp_path)) == [*names, "cells-0000008-0000010.safetensors", "manifest.json"]
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert (manifest["n"], manifest["seed"], manifest["protocol"]["n_atoms"]) == (10, 1, 64)
        assert [s["file"] for s in manifest["shards"]][:2] == names
        expected = {i for i, seed in enumerate(spawn_seeds(1, 10).tolist()) if seed % 7 == 0}
        assert expected
        assert set(result.failures) == {int(i) for i in manifest["failures"]} == expected
        assert set(manifest["failures"].values()) == {"fell over"}
        indices = load_dataset(tmp_path).properties["index"].int().tolist()
        assert indices == [i for i in range(10) if i not in expected]
        assert {"amden", "numba", "numpy"} <= manifest["versions"].keys()

    @pytest.mark.parametrize("stop", [0, 1, 4, 5, 7])
    def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(self, tmp_path, stop):
        run(tmp_path / "straight", 10)
        calls = iter(range(100))

        def interrupt(_):
            if next(calls) == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "resumed", 10, progress=interrupt)
        run(tmp_path / "resumed", 10)
        assert content(tmp_path / "resumed") == content(tmp_path / "straight")

    def test_a_lost_shard_is_made_again(self, tmp_path):
        run(tmp_path, 10)
        before = content(tmp_path)
        (tmp_path / "cells-0000004-0000008.safetensors").unlink()
        run(tmp_path, 10)
        assert content(tmp_path) == before

    def test_nothing_is_run_twice(self, tmp_path):
        run(tmp_path, 10)
        assert run(tmp_path, 10, engine=Fake(allowed=0)).n == 10
        assert run(tmp_path, 6, engine=Fake(allowed=0)).n == 10

    def test_a_larger_n_extends(self, tmp_path):
        run(tmp_path / "a", 6)
        run(tmp_path / "a", 15)
        run(tmp_path / "b", 15, batch_size=7)
        assert_same_cells(tmp_path / "a", tmp_path / "b")

    @pytest.mark.parametrize(("workers", "sizes"), [(1, [4, 4, 2]), (3, [4, 4, 2]), (4, [3, 3, 3, 1]), (99, [1] * 10)])
    def test_every_worker_gets_a_batch(self, tmp_path, workers, sizes):
        run(tmp_path, 10, workers=workers)
        assert [len(cells) for cells in CampaignFolder(tmp_path).shards()] == sizes

    def test_progress_adds_up(self, tmp_path):
        told = []
        run(tmp_path, 10, progress=told.append)
        assert [(p.done, p.batch, p.steps) for p in told[:3]] == [(0, 0, 0), (0, 4, 0), (0, 4, 5)]
        assert (told[-1].done, told[-1].batch, told[-1].n) == (10, 0, 10)
        work = [p.done * 10 + p.batch * p.steps for p in told]
        assert work == sorted(work)
        assert told[-1].failed == len(run(tmp_path, 10).failures)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": 2}, "holds a campaign of seed 1, not 2; choose another folder"),
            ({"protocol": replace(SHORT, density=2.5)}, r"another protocol \(`density` is 2.4, not 2.5\)"),
            ({"n": 0}, "`n` must be positive, got 0"),
            ({"batch_size": 0}, "`batch_size` must be positive, got 0"),
            ({"workers": 0}, "`workers` must be positive, got 0"),
            ({"engine": Fake("other")}, "holds a campaign of engine amden, not other; choose another folder"),
            ({"part": (3, 2)}, "`part` must be i of m with 1 ≤ i ≤ m, got 3 of 2"),
            ({"engine": None, "device": "tpu"}, "`device` must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
            ({"seed": -1, "out": "elsewhere"}, "`seed` must not be negative, got -1"),
        ],
    )
    def test_refusals(self, tmp_path, monkeypatch, change, message):
        monkeypatch.chdir(tmp_path)
        run(tmp_path / "d", 4)
        options = {"protocol": SHORT, "n": 4, "seed": 1, "out": tmp_path / "d", "engine": Fake(), **change}
        with pytest.raises(ValueError, match=message):
            run_campaign(options.pop("protocol"), **options)

    def test_a_manifest_without_cells_does_not_bind(self, tmp_path):
        with CampaignFolder(tmp_path).claimed(range(4)) as claim:
            claim.write_manifest(origin_of(SHORT, 1, "amden"), 400)
        denser = replace(SHORT, density=2.5)
        assert run_campaign(denser, n=4, seed=2, out=tmp_path, engine=Fake()).n == 4
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert (manifest["n"], manifest["seed"], manifest["protocol"]["density"]) == (4, 2, 2.5)

    @pytest.mark.parametrize("name", [".cells-0000000-0000004.state", "cells-0000000-0000004.safetensors"])
    def test_with_cells_done_or_under_way_it_binds(self, tmp_path, name):
        run(tmp_path / "done", 4)
        with CampaignFolder(tmp_path / "d").claimed(range(4)) as claim:
            claim.write_manifest(origin_of(SHORT, 1, "amden"), 4)
        shutil.copyfile(tmp_path / "done" / "cells-0000000-0000004.safetensors", tmp_path / "d" / name)
        with pytest.raises(ValueError, match="holds a campaign of seed 1, not 2; choose another folder"):
            run_campaign(SHORT, n=4, seed=2, out=tmp_path / "d", engine=Fake())

    def test_a_manifest_that_a_process_is_at_work_on_binds(self, tmp_path):
        script = (
            "import sys; from amden.simulate.folder import CampaignFolder\n"
            "with CampaignFolder(sys.argv[1]).claimed(range(0, 4)): print(flush=True); sys.stdin.read()\n"
        )
        with CampaignFolder(tmp_path).claimed(range(4)) as claim:
            claim.write_manifest(origin_of(SHORT, 1, "amden"), 8)
        command = [sys.executable, "-c", script, tmp_path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with pytest.raises(ValueError, match="another process is writing it"):
                run_campaign(SHORT, n=8, seed=2, out=tmp_path, engine=Fake(), part=(2, 2))
            other.communicate()
        assert json.loads((tmp_path / "manifest.json").read_text())["seed"] == 1

    def test_another_wording_of_the_protocol_is_the_same_protocol(self, tmp_path):
        run(tmp_path, 4)
        assert run_campaign(replace(SHORT, doc="new"), n=4, seed=1, out=tmp_path, engine=Fake()).n == 4

    def test_foreign_folders(self, tmp_path):
        save_shard(tmp_path / "x.safetensors", Fake().run(SHORT, [1], on_launch=lambda *_: None).structures)
        with pytest.raises(ValueError, match="holds structures that no campaign made"):
            run(tmp_path, 4)
        (tmp_path / "x.safetensors").unlink()
        (tmp_path / "manifest.json").write_text("[")
        with pytest.raises(ValueError, match=r"manifest.json: not the manifest of a campaign"):
            run(tmp_path, 4)
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="file: is a file; a campaign needs a folder"):
            run(tmp_path / "file", 4)

    def test_a_damaged_shard_is_named(self, tmp_path):
        run(tmp_path, 4)
        shard = tmp_path / "cells-0000000-0000004.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(ValueError, match=r"cells-0000000-0000004.safetensors: truncated"):
            run(tmp_path, 4)


class TestEngine:
    def test_a_cell_is_the_same_in_any_batch(self):
        seeds = spawn_seeds(3, 3).tolist()
        together, alone = run_protocol(SHORT, seeds, device="cpu"), run_protocol(SHORT, seeds[1:2], device="cpu")
        one = together.structures.select([1])
        assert torch.equal(one.positions, alone.structures.positions)
        assert torch.equal(one.cell, alone.structures.cell)
        for name, values in one.properties.items():
            assert torch.equal(values, alone.structures.properties[name])

    def test_what_is_measured(self):
        launches = []
        held = replace(SHORT, stages=(SHORT.stages[0], Stage(4.0, (300.0, 300.0))))
        runs = run_protocol(held, [1, 2, 3, 4], device="cpu", on_launch=lambda *told: launches.append(told))
        frames = runs.structures
        assert launches[-1] == (held.n_steps, 0)
        assert frames.n_atoms.tolist() == [64] * 4
        assert torch.equal(frames.species, torch.full((256,), 14))
        torch.testing.assert_close(frames.properties["density"], frames.density)
        # 63 · 3 degrees of freedom: a sample scatters by 300 K √(2/189) = 31 K; the means of four runs stay well within
        assert abs(frames.properties["temperature"].mean() - 300.0) < 25.0
        # between the melt and the crystal (-4.3366 eV)
        assert (frames.properties["potential_energy"] > -4.34).all()
        assert (frames.properties["potential_energy"] < -3.6).all()

    def test_cells_that_blow_up_are_set_aside_and_leave_the_others_alone(self, tmp_path):
        close = replace(SHORT, min_distance=0.7, stages=SHORT.stages[:1])
        result = run_campaign(close, n=12, seed=1, out=tmp_path, device="cpu", batch_size=12)
        assert 0 < len(result.failures) < 12
        assert all("blew up" in reason for reason in result.failures.values())
        cells = load_dataset(tmp_path)
        assert len(cells) == 12 - len(result.failures)
        index = int(cells.properties["index"][0])
        alone = run_protocol(close, spawn_seeds(1, 1, first=index).tolist(), device="cpu").structures
        assert torch.equal(cells.select([0]).positions, alone.positions)

    def test_nothing_left(self):
        hot = replace(SHORT, stages=(Stage(10.0, (2500.0, 2500.0), timestep=0.05), *SHORT.stages))
        runs = run_protocol(hot, [1, 2], device="cpu")
        assert len(runs.structures) == 0
        assert set(runs.failures) == {0, 1}


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="`device` is 'cuda', but there is no GPU or no numba-cuda"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("name", "launch", "cells"), [("si-melt", 5000, 4000), ("sio2", 5000, 4000), ("meg", 1000, 800)]
)
def test_what_a_potential_costs_decides_launch_and_batch(monkeypatch, name, launch, cells):
    card = SimpleNamespace(multi_processor_count=100)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    protocol = find_protocol(name)
    assert BuiltIn("cuda").batch_size(protocol) == cells
    assert launch_steps("cuda", protocol.interaction) == launch
    assert launch_steps("cpu", protocol.interaction) == 500
    assert BuiltIn("cpu").batch_size(protocol) >= 8


class TestGoingOn:
    @pytest.fixture(autouse=True)
    def _short_launches(self, monkeypatch):
        monkeypatch.setattr(runs, "LAUNCH", {"cpu": 20})

    def begun(self, folder, *, stop=4, error=KeyboardInterrupt, **options):
        """Interrupted when so much was told; with options, gone on with."""
        told = []

        def show(now):
            told.append(now)
            if len(told) == stop:
                raise error

        with pytest.raises(error):
            run_campaign(SHORT, n=4, seed=1, out=folder, device="cpu", batch_size=2, progress=show, **options)
        return told

    def gone_on(self, folder):
        told = []
        run_campaign(SHORT, n=4, seed=1, out=folder, device="cpu", batch_size=2, progress=told.append)
        return told

    def machine(self, monkeypatch, name, numba):
        monkeypatch.setattr(engines, "processor", lambda: name)
        monkeypatch.setattr(engines, "versions", lambda **_: {"amden": "1", "numba": numba})

    def test_another_machine_goes_on_and_both_are_told(self, tmp_path, monkeypatch):
        self.machine(monkeypatch, "A", "2")
        self.begun(tmp_path / "d")
        self.machine(monkeypatch, "B", "3")
        first, *_ = self.gone_on(tmp_path / "d")
        assert (first.batch, first.steps) == (2, 25)
        one, other = (CampaignFolder(tmp_path / "d").provenance(cells) for cells in (range(2), range(2, 4)))
        assert (one["device"], one["versions"]) == ("A + B", {"amden": "1", "numba": "2 + 3"})
        assert (other["device"], other["versions"]) == ("B", {"amden": "1", "numba": "3"})
        manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
        assert [each["device"] for each in manifest["shards"]] == ["A + B", "B"]
        assert manifest["versions"] == {"amden": "1", "numba": "2, 3"}
        self.gone_on(tmp_path / "straight")
        assert_same_cells(tmp_path / "d", tmp_path / "straight")

    def test_another_wording_goes_on_too(self, tmp_path):
        self.begun(tmp_path)
        told = []
        worded = replace(SHORT, doc="new")
        run_campaign(worded, n=4, seed=1, out=tmp_path, device="cpu", progress=told.append)
        assert (told[0].batch, told[0].steps) == (2, 25)

    def test_ctrl_c_loses_no_launch_that_was_told(self, tmp_path):
        told = self.begun(tmp_path, stop=6, save_every=3600.0)
        again = self.gone_on(tmp_path)
        assert (again[0].batch, again[0].steps) == (2, told[-1].steps)

    def test_what_was_done_before_counts_from_the_start(self, tmp_path):
        """So nobody takes it for the speed of the work done now."""
        self.begun(tmp_path)
        told = self.gone_on(tmp_path)
        work = [now.done + now.batch * now.steps / SHORT.n_steps for now in told]
        assert work[0] == 2 * 25 / 150
        assert work == sorted(work)
        assert max(after - before for before, after in pairwise(work)) < 2 * 20.5 / 150

    def test_a_damaged_state_is_told_and_not_written_over(self, tmp_path):
        self.begun(tmp_path / "d")
        state = CampaignFolder(tmp_path / "d").state(range(2))
        damaged = state.read_bytes()[:-1]
        state.write_bytes(damaged)
        told = self.gone_on(tmp_path / "d")
        notes = [now.note for now in told if now.note]
        assert notes == [f"{state} is truncated or damaged: its cells begin anew, and it is kept as {state.name}.old"]
        assert (tmp_path / "d" / f"{state.name}.old").read_bytes() == damaged
        assert (told[0].batch, told[-1].done) == (0, 4)
        self.gone_on(tmp_path / "straight")
        assert_same_cells(tmp_path / "d", tmp_path / "straight")
