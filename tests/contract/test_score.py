"""The score model keeps the contract of every denoiser, with and without elements and conditions."""

from dataclasses import replace

import pytest
import torch

from amden.diffusion.vocabulary import Vocabulary
from amden.nn import score as score_module
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.energy import EnergyModel
from amden.nn.score import ScoreConfig, ScoreModel
from amden.testing import check_denoiser, random_sample

SMALL = EGNNConfig(layers=2, hidden=16, channels=4, cutoff=4.0, n_norm=10.0)


def scrambled(config: ScoreConfig, seed: int = 0, kind: type[ScoreModel] = ScoreModel) -> ScoreModel:
    """A model none of whose weights is zero or small, so that no path is switched off."""
    torch.manual_seed(seed)
    model = kind(config).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    ("species", "properties"),
    [((14,), {}), ((8, 14), {}), ((8, 14), {"shear_modulus": PropertyScale(30.0, 4.0)})],
)
def test_contract(species, properties):
    model = scrambled(ScoreConfig(Vocabulary(species), properties, SMALL))
    sample = random_sample([7, 12, 3], width=model.config.vocabulary.width, conditions=tuple(properties))
    check_denoiser(model, sample, cutoff=4.0, tolerance=1e-7)


def test_cell_smaller_than_cutoff():
    model = scrambled(ScoreConfig(Vocabulary((14,)), egnn=EGNNConfig(layers=2, hidden=16, channels=4, n_norm=10.0)))
    sample = random_sample([2, 5], width=0)
    assert sample.cell.det().pow(1 / 3).max() < 6.5
    check_denoiser(model, sample, cutoff=6.5, tolerance=1e-7)


def test_contract_with_a_finer_embedding_of_distances():
    model = scrambled(ScoreConfig(Vocabulary((14,)), egnn=replace(SMALL, embedding_range=2.5)))
    sample, t = random_sample([7, 4], width=0), torch.tensor([0.2, 0.7], dtype=torch.float64)
    check_denoiser(model, sample, cutoff=4.0, tolerance=1e-7)
    coarse = ScoreModel(ScoreConfig(Vocabulary((14,)), egnn=SMALL)).double()
    coarse.load_state_dict(model.state_dict())
    assert (coarse(sample, t).positions - model(sample, t).positions).abs().max() > 1e-3


def test_chunks_change_nothing():
    model = scrambled(ScoreConfig(Vocabulary((8, 14)), egnn=SMALL))
    sample, t = random_sample([9, 6], width=2), torch.tensor([0.2, 0.7], dtype=torch.float64)
    whole, parts = model(sample, t), model(sample, t, chunk=4)
    torch.testing.assert_close(parts.positions, whole.positions)
    torch.testing.assert_close(parts.elements, whole.elements)


def test_padding_changes_nothing():
    """A row with more places than neighbours gives the same noise: padding has no weight."""
    from amden.neighbors import neighbor_plan

    model = scrambled(ScoreConfig(Vocabulary((14,)), egnn=SMALL))
    sample, t = random_sample([9, 6], width=0), torch.tensor([0.2, 0.7], dtype=torch.float64)
    plan = neighbor_plan(sample.cell, sample.n_atoms, cutoff=4.0, capacity=200)
    torch.testing.assert_close(model(sample, t, plan=plan).positions, model(sample, t).positions)


def test_missing_target_is_the_null():
    """No condition, NaN, and a condition of an unknown name are the same; a target changes the prediction."""
    model = scrambled(ScoreConfig(Vocabulary((14,)), {"density": PropertyScale(2.0, 0.1)}, SMALL))
    sample, t = random_sample([9], width=0), torch.tensor([0.4], dtype=torch.float64)
    nan = replace(sample, conditions={"density": torch.full((1,), torch.nan, dtype=torch.float64)})
    asked = replace(sample, conditions={"density": torch.tensor([2.1], dtype=torch.float64)})
    bare = model(replace(sample, conditions={}), t).positions
    torch.testing.assert_close(model(nan, t).positions, bare, rtol=0, atol=0)
    assert (model(asked, t).positions - bare).abs().max() > 1e-3


def test_gradients_reach_every_weight():
    model = scrambled(ScoreConfig(Vocabulary((8, 14)), {"x": PropertyScale(0.0, 1.0)}, SMALL)).requires_grad_(True)
    sample = random_sample([9, 6], width=2, conditions=("x",))
    sample.conditions["x"][0] = torch.nan
    noise = model(sample, torch.tensor([0.2, 0.7], dtype=torch.float64))
    (noise.positions.square().sum() + noise.elements.square().sum()).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []


def test_bad_configuration():
    with pytest.raises(ValueError, match="`cutoff` must be positive, got -1"):
        EGNNConfig(cutoff=-1.0)
    with pytest.raises(ValueError, match="`embedding_range` must be positive, got 0"):
        EGNNConfig(embedding_range=0.0)
    with pytest.raises(ValueError, match="`std` of a property must be positive"):
        PropertyScale(1.0, 0.0)


@pytest.mark.parametrize("kind", [ScoreModel, EnergyModel])
def test_a_processor_may_take_the_atoms_in_another_order(monkeypatch, kind):
    """Those of a neighbourhood together; what is said of each stays the same."""
    sample = random_sample([7, 60], width=2)
    model = scrambled(ScoreConfig(Vocabulary((8, 14)), egnn=SMALL, energy=kind is EnergyModel), kind=kind)
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    plain, seen = model(sample, t, chunk=8), []
    monkeypatch.setattr(score_module, "SORTED_FROM", 1)
    model.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].positions))
    found = model(sample, t, chunk=8)
    assert not torch.equal(seen[0], sample.positions)
    assert torch.equal(seen[0].sort(0).values, sample.positions.sort(0).values)
    torch.testing.assert_close(found.positions, plain.positions, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.elements, plain.elements, rtol=1e-9, atol=1e-9)
