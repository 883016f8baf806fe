"""What the loop does to a model, seen through what it asks the denoiser, what it writes, and what it goes on from."""

import csv
import os
import signal
from dataclasses import replace

import pytest
import torch

from amden import objective
from amden.checkpoint import load_checkpoint
from amden.dataset import Split, split
from amden.diffusion.loss import Losses, LossWeights, TimeBand
from amden.model import load_model
from amden.nn.egnn import EGNNConfig
from amden.recipe import Recipe, TrainingConfig, learning_rate
from amden.run_folder import METRICS, MODEL, STATE
from amden.testing import random_structures
from amden.training import train

EGNN = EGNNConfig(layers=1, hidden=8, channels=1, cutoff=4.0, n_norm=10.0)
LOOP = TrainingConfig(
    steps=8, batch_size=4, warmup=2, validation=4, log_every=2, validate_every=4, save_every=4, learning_rate=3e-3
)
RECIPE = Recipe(egnn=EGNN, training=LOOP)
HELD_OUT = 7.0
"""The property of the structures set aside, which no other has."""


@pytest.fixture
def parts() -> Split:
    found = split(random_structures([8] * 20, species=(8, 14), seed=1, dtype=torch.float32), validation=4)
    known, unseen = torch.linspace(0.0, 1.0, len(found.training)), torch.full((len(found.validation),), HELD_OUT)
    return Split(replace(found.training, properties={"x": known}), replace(found.validation, properties={"x": unseen}))


@pytest.fixture
def asked(monkeypatch):
    """Times and conditions of each batch: in training, and in validation."""
    seen: dict[bool, list[tuple[torch.Tensor, torch.Tensor]]] = {True: [], False: []}
    plain = objective.score_matching

    def spying(denoiser, sample, **given):
        x = sample.conditions.get("x", torch.zeros(len(sample)))
        seen[torch.is_grad_enabled()].append((given["t"], x))
        return plain(denoiser, sample, **given)

    monkeypatch.setattr(objective, "score_matching", spying)
    return seen


def loop(**changes) -> Recipe:
    return replace(RECIPE, training=replace(LOOP, **changes))


def state(folder) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(folder / STATE, kind="state").tensors)


def rows(folder) -> list[dict[str, str]]:
    with (folder / METRICS).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def start_weights(fabric, parts, folder, recipe=RECIPE) -> dict[str, torch.Tensor]:
    train(recipe, parts, folder, fabric=fabric, max_seconds=0.0)
    return state(folder)


def test_properties_are_hidden_and_times_drawn_as_the_recipe_says(fabric, parts, asked, tmp_path):
    band = TimeBand(0.2, 0.4, 0.6)
    recipe = loop(steps=150, missing=0.3, time_exponent=0.5, time_band=band, log_every=150, validate_every=150)
    train(replace(recipe, properties=("x",)), parts, tmp_path, fabric=fabric)
    t, x = (torch.cat(values) for values in zip(*asked[True], strict=True))
    assert abs(float(x.isnan().float().mean()) - 0.3) < 5 * (0.3 * 0.7 / len(x)) ** 0.5
    assert not (x == HELD_OUT).any()
    power = (0.4**0.5 - 0.2**0.5) / (0.99**0.5 - 0.01**0.5)
    share = 0.6 + 0.4 * power
    inside = ((t > 0.2) & (t < 0.4)).float().mean()
    assert abs(float(inside) - share) < 5 * (share * (1 - share) / len(t)) ** 0.5
    t, x = (torch.cat(values) for values in zip(*asked[False], strict=True))
    assert x.tolist() == [HELD_OUT] * 4
    assert len(((t - 0.01) / 0.98 * 4).floor().unique()) == 4, "validation: evenly over all times"


@pytest.mark.parametrize(("stratified", "even"), [(True, 1.0), (False, 0.5)])
def test_times_of_a_batch_are_spread_evenly_if_asked(fabric, parts, asked, tmp_path, stratified, even):
    train(loop(steps=30, stratified=stratified, log_every=30, validate_every=30), parts, tmp_path, fabric=fabric)
    spread = [len(((t - 0.01) / 0.98 * 4).floor().unique()) == 4 for t, _ in asked[True]]
    assert sum(spread) == 30 if even == 1.0 else sum(spread) < even * 30


def test_weights_are_averaged_exponentially_and_the_rate_warms_up(fabric, parts, tmp_path):
    recipe = loop(steps=2, warmup=4, log_every=1, save_every=1, learning_rate=4e-3)

    def stop(progress):
        if progress.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, parts, tmp_path / "run", fabric=fabric, progress=stop)
    one = state(tmp_path / "run")
    train(recipe, parts, tmp_path / "run", fabric=fabric, resume=True)
    zero, two = start_weights(fabric, parts, tmp_path / "start", recipe), state(tmp_path / "run")
    for name in (key.removeprefix("weights.") for key in zero if key.startswith("weights.")):
        w0, w1, w2 = (each[f"weights.{name}"] for each in (zero, one, two))
        first = w0 + 9 / 11 * (w1 - w0)
        torch.testing.assert_close(one[f"average.{name}"], first)
        torch.testing.assert_close(two[f"average.{name}"], first + 9 / 12 * (w2 - first))
    moved = [float((one[key] - zero[key]).abs().max()) for key in zero if key.startswith("weights.")]
    assert max(moved) == pytest.approx(1e-3, rel=1e-3), "Adam's first step is the rate, a quarter of the full one"


def test_gradients_are_clipped(fabric, parts, tmp_path):
    train(loop(steps=1, clip=1e-3), parts, tmp_path, fabric=fabric)
    moments = [values for key, values in state(tmp_path).items() if key.endswith("exp_avg")]
    norm = float(torch.stack([m.norm() for m in moments]).norm())
    assert norm == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_elements_count_as_the_recipe_says(fabric, parts, tmp_path, weight):
    recipe = loop(weights=LossWeights(elements=weight))
    before = start_weights(fabric, parts, tmp_path / "start", recipe)
    train(recipe, parts, tmp_path / "run", fabric=fabric)
    head = "weights.network.elements.weight"
    assert torch.equal(before[head], state(tmp_path / "run")[head]) == (weight == 0.0)


def test_validation_is_of_the_average_with_the_same_noise_every_time(fabric, parts, tmp_path):
    still = loop(steps=4, learning_rate=1e-12, validate_every=2)
    train(still, parts, tmp_path / "still", fabric=fabric)
    first, second = (float(row["validation"]) for row in rows(tmp_path / "still") if row["validation"])
    assert first == pytest.approx(second, rel=1e-6)
    for name, ema in (("short", 0.0), ("long", 1.0)):
        train(loop(ema=ema, learning_rate=3e-2), parts, tmp_path / name, fabric=fabric)
    short, long = rows(tmp_path / "short"), rows(tmp_path / "long")
    assert [row["loss"] for row in short] == [row["loss"] for row in long]
    assert float(short[-1]["validation"]) != pytest.approx(float(long[-1]["validation"]), rel=1e-4)


def test_validation_has_its_own_steps(fabric, parts, tmp_path):
    train(loop(log_every=5, validate_every=3), parts, tmp_path, fabric=fabric)
    assert [(row["step"], bool(row["validation"])) for row in rows(tmp_path)] == [
        ("3", True),
        ("5", False),
        ("6", True),
        ("8", True),
    ]


def test_a_start_brings_weights_but_no_scales(fabric, parts, tmp_path):
    recipe = replace(loop(steps=1), properties=("x",))
    first = train(recipe, parts, tmp_path / "a", fabric=fabric)
    moved = [
        replace(part, properties={"x": part.properties["x"] + 50.0}) for part in (parts.training, parts.validation)
    ]
    second = train(recipe, Split(*moved), tmp_path / "b", fabric=fabric, start=first)
    scale = second.denoiser.config.properties["x"]
    assert scale.mean == pytest.approx(50.5)
    kept = {k: float(v) for k, v in second.denoiser.state_dict().items() if k.endswith("x.mean")}
    assert list(kept.values()) == [pytest.approx(50.5)]
    vectors = [replace(part, properties={"x": torch.rand(len(part), 3)}) for part in (parts.training, parts.validation)]
    with pytest.raises(ValueError, match="property 'x' has 3 components in the data, one number in the model to start"):
        train(recipe, Split(*vectors), tmp_path / "c", fabric=fabric, start=first)


def test_a_run_does_not_go_on_with_other_data(fabric, parts, tmp_path):
    recipe = replace(loop(steps=2), properties=("x",))
    train(recipe, parts, tmp_path, fabric=fabric)
    longer = replace(recipe, training=replace(recipe.training, steps=4))
    fewer = replace(parts, training=parts.training.select(range(12)))
    with pytest.raises(ValueError, match="the run's data had structures 16, these have 12; a run on other data begins"):
        train(longer, fewer, tmp_path, fabric=fabric, resume=True)
    elements = {8: 14, 14: 32}
    other = [
        replace(part, species=torch.tensor([elements[z] for z in part.species.tolist()], dtype=part.species.dtype))
        for part in (parts.training, parts.validation)
    ]
    with pytest.raises(ValueError, match=r"the run's data had elements \['O', 'Si'\], these have \['Si', 'Ge'\]"):
        train(longer, Split(*other), tmp_path, fabric=fabric, resume=True)
    moved = [replace(part, properties={"x": part.properties["x"] + 1e3}) for part in (parts.training, parts.validation)]
    with pytest.raises(ValueError, match="a property of the data has changed"):
        train(longer, Split(*moved), tmp_path, fabric=fabric, resume=True)
    train(longer, parts, tmp_path, fabric=fabric, resume=True)
    assert load_model(tmp_path / MODEL).provenance["steps"] == 4


def failing(monkeypatch, at: int, error: BaseException | None = None):
    """From training step `at` on the loss is infinite; or the step fails."""
    plain, calls = objective.score_matching, [0]

    def broken(denoiser, sample, **given):
        found = plain(denoiser, sample, **given)
        calls[0] += torch.is_grad_enabled()
        if calls[0] != at:
            return found
        if error is not None:
            raise error
        return Losses(found.positions * torch.inf, found.elements)

    monkeypatch.setattr(objective, "score_matching", broken)


@pytest.mark.parametrize(("at", "kept"), [(6, 4), (2, None)])
def test_weights_that_are_no_numbers_never_replace_a_checkpoint(fabric, parts, tmp_path, monkeypatch, at, kept):
    failing(monkeypatch, at)
    goes_on = "begin anew" if kept is None else "go on with `--resume` from the last checkpoint in"
    with pytest.raises(ValueError, match=rf"at step \d: lower `training.learning_rate` and {goes_on}"):
        train(loop(log_every=4, save_every=4), parts, tmp_path, fabric=fabric)
    if kept is None:
        assert not (tmp_path / MODEL).exists()
    else:
        model = load_model(tmp_path / MODEL)
        assert model.provenance["steps"] == kept
        assert all(bool(values.isfinite().all()) for values in model.denoiser.state_dict().values())


def test_a_limit_of_time_does_not_hide_weights_that_are_no_numbers(fabric, parts, tmp_path, monkeypatch):
    failing(monkeypatch, 3)
    with pytest.raises(ValueError, match="weights are no numbers any more at step"):
        train(loop(steps=10**6, log_every=10**6, validate_every=10**6), parts, tmp_path, fabric=fabric, max_seconds=1.0)


def test_a_step_that_is_cut_short_is_done_again(fabric, parts, tmp_path, monkeypatch):
    whole = train(RECIPE, parts, tmp_path / "whole", fabric=fabric)
    with monkeypatch.context() as patched:
        failing(patched, 6, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(RECIPE, parts, tmp_path / "cut", fabric=fabric)
    assert int(state(tmp_path / "cut")["step"]) == 4
    again = train(RECIPE, parts, tmp_path / "cut", fabric=fabric, resume=True)
    for name, values in whole.denoiser.state_dict().items():
        torch.testing.assert_close(again.denoiser.state_dict()[name], values, rtol=0, atol=0)
    assert [row["step"] for row in rows(tmp_path / "cut")] == ["2", "4", "6", "8"]


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def number(request):
    """A signal that this process heeds, as one in the background may not."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def sending(number):
    def send(progress):
        if progress.step == 2:
            os.kill(os.getpid(), number)

    return send


def test_a_signal_ends_the_run_between_steps_with_a_checkpoint(fabric, parts, tmp_path, number):
    told, before = [], signal.getsignal(number)
    how = {"fabric": fabric, "progress": sending(number), "on_signal": lambda: told.append(True)}
    with pytest.raises(KeyboardInterrupt):
        train(loop(save_every=100), parts, tmp_path, **how)
    assert told == [True]
    assert int(state(tmp_path)["step"]) == 2
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so(fabric, parts, tmp_path, number):
    signal.signal(number, signal.SIG_IGN)
    train(RECIPE, parts, tmp_path, fabric=fabric, progress=sending(number))
    assert int(state(tmp_path)["step"]) == RECIPE.training.steps


def test_rows_beyond_the_checkpoint_are_written_once(fabric, parts, tmp_path):
    def die(progress):
        if progress.step == 6:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(RECIPE, parts, tmp_path, fabric=fabric, progress=die)
    with (tmp_path / METRICS).open("a", encoding="utf-8") as file:
        file.write((tmp_path / METRICS).read_text().splitlines()[-1].replace("6,", "8,", 1) + "\n10,0.0")
    train(RECIPE, parts, tmp_path, fabric=fabric, resume=True)
    assert [row["step"] for row in rows(tmp_path)] == ["2", "4", "6", "8"]


def test_minutes_end_a_run_with_its_rate_at_the_end(fabric, parts, tmp_path):
    config = TrainingConfig(steps=1000, warmup=0, learning_rate=1.0, final_rate=0.1, minutes=2.0)
    assert learning_rate(100, config, seconds=60.0) == pytest.approx(0.55)
    assert learning_rate(500, config, seconds=0.0) == pytest.approx(0.55)
    assert learning_rate(1, config, seconds=500.0) == pytest.approx(0.1)
    train(loop(steps=10**6, minutes=1e-6), parts, tmp_path, fabric=fabric)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == ["2"]
    assert float(state(tmp_path)["seconds"]) > 6e-5
    with pytest.raises(ValueError, match=r"`minutes` must be positive, got 0\.0"):
        TrainingConfig(minutes=0.0)


def test_an_element_that_only_the_held_out_have_is_known(fabric, parts, tmp_path):
    rare = parts.validation.species.clone()
    rare[0] = 31
    model = train(RECIPE, replace(parts, validation=replace(parts.validation, species=rare)), tmp_path, fabric=fabric)
    assert model.denoiser.config.vocabulary.species == (8, 14, 31)


def test_a_band_of_times_outside_the_process_is_refused():
    with pytest.raises(
        ValueError, match=r"`training.time_band` must lie within the times of the process, 0\.01 to 0\.99"
    ):
        loop(time_band=TimeBand(0.5, 1.0, 0.5))


@pytest.mark.parametrize("name", ["warmup", "validation", "seed"])
def test_numbers_that_must_not_be_negative(name):
    with pytest.raises(ValueError, match=f"`{name}` must not be negative, got -1"):
        replace(LOOP, **{name: -1})


def test_a_run_that_goes_on_takes_no_start(fabric, parts, tmp_path):
    model = train(loop(steps=1), parts, tmp_path, fabric=fabric)
    with pytest.raises(ValueError, match="a run that goes on has its weights: leave out `--start` or `--resume`"):
        train(RECIPE, parts, tmp_path, fabric=fabric, resume=True, start=model)
