"""Parts of a campaign in one folder and in several: claims, merging, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from amden.dataset import load_dataset
from amden.shard import save_shard
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.folder import CampaignFolder, joined, merge_campaigns
from fakes import Fake

MELT = find_protocol("si-melt")


def run(folder: Path, **options):
    return run_campaign(**{"protocol": MELT, "n": 10, "seed": 1, "out": folder, "engine": Fake(size=2), **options})


def cells(folder: Path) -> list[list[float]]:
    return load_dataset(folder).positions.tolist()


@pytest.fixture
def whole(tmp_path):
    run(tmp_path / "whole")
    return cells(tmp_path / "whole")


@pytest.fixture
def parts(tmp_path):
    folders = [tmp_path / f"part{i}" for i in (1, 2, 3)]
    for i, folder in enumerate(folders):
        run(folder, part=(i + 1, 3))
    return folders


def test_parts_in_one_folder_make_the_whole(tmp_path, whole):
    for i in (2, 1, 3):
        done = run(tmp_path / "one", part=(i, 3))
    assert cells(tmp_path / "one") == whole
    assert (done.n, run(tmp_path / "one", engine=Fake(allowed=0)).n) == (10, 10)


def test_parts_in_several_folders_are_merged_to_the_whole(tmp_path, parts, whole):
    merged = merge_campaigns(parts, tmp_path / "merged")
    assert cells(tmp_path / "merged") == whole
    assert (merged.covered(range(10)), merged.asked_for()) == (10, 10)
    manifest = json.loads((tmp_path / "merged" / "manifest.json").read_text())
    assert manifest["failures"] == json.loads((tmp_path / "whole" / "manifest.json").read_text())["failures"]
    assert run(tmp_path / "merged", engine=Fake(allowed=0)).n == 10


def test_merging_in_steps_and_twice_changes_nothing(tmp_path, parts, whole):
    merge_campaigns(parts[1:], tmp_path / "merged")
    assert len(cells(tmp_path / "merged")) < len(whole)
    merge_campaigns(parts, tmp_path / "merged")
    merge_campaigns([*parts, tmp_path / "merged"], tmp_path / "merged")
    assert cells(tmp_path / "merged") == whole


def test_copied_shards_are_as_good_as_merged_ones(tmp_path, parts, whole):
    for folder in parts[1:]:
        for shard in folder.glob("*.safetensors"):
            shutil.copy(shard, parts[0])
    assert run(parts[0], engine=Fake(allowed=0)).n == 10
    assert cells(parts[0]) == whole


def test_what_cannot_be_merged_is_refused_before_anything_is_written(tmp_path, parts):
    run(tmp_path / "seed", seed=2)
    run(tmp_path / "protocol", protocol=replace(MELT, density=2.5))
    run(tmp_path / "engine", engine=Fake("other"))
    run(tmp_path / "overlap", part=(1, 2), engine=Fake(size=3))
    (tmp_path / "empty").mkdir()
    for name, message in {
        "seed": "seed: holds a campaign of seed 2, not 1",
        "protocol": r"holds a campaign of another protocol \(`density` is 2.5, not 2.4\)",
        "engine": "holds a campaign of engine other, not amden",
        "overlap": r"cells 0 to 2 are in .*: a cell must come once",
        "empty": "empty: holds no campaign",
    }.items():
        with pytest.raises(ValueError, match=message):
            merge_campaigns([parts[0], tmp_path / name], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        merge_campaigns([parts[0], tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_of_one_name_must_be_one(tmp_path, parts):
    shutil.copytree(parts[0], tmp_path / "other")
    shard = next((tmp_path / "other").glob("*.safetensors"))
    save_shard(shard, load_dataset(shard), provenance={**CampaignFolder(parts[0]).provenance(range(2)), "device": "x"})
    with pytest.raises(ValueError, match=r"cells-0000000-0000002.safetensors: differs from .*a cell must come once"):
        merge_campaigns([parts[0], tmp_path / "other"], tmp_path / "out")


def test_cells_that_are_there_twice_are_named(tmp_path, parts):
    run(tmp_path / "overlap", part=(1, 2), engine=Fake(size=3))
    shutil.copy(tmp_path / "overlap" / "cells-0000000-0000003.safetensors", parts[0])
    with pytest.raises(ValueError, match=r"part1: cells 0 to 2 are there twice, in cells-0000000-000000"):
        run(parts[0])


def test_two_processes_do_not_run_the_same_cells(tmp_path):
    script = (
        "import sys; from amden.simulate.folder import CampaignFolder\n"
        "with CampaignFolder(sys.argv[1]).claimed(range(3, 6)): print(flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "d"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ValueError, match=r"d: another process is writing some of its cells 0 to 10"):
            run(tmp_path / "d")
        with pytest.raises(ValueError, match=r"d: another process is writing it"):
            merge_campaigns([tmp_path / "d"], _with_a_campaign(tmp_path / "d"))
        assert run(tmp_path / "d", part=(1, 3)).n == 3
        other.communicate()
    assert run(tmp_path / "d").n == 10


def _with_a_campaign(folder: Path) -> Path:
    run(folder, part=(1, 10))
    return folder


def test_a_process_leaves_the_files_of_others_alone(tmp_path):
    tmp_path.joinpath(".cells-0000000-0000002.safetensors.1.tmp").touch()
    tmp_path.joinpath("..cells-0000002-0000004.state.1.tmp").touch()
    tmp_path.joinpath(".cells-0000008-0000010.safetensors.1.tmp").touch()
    run(tmp_path, part=(1, 2))
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [".cells-0000008-0000010.safetensors.1.tmp"]


@pytest.mark.parametrize("change", [{"part": (2, 2)}, {"part": (1, 2)}, {"n": 5}])
def test_a_batch_under_way_is_not_cut(tmp_path, change):
    """Its work would be lost: whoever asks for some of its cells is told."""
    run(tmp_path, n=2)
    state = CampaignFolder(tmp_path).state(range(4, 8))
    state.write_bytes(b"")
    with pytest.raises(ValueError, match=r"cells 4 to 8 are under way as one batch, of which cells . to .* are only a"):
        run(tmp_path, **change)
    assert state.exists()
    assert run(tmp_path, part=(1, 3)).n == 3


def test_names_that_are_not_ours_are_left_alone(tmp_path, whole):
    for name in ("cells-a-b.safetensors", "cells-1-2.safetensors", ".cells-x-y.state", ".cells-a-b.safetensors.1.tmp"):
        shard = tmp_path / "whole" / "cells-0000000-0000002.safetensors"
        shutil.copy(shard, tmp_path / "whole" / name)
    assert CampaignFolder(tmp_path / "whole").shards() == [range(k, k + 2) for k in range(0, 10, 2)]
    assert run(tmp_path / "whole", engine=Fake(allowed=0)).n == 10
    assert (tmp_path / "whole" / ".cells-a-b.safetensors.1.tmp").exists()


def test_words_of_several_machines():
    told = [{"device": "a", "n": 1, "versions": {"x": "1"}}, {"device": "b", "n": 1, "versions": {"x": "1", "y": "2"}}]
    assert joined([told[0], told[1], told[0]]) == {"device": "a + b", "n": 1, "versions": {"x": "1", "y": "2"}}
    assert joined(told[:1]) == told[0]
