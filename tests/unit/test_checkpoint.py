from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from amden import checkpoint, storage
from amden.checkpoint import Header, load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.model import Model, denoiser_of, load_model, save_model
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig
from amden.testing import random_sample

TENSORS = {
    "weight": torch.randn(3, 2, dtype=torch.bfloat16),
    "rng": torch.get_rng_state(),
    "step": torch.tensor(2**40),
}
HEADER = Header(
    "model",
    config={"network": {"layers": 4}, "sigma_max": 1.5},
    vocabulary={"species": [14], "ghosts": False},
    statistics={"energy": {"mean": -4.1, "std": 0.01}},
    provenance={"data": "si-melt", "loss": 0.25},
)
STORED = Path(__file__).parents[1] / "data" / "checkpoint-v1.safetensors"


def test_a_checkpoint_comes_back(tmp_path):
    save_checkpoint(tmp_path / "m", TENSORS, HEADER)
    loaded = load_checkpoint(tmp_path / "m")
    assert loaded.header == HEADER
    assert all(torch.equal(loaded.tensors[k], v) and loaded.tensors[k].dtype == v.dtype for k, v in TENSORS.items())


def test_a_file_of_the_first_format_still_loads():
    loaded = load_checkpoint(STORED)
    assert loaded.header.amden == "0.1.0"
    assert loaded.header.config == {"network": {"layers": 1}}
    assert loaded.header.vocabulary == {"species": [8, 14], "ghosts": True}
    assert loaded.header.statistics == {"energy": {"mean": -4.0, "std": 0.5}}
    assert loaded.header.provenance == {"seed": 7}
    assert loaded.tensors["weight"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_old_formats_pass_through_each_migration_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 3)
    monkeypatch.setitem(checkpoint.MIGRATIONS, 1, lambda t, h: ({"w": t["weight"]}, h))
    monkeypatch.setitem(checkpoint.MIGRATIONS, 2, lambda t, h: (t, {**h, "provenance": {"keys": list(t)}}))
    loaded = load_checkpoint(STORED)
    assert list(loaded.tensors) == ["w"]
    assert loaded.header.provenance == {"keys": ["w"]}


def test_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        load_checkpoint(tmp_path / "nowhere")


def test_foreign_safetensors(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x")
    with pytest.raises(ValueError, match=r"x: not a checkpoint of amden \(it has no amden header\)"):
        load_checkpoint(tmp_path / "x")


def test_a_pickle_is_not_read(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt: truncated, damaged or not a safetensors file"):
        load_checkpoint(tmp_path / "x.pt")


def test_truncated(tmp_path):
    save_checkpoint(tmp_path / "m", TENSORS, HEADER)
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:-3])
    with pytest.raises(ValueError, match="m: truncated"):
        load_checkpoint(tmp_path / "m")


def test_a_newer_format(tmp_path):
    storage.write(tmp_path / "m", TENSORS, {"kind": "model", "version": 99, "amden": "9.9"})
    with pytest.raises(ValueError, match=r"made by a newer amden \(9.9\): format 99, this one reads up to 1"):
        load_checkpoint(tmp_path / "m")


def test_another_kind(tmp_path):
    save_checkpoint(tmp_path / "m", TENSORS, Header("state"))
    with pytest.raises(ValueError, match="m: not a checkpoint of kind 'model' but of 'state'"):
        load_checkpoint(tmp_path / "m")
    assert load_checkpoint(tmp_path / "m", kind="state").header.kind == "state"


def test_an_unknown_entry(tmp_path):
    storage.write(tmp_path / "m", TENSORS, {"kind": "model", "version": 1, "colour": "red"})
    with pytest.raises(ValueError, match="m: unknown entry 'colour' in the header"):
        load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"version": "1"}, "the entry 'version' of the header is '1', not a whole number"),
        ({"version": 0}, "there is no format 0"),
        ({"version": 1, "config": [1]}, r"the entry 'config' of the header is \[1\], not a mapping"),
        ({"version": 1, "amden": 1}, "the entry 'amden' of the header is 1, not text"),
        ({}, "the header has no entry 'version'"),
    ],
)
def test_an_entry_that_is_missing_or_of_another_type(tmp_path, entry, message):
    storage.write(tmp_path / "m", TENSORS, {"kind": "model", **entry})
    with pytest.raises(ValueError, match=f"m: damaged: {message}"):
        load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "the header has no entry 'score'"),
        ({"config": {"score": {}, "diffusion": 3}}, "the entry 'diffusion' of the header is 3, not a mapping"),
        ({"statistics": [1]}, r"the entry 'statistics' of the header is \[1\], not a mapping"),
    ],
)
def test_a_model_whose_header_lacks_what_it_is_made_of(tmp_path, tiny_checkpoint, changes, message):
    stored = storage.read(tiny_checkpoint)
    header = {k: v for k, v in {**(stored.header or {}), **changes}.items() if v is not None}
    storage.write(tmp_path / "m", stored.tensors, header)
    with pytest.raises(ValueError, match=f"m: damaged: {message}"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, tiny_model, value):
    weights = {k: v.clone() for k, v in tiny_model.denoiser.state_dict().items()}
    weights["network.egnn.embed.bias"][3] = value
    save_model(tmp_path / "m", tiny_model, weights=weights)
    with pytest.raises(ValueError, match=r"m: the weights 'network.egnn.embed.bias' are NaN or infinite"):
        load_model(tmp_path / "m")


ODD_NAMES = ("band.gap", "band%2Egap", "values", "type", "training", "half", "escaped:values", "", "shear modulus")


@pytest.mark.parametrize("energy", [False, True])
def test_a_model_may_be_conditioned_on_properties_of_any_name(tmp_path, energy):
    scales = {name: PropertyScale(1.0, 2.0) for name in ODD_NAMES}
    network = EGNNConfig(layers=1, hidden=8, channels=2, cutoff=4.0)
    torch.manual_seed(0)
    denoiser = denoiser_of(ScoreConfig(Vocabulary((14,)), scales, network, energy=energy), Diffusion())
    for p in denoiser.parameters():
        torch.nn.init.normal_(p, std=0.3)
    save_model(tmp_path / "m", Model(denoiser, Diffusion()))
    loaded = load_model(tmp_path / "m").denoiser.double()
    assert sorted(loaded.config.properties) == sorted(ODD_NAMES)
    sample, t = random_sample([7], width=0, conditions=ODD_NAMES), torch.tensor([0.4], dtype=torch.float64)
    noise = loaded(sample, t).positions
    torch.testing.assert_close(noise, denoiser.double()(sample, t).positions)
    for name in ODD_NAMES:
        other = replace(sample, conditions={**sample.conditions, name: sample.conditions[name] + 1.0})
        assert (loaded(other, t).positions - noise).abs().max() > 1e-6, name


def test_weights_of_properties_keep_the_names_that_they_are_stored_under():
    scales = {"shear_modulus": PropertyScale(30.0, 4.0), "li-fraction 2": PropertyScale(0.1, 0.1)}
    names = denoiser_of(ScoreConfig(Vocabulary((14,)), scales), Diffusion()).state_dict()
    assert "network.features.properties.shear_modulus.linear.weight" in names
    assert "network.features.properties.li-fraction 2.null" in names


def train(parameters, optimizer, steps):
    for i in range(steps):
        optimizer.zero_grad()
        sum((p.sin() * (i + 1)).sum() for p in parameters).backward()
        optimizer.step()


def test_an_optimiser_goes_on_exactly_where_it_stopped(tmp_path):
    def fresh():
        parameters = [torch.ones(3, requires_grad=True), torch.full((2, 2), 0.5, requires_grad=True)]
        return parameters, torch.optim.Adam(parameters, lr=0.1)

    straight, optimizer = fresh()
    train(straight, optimizer, 3)
    stopped = {f"p.{i}": p for i, p in enumerate(straight)} | optimizer_tensors(optimizer)
    save_checkpoint(tmp_path / "s", stopped, Header("state"))
    train(straight, optimizer, 4)

    resumed, optimizer = fresh()
    tensors = load_checkpoint(tmp_path / "s", kind="state").tensors
    with torch.no_grad():
        for i, p in enumerate(resumed):
            p.copy_(tensors[f"p.{i}"])
    restore_optimizer(optimizer, tensors)
    train(resumed, optimizer, 4)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_the_state_of_another_model_is_refused():
    small = [torch.ones(3, requires_grad=True)]
    optimizer = torch.optim.Adam(small)
    train(small, optimizer, 1)
    with pytest.raises(ValueError, match="belongs to a model of another shape"):
        restore_optimizer(torch.optim.Adam([torch.ones(4)]), optimizer_tensors(optimizer))
