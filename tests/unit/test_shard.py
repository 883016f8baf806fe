import jaxtyping
import pytest
import torch

from amden import storage
from amden.shard import load_provenance, load_shard, save_shard
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
    with pytest.raises(ValueError, match=r"s: made by a newer amden \(7.0\): format 9, this one reads up to 1"):
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


@pytest.mark.parametrize("name", ["version", "provenance"])
@pytest.mark.parametrize("load", [load_shard, load_provenance])
def test_an_entry_that_is_missing_or_of_another_type(tmp_path, name, load):
    tensors, header = rewritten(tmp_path)
    storage.write(tmp_path / "s", tensors, {k: v for k, v in header.items() if k != name})
    with pytest.raises(ValueError, match=f"s: damaged: the header has no entry '{name}'"):
        load(tmp_path / "s")
    storage.write(tmp_path / "s", tensors, {**header, name: "1"})
    with pytest.raises(ValueError, match=f"s: damaged: the entry '{name}' of the header is '1', not a"):
        load(tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("species", torch.tensor([14, 8, 119, 0, 14]), "`species` must be atomic numbers up to 118, got 119"),
        ("species", torch.tensor([14, 8, -1, 0, 14]), "`species` must be atomic numbers up to 118, got -1"),
        ("species", torch.rand(5), "`species` must be whole numbers, got torch.float32"),
        ("positions", torch.ones(5, 3, dtype=torch.int32), "`positions` must be real numbers, got torch.int32"),
        ("n_atoms", torch.tensor([7, -2]), "structure 1 has -2 atoms"),
        ("n_atoms", torch.tensor([0, 5]), "structure 0 has 0 atoms"),
        ("n_atoms", torch.tensor(5), r"`n_atoms` must be \[systems\], got \(\)"),
        ("property.e", torch.tensor(1.0), "property 'e' is one number, not one for each of 2 systems"),
        ("property.e", torch.ones(3), "property 'e' has 3 values for 2 systems"),
    ],
)
def test_an_array_that_structures_cannot_have(tmp_path, monkeypatch, name, wrong, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its own check of shapes would speak first
    tensors, header = rewritten(tmp_path)
    storage.write(tmp_path / "s", {**tensors, name: wrong}, header)
    with pytest.raises(ValueError, match=f"s: {message}"):
        load_shard(tmp_path / "s")


def test_properties_that_are_whole_numbers_or_truth_values_become_real(tmp_path):
    tensors, header = rewritten(tmp_path)
    given = {"count": torch.tensor([3, 2**40]), "stable": torch.tensor([True, False])}
    storage.write(tmp_path / "s", tensors | {f"property.{k}": v for k, v in given.items()}, header)
    found = load_shard(tmp_path / "s").structures.properties
    assert all(values.dtype == torch.float64 for values in found.values())
    assert found["count"].tolist() == [3.0, 2.0**40]
    assert found["stable"].tolist() == [1.0, 0.0]
