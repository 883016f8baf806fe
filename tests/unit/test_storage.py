import errno
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from amden import storage

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2], dtype=torch.uint8)}


def test_content_comes_back(tmp_path):
    storage.write(tmp_path / "new" / "x.safetensors", TENSORS, {"note": "Å", "n": [1, 2.5]})
    stored = storage.read(tmp_path / "new" / "x.safetensors")
    assert stored.header == {"note": "Å", "n": [1, 2.5]}
    assert all(torch.equal(stored.tensors[k], v) and stored.tensors[k].dtype == v.dtype for k, v in TENSORS.items())


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    storage.write(tmp_path / "x", TENSORS, {})
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_views_of_one_memory_are_written(tmp_path):
    storage.write(tmp_path / "x", {"a": TENSORS["b"].T, "b": TENSORS["b"][0]}, {})
    assert torch.equal(storage.read(tmp_path / "x").tensors["a"], TENSORS["b"].T)


def test_same_content_same_bytes(tmp_path):
    header = {str(i): i for i in range(20)}
    storage.write(tmp_path / "x", TENSORS, header)
    storage.write(tmp_path / "y", dict(reversed(TENSORS.items())), dict(reversed(header.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def fail_half_way(path):
    path.write_text("half")
    raise OSError("disk full")


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), storage.replacing(path) as temporary:
        fail_half_way(temporary)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "old"


def run_out_of_space(path):
    path.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    message = rf"No space left on device: '{tmp_path}/x'"
    with pytest.raises(OSError, match=message) as found, storage.replacing(tmp_path / "x") as temporary:
        run_out_of_space(temporary)
    assert found.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_made_is_told_by_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"'{tmp_path}/x'"), storage.replacing(tmp_path / "x"):
        pass  # no file was written under the temporary name


def test_another_file_that_fails_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="source"), storage.replacing(tmp_path / "x"):
        (tmp_path / "source").read_text()


def test_foreign_safetensors_have_no_header(tmp_path):
    save_file(TENSORS, tmp_path / "x", metadata={"format": "pt"})
    assert storage.read(tmp_path / "x").header is None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.0, 1.0, exclude_max=True))
def test_every_truncation_is_one_clear_error(tmp_path, fraction):
    storage.write(tmp_path / "x", TENSORS, {"n": 1})
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "y").write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match=r"y: (truncated, damaged or not a safetensors file|the file is empty)"):
        storage.read(tmp_path / "y")


@pytest.mark.parametrize("content", [b"hello, world, this is text", b"\x80\x04\x95" + bytes(40), bytes(200)])
def test_other_files_are_one_clear_error(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="x: truncated, damaged or not a safetensors file"):
        storage.read(tmp_path / "x")


def test_a_header_that_is_no_json_is_an_error(tmp_path):
    save_file(TENSORS, tmp_path / "x", metadata={"amden": "{"})
    with pytest.raises(ValueError, match="damaged"):
        storage.read(tmp_path / "x")


def test_a_header_that_is_no_mapping_is_an_error(tmp_path):
    save_file(TENSORS, tmp_path / "x", metadata={"amden": "[1, 2]"})
    with pytest.raises(ValueError, match=r"x: damaged: its header is no mapping but \[1, 2\]"):
        storage.read(tmp_path / "x")


def test_an_entry_of_a_header_has_its_type():
    header = {"version": True, "amden": ["a"] * 99}
    with pytest.raises(ValueError, match="x: damaged: the header has no entry 'kind'"):
        storage.entry(header, "kind", str, source="x")
    with pytest.raises(ValueError, match="the entry 'version' of the header is True, not a whole number"):
        storage.entry(header, "version", int, source="x")
    with pytest.raises(ValueError, match=r"the entry 'amden' of the header is \['a'.{0,50}, not text"):
        storage.entry(header, "amden", str, source="x")


def test_a_layout_that_is_not_known():
    assert storage.layout({"version": 2}, known=3, source="x") == 2
    with pytest.raises(ValueError, match=r"x: made by a newer amden \(None\): format 4, this one reads up to 3"):
        storage.layout({"version": 4}, known=3, source="x")
    with pytest.raises(ValueError, match="x: damaged: there is no format 0"):
        storage.layout({"version": 0}, known=3, source="x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        storage.read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no such file"):
        storage.read(Path(tmp_path))
