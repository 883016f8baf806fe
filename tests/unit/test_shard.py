import jaxtyping
import pytest
import torch

from amden import storage
from amden.shard import load_shard, save_shard
from amden.structure import Structures


def structures(**properties) -> Structures:
    return Structures(
        torch.rand(5, 3),
        torch.tensor([14, 8, 8, 0, 14]),
        (torch.eye(3, dtype=torch.float64) * 4.0).repeat(2, 1, 1),
        torch.tensor([3, 2]),
        properties,
    )


def test_structures_come_back(tmp_path):
    given = structures(energy=torch.tensor([1.0, torch.nan]), modulus=torch.rand(2, 6, 6, dtype=torch.float64))
    save_shard(tmp_path / "s.safetensors", given, provenance={"seed": 3})
    shard = load_shard(tmp_path / "s.safetensors")
    assert shard.provenance == {"seed": 3}
    for name in ("positions", "species", "cell", "n_atoms"):
        before, after = getattr(given, name), getattr(shard.structures, name)
        assert torch.equal(before, after)
        assert before.dtype == after.dtype
    assert torch.equal(shard.structures.properties["modulus"], given.properties["modulus"])
    assert shard.structures.properties["energy"].isnan().tolist() == [False, True]


def rewritten(tmp_path, **header):
    save_shard(tmp_path / "s", structures())
    stored = storage.read(tmp_path / "s")
    return dict(stored.tensors), {**(stored.header or {}), **header}


def test_a_file_of_another_kind(tmp_path):
    storage.write(tmp_path / "s", *rewritten(tmp_path, kind="model"))
    with pytest.raises(ValueError, match="s: holds no structures written by amden but model"):
        load_shard(tmp_path / "s")
    storage.write(tmp_path / "s", {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds no structures written by amden but something else"):
        load_shard(tmp_path / "s")


def test_a_newer_layout(tmp_path):
    storage.write(tmp_path / "s", *rewritten(tmp_path, version=9, amden="7.0"))
    with pytest.raises(ValueError, match=r"s: made by a newer amden \(7.0\): layout 9 > 1"):
        load_shard(tmp_path / "s")


def test_a_missing_array(tmp_path):
    tensors, header = rewritten(tmp_path)
    del tensors["cell"]
    storage.write(tmp_path / "s", tensors, header)
    with pytest.raises(ValueError, match="s: array 'cell' is missing"):
        load_shard(tmp_path / "s")


def test_counts_that_do_not_add_up(tmp_path):
    tensors, header = rewritten(tmp_path)
    storage.write(tmp_path / "s", {**tensors, "n_atoms": torch.tensor([3, 3])}, header)
    with pytest.raises(ValueError, match="s: `n_atoms` adds up to 6, but there are 5 positions"):
        load_shard(tmp_path / "s")


def test_shapes_that_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its own check of shapes would speak first
    tensors, header = rewritten(tmp_path)
    storage.write(tmp_path / "s", {**tensors, "cell": torch.eye(3)[None]}, header)
    with pytest.raises(ValueError, match=r"s: `cell` must be \[2, 3, 3\], got \(1, 3, 3\)"):
        load_shard(tmp_path / "s")
