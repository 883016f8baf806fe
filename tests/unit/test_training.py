import csv
from dataclasses import replace

import pytest
import torch

from amden.dataset import Split, data_facts, split
from amden.model import load_model
from amden.nn.egnn import EGNNConfig
from amden.nn.energy import EnergyModel
from amden.recipe import GhostConfig, Recipe, TrainingConfig, learning_rate, score_config
from amden.structure import concatenate
from amden.testing import diamond, random_structures
from amden.training import train

EGNN = EGNNConfig(layers=1, hidden=16, channels=2, cutoff=4.0, n_norm=10.0)
LOOP = TrainingConfig(
    steps=12, batch_size=4, warmup=2, validation=4, log_every=3, validate_every=6, save_every=6, learning_rate=3e-3
)


def weights(model):
    return torch.cat([p.flatten() for p in model.denoiser.state_dict().values()])


def test_an_interrupted_run_goes_on_bit_for_bit(fabric, parts, tmp_path):
    recipe = Recipe(egnn=EGNN, training=LOOP)
    whole = train(recipe, parts, tmp_path / "whole", fabric=fabric)

    def stop(progress):
        if progress.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, parts, tmp_path / "parts", fabric=fabric, progress=stop)
    resumed = train(recipe, parts, tmp_path / "parts", fabric=fabric, resume=True)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    tables = [(tmp_path / run / "metrics.csv").read_text().splitlines() for run in ("whole", "parts")]
    rows = [list(csv.DictReader(table)) for table in tables]
    assert [r["step"] for r in rows[0]] == ["3", "6", "9", "12"]
    assert [r["loss"] for r in rows[1]][-2:] == [r["loss"] for r in rows[0]][-2:]


def test_learns_a_crystal(fabric, tmp_path):
    """In a crystal distances tell the noise: the loss falls below 7/8, that of predicting zero for 8 atoms."""
    crystals = concatenate([diamond().to(dtype=torch.float32)] * 16)
    loop = TrainingConfig(steps=100, batch_size=8, warmup=10, validation=8, log_every=100, learning_rate=1e-2, ema=0.95)
    seen = []
    egnn = EGNNConfig(layers=2, hidden=32, channels=4, cutoff=5.0, n_norm=20.0)
    train(
        Recipe(egnn=egnn, training=loop), split(crystals, validation=8), tmp_path, fabric=fabric, progress=seen.append
    )
    assert seen[-1].validation < 0.75


def test_an_energy_model_learns_a_crystal_and_starts_from_a_score_model(fabric, tmp_path):
    """Its second derivatives train it; a score model brings the layers, the head stays its own."""
    crystals = concatenate([diamond().to(dtype=torch.float32)] * 16)
    loop = TrainingConfig(steps=80, batch_size=8, warmup=10, validation=8, log_every=80, learning_rate=1e-2, ema=0.95)
    egnn = EGNNConfig(layers=1, hidden=32, channels=4, cutoff=5.0, n_norm=20.0)
    data, seen = split(crystals, validation=8), []
    recipe = Recipe(egnn=egnn, energy=True, training=loop)
    train(recipe, data, tmp_path / "energy", fabric=fabric, progress=seen.append)
    assert seen[-1].validation < 0.8
    kept = load_model(tmp_path / "energy" / "model.safetensors")
    assert isinstance(kept.denoiser, EnergyModel)
    score = train(Recipe(egnn=egnn, training=loop), data, tmp_path / "score", fabric=fabric, max_seconds=1e-9)
    warm = train(recipe, data, tmp_path / "warm", fabric=fabric, start=score, max_seconds=1e-9)
    given, taken = score.denoiser.state_dict(), warm.denoiser.state_dict()
    for name in ("egnn.embed.weight", "egnn.layers.0.edge.out.weight"):
        torch.testing.assert_close(taken[f"network.energies.{name}"], given[f"network.{name}"], rtol=0, atol=2e-2)
    with pytest.raises(ValueError, match="the model to start from is an energy model"):
        train(Recipe(egnn=egnn, training=loop), data, tmp_path / "back", fabric=fabric, start=kept)


def test_run_folder_holds_a_model_that_says_where_it_comes_from(fabric, parts, tmp_path):
    train(Recipe(egnn=EGNN, training=LOOP), parts, tmp_path, fabric=fabric, provenance={"data": {"source": "mine"}})
    model = load_model(tmp_path / "model.safetensors")
    assert model.denoiser.config.vocabulary.species == (8, 14)
    assert model.provenance["data"]["source"] == "mine"
    assert model.provenance["data"]["density"] == pytest.approx(float(parts.training.density.mean()), rel=1e-5)
    assert model.provenance["steps"] == 12
    assert (tmp_path / "config.yaml").read_text().count("layers: 1") == 1


def test_stops_in_time_with_a_checkpoint(fabric, parts, tmp_path):
    train(Recipe(egnn=EGNN, training=LOOP), parts, tmp_path, fabric=fabric, max_seconds=1e-9)
    assert load_model(tmp_path / "model.safetensors").provenance["steps"] < 12


def test_conditions_are_scaled_by_the_training_set(parts):
    data = parts.training
    with_property = type(data)(
        data.positions, data.species, data.cell, data.n_atoms, {"hardness": torch.arange(8.0), "flat": torch.ones(8)}
    )
    config = score_config(Recipe(properties=("hardness",), egnn=EGNN), with_property)
    assert config.properties["hardness"].mean == pytest.approx(3.5)
    assert config.properties["hardness"].std == pytest.approx(6**0.5)
    with pytest.raises(ValueError, match="property 'color' is not in the data, which has: flat, hardness"):
        score_config(Recipe(properties=("color",), egnn=EGNN), with_property)
    with pytest.raises(ValueError, match="`std` of a property must be positive"):
        score_config(Recipe(properties=("flat",), egnn=EGNN), with_property)


def test_a_conditioned_model_trains_with_gaps(fabric, parts, tmp_path):
    def labelled(s):
        values = torch.linspace(1.0, 2.0, len(s))
        values[0] = torch.nan
        return type(s)(s.positions, s.species, s.cell, s.n_atoms, {"hardness": values})

    data = Split(labelled(parts.training), labelled(parts.validation))
    model = train(Recipe(properties=("hardness",), egnn=EGNN, training=LOOP), data, tmp_path, fabric=fabric)
    assert torch.isfinite(weights(model)).all()


def test_folders_are_not_mixed_up(fabric, parts, tmp_path):
    recipe = Recipe(egnn=EGNN, training=LOOP)
    with pytest.raises(FileNotFoundError, match="no such file"):
        train(recipe, parts, tmp_path / "new", fabric=fabric, resume=True)
    train(recipe, parts, tmp_path / "run", fabric=fabric, max_seconds=1e-9)
    with pytest.raises(FileExistsError, match="holds a run already: go on with `--resume`"):
        train(recipe, parts, tmp_path / "run", fabric=fabric)
    other = Recipe(egnn=EGNNConfig(layers=2, hidden=16, channels=2, cutoff=4.0), training=LOOP)
    with pytest.raises(ValueError, match="the run was made with another `egnn`"):
        train(other, parts, tmp_path / "run", fabric=fabric, resume=True)


def test_learning_rate_warms_up_and_falls():
    config = TrainingConfig(steps=1000, warmup=100, learning_rate=2.0, final_rate=0.1)
    rates = [learning_rate(step, config) for step in range(1001)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == rates[99] == pytest.approx(2.0)
    assert rates[550] == pytest.approx(1.1)
    assert rates[1000] == pytest.approx(0.2)


def test_facts_leave_ghosts_out():
    structures = diamond()
    ghosted = type(structures)(
        structures.positions, structures.species * torch.tensor([1] * 6 + [0] * 2), structures.cell, structures.n_atoms
    )
    facts = data_facts(ghosted)
    assert facts["mean_mass"] == pytest.approx(28.085)
    assert facts["density"] == pytest.approx(float(structures.density) * 6 / 8)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("batch_size", -1), ("learning_rate", 0.0)])
def test_positive_numbers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be positive"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("name", ["ema", "missing", "final_rate"])
def test_fractions(name):
    with pytest.raises(ValueError, match=rf"`{name}` must lie in \[0, 1\], got 1\.5"):
        TrainingConfig(**{name: 1.5})


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(fabric, parts, tmp_path):
    loop = TrainingConfig(steps=6, batch_size=4, validation=4, log_every=1, validate_every=6, save_every=2)

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Recipe(egnn=EGNN, training=loop), parts, tmp_path, fabric=fabric, progress=stop)
    nowhere = Split(concatenate([parts.training] * 1).to(dtype=torch.float32), parts.validation)
    nowhere.training.positions[:] = torch.nan
    with pytest.raises(ValueError, match="the loss is nan at step 4: lower"):
        train(Recipe(egnn=EGNN, training=loop), nowhere, tmp_path, fabric=fabric, resume=True)
    kept = load_model(tmp_path / "model.safetensors")
    assert kept.provenance["steps"] == 3
    assert torch.isfinite(weights(kept)).all()


def test_a_run_can_begin_with_the_weights_of_a_model(fabric, parts, tmp_path):
    first = train(Recipe(egnn=EGNN, training=LOOP), parts, tmp_path / "a", fabric=fabric)
    still = Recipe(egnn=EGNN, training=replace(LOOP, steps=1, learning_rate=1e-12))
    second = train(still, parts, tmp_path / "b", fabric=fabric, start=first)
    torch.testing.assert_close(weights(second), weights(first))
    assert second.provenance["start"] == {"steps": first.provenance["steps"]}
    further = replace(still, training=replace(still.training, steps=2))
    third = train(further, parts, tmp_path / "b", fabric=fabric, resume=True)
    assert (third.provenance["steps"], third.provenance["start"]) == (2, second.provenance["start"])
    fresh = train(still, parts, tmp_path / "c", fabric=fabric)
    assert (weights(fresh) - weights(first)).abs().max() > 1e-3
    larger = Recipe(egnn=replace(EGNN, layers=2), training=LOOP)
    with pytest.raises(ValueError, match="the model to start from has another `egnn`"):
        train(larger, parts, tmp_path / "d", fabric=fabric, start=first)
    silicon = split(random_structures([8] * 8, species=(14,), dtype=torch.float32), validation=2)
    with pytest.raises(ValueError, match="the model to start from knows O, Si, the data hold Si"):
        train(still, silicon, tmp_path / "e", fabric=fabric, start=first)
    labelled = [replace(s, properties={"x": torch.arange(float(len(s)))}) for s in (parts.training, parts.validation)]
    conditioned = replace(still, properties=("x",))
    with pytest.raises(ValueError, match=r"is conditioned on \[\], the recipe asks for \['x'\]"):
        train(conditioned, Split(*labelled), tmp_path / "f", fabric=fabric, start=first)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_mixed_sizes_with_fresh_ghosts_go_on_bit_for_bit(fabric, tmp_path):
    """Ghosts are a function of seed and step like all else; an `max_atoms` batch holds no more than that."""
    made = random_structures([8, 10, 12] * 6, species=(8, 14), seed=1, dtype=torch.float32)
    labelled = replace(made, properties={"x": torch.arange(18.0)})
    loop = replace(LOOP, steps=6, max_atoms=120, log_every=1)
    recipe = Recipe(properties=("x",), ghosts=GhostConfig(density=0.08), egnn=EGNN, training=loop)
    data = split(labelled, validation=4)
    whole = train(recipe, data, tmp_path / "whole", fabric=fabric)
    assert whole.denoiser.config.ghost_density == 0.08
    assert whole.denoiser.config.vocabulary.ghosts

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "parts", fabric=fabric, progress=stop)
    resumed = train(recipe, data, tmp_path / "parts", fabric=fabric, resume=True)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    kept = load_model(tmp_path / "whole" / "model.safetensors").denoiser.config
    assert kept == whole.denoiser.config
    with pytest.raises(ValueError, match=r"`ghosts.density` 0\.001 adds no ghosts: the data have 0\.0"):
        train(replace(recipe, ghosts=GhostConfig(density=0.001)), data, tmp_path / "few", fabric=fabric)
    with pytest.raises(ValueError, match="`max_atoms` must be positive, got 0"):
        TrainingConfig(max_atoms=0)
