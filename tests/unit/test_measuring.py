"""Structures measured batch by batch go on where they were interrupted."""

import pytest
import torch

from amden import measuring
from amden.measuring import kept_at_rest
from amden.properties import at_rest
from amden.structure import concatenate
from amden.testing import diamond

CELLS = concatenate([diamond(a=a) for a in (5.3, 5.4, 5.5, 5.6, 5.7)])
NAMES = ["density", "rings"]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(measuring, "AT_ONCE", {"cpu": 2})


def test_an_interrupted_measurement_goes_on(tmp_path, monkeypatch):
    """After two of three batches, which are not measured again."""
    calls, told = [], []

    def interrupted(batch, *arguments, **options):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return at_rest(batch, *arguments, **options)

    monkeypatch.setattr(measuring, "at_rest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept_at_rest(CELLS, NAMES, out=tmp_path / "measured", device="cpu")
    found, parts = kept_at_rest(CELLS, NAMES, out=tmp_path / "measured", device="cpu", progress=told.append)
    assert calls == [2, 2, 1, 1]
    assert [(now.done, now.total) for now in told if now.what == "relaxed"][-1] == (5, 5)
    whole = at_rest(CELLS, NAMES, device="cpu")
    assert torch.equal(found.positions, whole.positions)
    assert {k: v.tolist() for k, v in found.properties.items()} == {k: v.tolist() for k, v in whole.properties.items()}
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_another_device_goes_on_between_what_is_measured(tmp_path, monkeypatch):
    """Batches are as large as a device has them; those that are kept are left as they are."""
    kept_at_rest(CELLS, NAMES, out=tmp_path / "measured", device="cpu")
    (tmp_path / ".measured.parts" / "0000000.safetensors").unlink()
    monkeypatch.setattr(measuring, "AT_ONCE", {"cpu": 4})
    calls = []

    def spy(batch, *arguments, **options):
        calls.append(len(batch))
        return at_rest(batch, *arguments, **options)

    monkeypatch.setattr(measuring, "at_rest", spy)
    found, _ = kept_at_rest(CELLS, NAMES, out=tmp_path / "measured", device="cpu")
    assert calls == [2]
    assert torch.equal(found.positions, at_rest(CELLS, NAMES, device="cpu").positions)


def test_measurements_of_other_structures_are_refused(tmp_path):
    kept_at_rest(CELLS, NAMES, out=tmp_path / "measured", device="cpu")
    with pytest.raises(ValueError, match="holds unfinished work of another command"):
        kept_at_rest(CELLS.select([1, 0]), NAMES, out=tmp_path / "measured", device="cpu")
