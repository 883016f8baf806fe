"""An interrupted batch goes on within itself, bit for bit, with Hamiltonian Monte Carlo and without."""

from dataclasses import fields, replace

import pytest
import torch

from amden import denoising, generation
from amden.blank import cubic_blank
from amden.diffusion.hmc import HMCConfig
from amden.diffusion.langevin import LangevinConfig
from amden.generation import generate
from amden.model import denoiser_of
from amden.parts import Parts, differences
from amden.refinement import evaluations

LANGEVIN = LangevinConfig(n_steps=2, t_min=0.1, t_max=0.6)
HMC = HMCConfig(n_verlet=2, step=0.05)
STEPS = 8


@pytest.fixture
def model(tiny_model):
    torch.manual_seed(0)
    denoiser = denoiser_of(replace(tiny_model.denoiser.config, energy=True), tiny_model.diffusion)
    return replace(tiny_model, denoiser=denoiser.eval().requires_grad_(False))


@pytest.fixture(autouse=True)
def _every_step_is_kept(monkeypatch):
    monkeypatch.setattr(generation, "SAVE_SECONDS", 0.0)


class Interruption:
    """Counts the evaluations, and interrupts after so many denoising steps."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.steps, self.evaluations = after, 0, 0

    def __call__(self, evaluations, _):
        self.steps += 1
        self.evaluations += evaluations
        if self.steps == self.after:
            raise KeyboardInterrupt


def made(model, parts=None, *, refine=HMC, batch_size=2, **reports):
    blank = cubic_blank(model, 3, atoms=12)
    return generate(model, blank, n_steps=STEPS, refine=refine, batch_size=batch_size, parts=parts, **reports)


def interrupted(model, parts, *, after, **options):
    with pytest.raises(KeyboardInterrupt):
        made(model, parts, on_step=Interruption(after), **options)


@pytest.mark.parametrize("refine", [HMC, LANGEVIN, None])
def test_an_interrupted_batch_goes_on_exactly(model, tmp_path, refine):
    parts, records, whole, counted = Parts(tmp_path / "g.extxyz", {"seed": 0}), [], [], Interruption()
    expected = made(model, refine=refine, on_record=whole.append, on_step=counted)
    interrupted(model, parts, after=6, refine=refine)
    assert sorted(path.name for path in parts.folder.iterdir()) == ["0000000.state"]
    rest = Interruption()
    # the batch that was begun keeps its size, though another is asked for now
    result = made(model, parts, refine=refine, on_record=records.append, on_step=rest, batch_size=1)
    assert torch.equal(result.positions, expected.positions)
    # the step that was interrupted is the only one done again
    assert rest.steps == 1 + (STEPS + 1 - 5) + (STEPS + 1)
    assert rest.evaluations == counted.evaluations
    for record, other in zip(records, whole, strict=True):
        for f in fields(record):
            assert torch.equal(torch.nan_to_num(getattr(record, f.name)), torch.nan_to_num(getattr(other, f.name)))
    assert sorted(path.name for path in parts.folder.iterdir()) == ["0000000.safetensors", "0000002.safetensors"]


def test_a_second_interruption_goes_on_too(model, tmp_path):
    parts = Parts(tmp_path / "g.extxyz", {"seed": 0})
    interrupted(model, parts, after=4)
    interrupted(model, parts, after=4)
    interrupted(model, parts, after=8)
    assert torch.equal(made(model, parts).positions, made(model).positions)


@pytest.mark.parametrize("after", [6, STEPS + 3])
def test_what_another_request_left_is_refused_and_stays(model, tmp_path, after):
    """A state alone, and a batch beside it."""
    mine = Parts(tmp_path / "g.extxyz", {"seed": 1, "asked": {"targets": {}}})
    interrupted(model, mine, after=after)
    left = sorted(path.name for path in mine.folder.iterdir())
    parts = Parts(tmp_path / "g.extxyz", {"seed": 0, "asked": {"targets": {"x": 1.5}}})
    message = r"\.g\.extxyz\.parts holds .* \(targets x was none, is 1\.5, seed was 1, is 0\): repeat that one, remove"
    with pytest.raises(ValueError, match=message):
        made(model, parts)
    with pytest.raises(ValueError, match=message):
        parts.load_state(2 if len(left) > 1 else 0)
    assert sorted(path.name for path in mine.folder.iterdir()) == left
    assert torch.equal(made(model, mine).positions, made(model).positions)


def test_what_is_kept_is_counted(model, tmp_path):
    parts = Parts(tmp_path / "g.extxyz", {"seed": 0})
    assert parts.n_kept == 0
    interrupted(model, parts, after=STEPS + 3)
    assert parts.n_kept == 2


def test_long_values_are_no_part_of_what_differs():
    assert differences({"cells": "0" * 64}, {"cells": "1" * 64}) == ["other cells"]
    assert differences({"settings": {"step": 0.1}}, {"settings": None}) == ["settings step was 0.1, is none"]


@pytest.mark.parametrize("name", ["0000000.state", "0000002.safetensors"])
def test_a_damaged_file_is_named(model, tmp_path, name):
    parts = Parts(tmp_path / "g.extxyz", {"seed": 0})
    parts.folder.mkdir()
    (parts.folder / name).write_bytes(b"cut short")
    with pytest.raises(ValueError, match=rf"{name}: truncated, damaged .*; remove it, and its batch begins anew"):
        made(model, parts)


def test_memory_that_runs_out_begins_the_batch_anew(model, tmp_path, monkeypatch):
    parts = Parts(tmp_path / "g.extxyz", {"seed": 0})
    interrupted(model, parts, after=6)
    evaluated = model.denoiser.energy_and_noise

    def stingy(sample, t, **options):
        if len(sample) > 1:
            raise torch.OutOfMemoryError("no memory for so many")
        return evaluated(sample, t, **options)

    monkeypatch.setattr(model.denoiser, "energy_and_noise", stingy)
    result = made(model, parts)
    torch.testing.assert_close(result.positions, made(model, batch_size=1).positions, rtol=0, atol=1e-9)


def test_the_time_is_told_before_the_first_step(model, monkeypatch):
    """By a clock that goes on by a second whenever it is read, three evaluations take one second."""
    ticks, told = iter(range(1000)), []
    monkeypatch.setattr(denoising.time, "monotonic", lambda: float(next(ticks)))

    def step(*_):
        assert told

    made(model, on_estimate=told.append, on_step=step, batch_size=2)
    work = sum(evaluations(model, n_steps=STEPS, refine=HMC))
    assert told == pytest.approx([work * 3 / 2 / 3])
