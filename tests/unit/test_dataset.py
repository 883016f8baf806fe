import re
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amden.dataset import Batches, describe, export_dataset, load_dataset, split
from amden.io import read_structures, write_structures
from amden.shard import save_shard
from amden.structure import Structures, concatenate


def crystals(sizes: list[int], *, seed: int = 0) -> Structures:
    """Simple cubic rows of silicon, slightly shaken; property `index` names each."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for i, n in enumerate(sizes):
        place = torch.arange(n)[:, None] * torch.tensor([2.5, 0.0, 0.0])
        cell = torch.diag(torch.tensor([2.5 * n, 2.5, 2.5]))[None]
        shaken = place + 0.1 * torch.rand(n, 3, generator=generator)
        properties = {"index": torch.tensor([float(i)])}
        parts.append(Structures(shaken, torch.full((n,), 14), cell, torch.tensor([n]), properties))
    return concatenate(parts)


def indices(structures: Structures) -> list[int]:
    return structures.properties["index"].int().tolist()


def assert_same(a: Structures, b: Structures) -> None:
    for name in ("positions", "species", "cell", "n_atoms"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.properties.keys() == b.properties.keys()
    assert all(torch.equal(a.properties[k], b.properties[k]) for k in a.properties)


class TestLoad:
    def test_a_folder_of_shards_in_order_of_their_names(self, tmp_path):
        whole = crystals([2, 3, 4, 5])
        save_shard(tmp_path / "cells-2.safetensors", whole.select([2, 3]))
        save_shard(tmp_path / "cells-1.safetensors", whole.select([0, 1]))
        (tmp_path / "manifest.json").write_text("{}")
        (tmp_path / ".cells-3.safetensors.77.tmp").write_text("half a file")
        assert_same(load_dataset(tmp_path), whole)

    def test_one_shard_and_one_extxyz_hold_the_same(self, tmp_path):
        whole = crystals([2, 3])
        save_shard(tmp_path / "a.safetensors", whole)
        write_structures(tmp_path / "a.extxyz", whole)
        assert_same(load_dataset(tmp_path / "a.safetensors"), whole)
        other = load_dataset(tmp_path / "a.extxyz")
        assert other.positions.dtype == torch.float32
        torch.testing.assert_close(other.positions, whole.positions)
        assert indices(other) == [0, 1]

    def test_precision_on_request(self, tmp_path):
        save_shard(tmp_path / "a.safetensors", crystals([2]).to(dtype=torch.float64))
        assert load_dataset(tmp_path / "a.safetensors", dtype=torch.float64).cell.dtype == torch.float64

    def test_export(self, tmp_path):
        save_shard(tmp_path / "d" / "a.safetensors", crystals([2, 3]))
        export_dataset(tmp_path / "d", tmp_path / "d.extxyz")
        assert len(read_structures(tmp_path / "d.extxyz")) == 2

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(ValueError, match=r"the folder holds no .safetensors files"):
            load_dataset(tmp_path)

    def test_a_damaged_shard_is_named(self, tmp_path):
        save_shard(tmp_path / "a.safetensors", crystals([2]))
        content = (tmp_path / "a.safetensors").read_bytes()
        (tmp_path / "b.safetensors").write_bytes(content[:-1])
        with pytest.raises(ValueError, match=r"b.safetensors: truncated"):
            load_dataset(tmp_path)

    def test_bad_structures_are_named_by_index(self, tmp_path):
        whole = crystals([2, 3])
        save_shard(
            tmp_path / "a.safetensors", replace(whole, cell=whole.cell * torch.tensor([1.0, -1.0])[:, None, None])
        )
        with pytest.raises(ValueError, match=r"a.safetensors: structure 1 has a left-handed cell"):
            load_dataset(tmp_path / "a.safetensors")


class TestSplit:
    @given(st.integers(2, 40), st.integers(0, 5), st.data())
    @settings(max_examples=30, deadline=None)
    def test_two_parts_make_the_whole(self, n, seed, data):
        wanted = data.draw(st.integers(0, n - 1))
        parts = split(crystals([1] * n), validation=wanted, seed=seed)
        assert len(parts.validation) == wanted
        assert sorted(indices(parts.training) + indices(parts.validation)) == list(range(n))

    def test_a_fraction(self):
        assert len(split(crystals([1] * 10), validation=0.3).validation) == 3

    def test_seeds_decide(self):
        whole = crystals([1] * 50)
        first, again, other = (indices(split(whole, validation=10, seed=s).validation) for s in (1, 1, 2))
        assert first == again
        assert first != other

    @pytest.mark.parametrize("validation", [4, 5, -1, 0.95])
    def test_nothing_left_to_train_on(self, validation):
        with pytest.raises(ValueError, match="`validation` must leave some of the 4 structures for training"):
            split(crystals([1] * 4), validation=validation)


def drawn(batches: Batches, n: int, step: int = 0, *, stride: int = 1) -> list[list[int]]:
    return [chosen.tolist() for chosen in islice(batches.chosen_at(step, stride=stride), n)]


class TestBatches:
    def test_an_epoch_holds_each_structure_once_in_a_new_order(self):
        found = drawn(Batches(torch.tensor([2, 3, 1, 2, 4, 1]), batch_size=2), 6)
        epochs = [list(chain(*found[:3])), list(chain(*found[3:]))]
        assert [sorted(e) for e in epochs] == [list(range(6))] * 2
        assert epochs[0] != epochs[1]

    @given(st.integers(0, 30), st.integers(1, 4), st.sampled_from([None, 5, 8]), st.integers(1, 5))
    @settings(max_examples=30, deadline=None)
    def test_going_on_gives_what_would_have_come(self, step, batch_size, max_atoms, stride):
        batches = Batches(torch.tensor([2, 3, 1, 2, 4, 1, 1]), batch_size=batch_size, seed=3, max_atoms=max_atoms)
        straight = drawn(batches, step + 2 * stride + 1)
        assert drawn(batches, 3, step, stride=stride) == straight[step::stride]

    def test_batches_keep_within_the_number_of_atoms(self):
        sizes = torch.tensor([2, 3, 1, 2, 9, 1, 1, 5])
        found = drawn(Batches(sizes, batch_size=3, max_atoms=6), 50)
        assert all(len(b) <= 3 and (int(sizes[b].sum()) <= 6 or len(b) == 1) for b in found)
        assert set(chain(*found)) == set(range(len(sizes)))

    def test_a_dataset_smaller_than_a_batch_comes_whole(self):
        found = drawn(Batches(torch.tensor([1, 2, 3]), batch_size=8), 3)
        assert [sorted(b) for b in found] == [[0, 1, 2]] * 3

    def test_every_structure_has_the_same_chance_of_every_place(self):
        """Uniform permutations: each of 4 structures stands first in a quarter of 500 epochs, within 5 sigma."""
        found = drawn(Batches(torch.tensor([1] * 4), batch_size=1), 500, stride=4)
        first = torch.tensor([b[0] for b in found])
        assert (torch.bincount(first, minlength=4) - 125).abs().max() < 5 * (500 * 0.25 * 0.75) ** 0.5

    @pytest.mark.parametrize("max_atoms", [None, 6])
    def test_in_order_nothing_is_left_out_if_all_is_wanted(self, max_atoms):
        batches = Batches(torch.tensor([2, 3, 1, 2, 4, 1, 1]), batch_size=3, max_atoms=max_atoms)
        assert list(chain(*(b.tolist() for b in batches.in_order(whole=True)))) == list(range(7))
        assert len(list(chain(*(b.tolist() for b in batches.in_order())))) < 7

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "`batch_size` must be positive, got 0"),
            ({"batch_size": 1, "max_atoms": 0}, "`max_atoms` must be positive, got 0"),
        ],
    )
    def test_sizes_must_be_positive(self, options, message):
        with pytest.raises(ValueError, match=message):
            Batches(torch.tensor([1]), **options)

    def test_nothing_to_draw(self):
        with pytest.raises(ValueError, match="`sizes` is empty"):
            Batches(torch.zeros(0, dtype=torch.long), batch_size=1)


class TestDescribe:
    def test_facts(self):
        facts = "\n".join(describe(crystals([4, 4])).facts)
        assert "2 structures, 4 atoms" in facts
        assert "elements: Si 100 %" in facts
        # one silicon atom (28.085 amu) in 2.5 Å cubed
        assert f"density: {28.085 / 2.5**3 * 1.66053907:.4g}" in facts
        assert "property index: 0 to 1, mean 0.5" in facts

    def test_a_sound_dataset_has_no_warnings(self):
        assert describe(crystals([2] * 100)).warnings == ()

    @pytest.mark.parametrize(
        ("change", "warning"),
        [
            (lambda s: s.select([0, 1]), "only 2 structures"),
            (
                lambda s: replace(s, positions=s.positions * torch.tensor([0.1, 1, 1])),
                "100 structures with overl",
            ),
            (lambda s: replace(s, species=s.species * (torch.arange(200) > 0)), "1 ghost atoms"),
            (
                lambda s: replace(s, cell=s.cell * (1 + (torch.arange(100) == 7))[:, None, None]),
                r"1 structures 1.5 times denser or thinner than the median, the first structure 7",
            ),
            (lambda s: s.select([*range(99), 5]), "1 structures are copies of others"),
            (lambda s: replace(s, properties={}), "no properties"),
            (
                lambda s: replace(s, properties={"E": torch.arange(100.0).index_fill(0, torch.tensor([3]), torch.nan)}),
                "property E: unknown .* in 1 of 100 structures",
            ),
            (
                lambda s: replace(s, properties={"E": torch.arange(100.0).index_fill(0, torch.tensor([3]), torch.inf)}),
                "property E: infinite in structure 3",
            ),
            (lambda s: replace(s, properties={"E": torch.ones(100, 2)}), "property E: the same in all structures"),
        ],
    )
    def test_what_is_missing_or_odd(self, change, warning):
        warnings = describe(change(crystals([2] * 100))).warnings
        assert any(re.search(warning, w) for w in warnings), warnings

    def test_distances_of_a_large_set_are_measured_in_a_part(self, monkeypatch):
        monkeypatch.setattr("amden.dataset.MEASURED", 10)
        whole = crystals([2] * 100)
        close = replace(whole, positions=whole.positions * (1 - 0.9 * (torch.arange(200) >= 198))[:, None])
        found = describe(close)
        assert any(fact.startswith("shortest distance (of 10): ") for fact in found.facts)
        assert any("1 structures (of 10) with overlapping atoms" in warning for warning in found.warnings)
        assert any("(structure 99)" in warning for warning in found.warnings)

    def test_properties_that_are_all_unknown(self):
        whole = replace(crystals([2, 2]), properties={"E": torch.full((2,), torch.nan)})
        assert "property E: all unknown" in describe(whole).facts


def test_paths_may_be_strings(tmp_path: Path):
    save_shard(str(tmp_path / "a.safetensors"), crystals([2]))
    assert len(load_dataset(str(tmp_path))) == 1
