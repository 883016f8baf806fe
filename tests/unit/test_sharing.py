"""Several processes that share out a generation make what one makes alone."""

from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from amden import generation, sampling_commands, sharing
from amden.blank import Blank, cubic_blank
from amden.cli import main
from amden.diffusion.hmc import HMCConfig
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.generation import generate
from amden.model import Model, denoiser_of, save_model
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig
from amden.parts import Parts
from amden.request import Request
from amden.sharing import SHARED_FROM, gpus_to_share, make_shares

TWO = ["", ""]
"""GPUs of two workers that have none."""


@pytest.fixture
def energy_model(tiny_model):
    torch.manual_seed(0)
    denoiser = denoiser_of(replace(tiny_model.denoiser.config, energy=True), tiny_model.diffusion)
    return replace(tiny_model, denoiser=denoiser.eval().requires_grad_(False))


def conditional(path, *, seed: int) -> None:
    torch.manual_seed(seed)
    scales = {"x": PropertyScale(0.0, 1.0, None, (-2.0, 0.0, 2.0))}
    egnn = EGNNConfig(layers=1, hidden=16, channels=2, cutoff=4.0, n_norm=10.0)
    denoiser = denoiser_of(ScoreConfig(Vocabulary((8, 14)), scales, egnn), Diffusion()).eval().requires_grad_(False)
    for p in denoiser.parameters():
        p.copy_(0.3 * torch.randn(p.shape))
    save_model(path, Model(denoiser, Diffusion(), {"data": {"density": 2.2, "mean_mass": 20.03}}))


def test_a_share_is_that_part_of_the_whole(tiny_model):
    blank, steps = cubic_blank(tiny_model, 5, atoms=(10, 14)), []
    whole = generate(tiny_model, blank, seed=3, n_steps=3)
    for share, chosen in (((1, 2), [0, 1]), ((2, 2), [2, 3, 4])):
        made = generate(tiny_model, blank, seed=3, n_steps=3, share=share, on_step=lambda n, _: steps.append(n))
        assert torch.equal(made.positions, whole.select(chosen).positions)
        assert made.n_atoms.tolist() == whole.n_atoms[chosen].tolist()
    assert sum(steps) == 5 * 4
    with pytest.raises(ValueError, match="`share` must be i of m with 1 ≤ i ≤ m, and m at most 5 structures, got 1 of"):
        generate(tiny_model, blank, share=(1, 6))


def test_a_share_counts_and_takes_up_its_own_alone(tiny_model, tmp_path):
    parts, blank = Parts(tmp_path / "g.extxyz", {}), cubic_blank(tiny_model, 4, atoms=10)
    generate(tiny_model, blank, n_steps=3, share=(1, 2), batch_size=4, parts=parts)
    assert sorted(path.name for path in parts.folder.iterdir()) == ["0000000.safetensors"]
    steps = []
    for share in ((2, 2), (1, 2)):
        generate(tiny_model, blank, n_steps=3, share=share, parts=parts, on_step=lambda n, _: steps.append(n))
    assert steps == [1] * 8 + [8]


def test_nothing_is_moved_or_estimated_where_all_is_there(tiny_model, tmp_path, monkeypatch):
    parts, blank = Parts(tmp_path / "g.extxyz", {}), cubic_blank(tiny_model, 2, atoms=10)
    made = generate(tiny_model, blank, n_steps=3, parts=parts)
    for name in ("automatic_batch_size", "BatchRun", "_capacity", "StateKeeper"):
        monkeypatch.setattr(generation, name, None)
    again = generate(tiny_model, blank, n_steps=3, parts=parts, device="cuda", compiled=True, on_estimate=pytest.fail)
    assert torch.equal(again.positions, made.positions)


@pytest.mark.parametrize("refine", [HMCConfig(n_verlet=2, step=0.05), None])
def test_batches_are_cut_where_shares_begin(energy_model, tmp_path, monkeypatch, refine):
    """A finished batch and one on its way, from before, both longer than a share: no step is done again."""
    monkeypatch.setattr(generation, "SAVE_SECONDS", 0.0)
    blank, parts, steps = cubic_blank(energy_model, 6, atoms=(10, 15)), Parts(tmp_path / "g.extxyz", {}), []
    how = {"n_steps": 6, "refine": refine}
    expected = generate(energy_model, blank, **how)
    whole = []
    generate(energy_model, blank, batch_size=3, on_step=lambda n, _: whole.append(n), **how)

    def interrupted(*_):
        steps.append(1)
        if len(steps) == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(energy_model, blank, batch_size=3, parts=parts, on_step=interrupted, **how)
    parts.cut([0, 2, 4], blank.n_atoms)
    names = sorted(path.name for path in parts.folder.iterdir())
    assert names == ["0000000.safetensors", "0000002.safetensors", "0000003.state", "0000004.state"]
    assert parts.n_kept == 3
    told, records = [], []
    for i in (1, 2, 3):
        reports = {"on_step": lambda n, _: told.append(n), "on_record": records.append}
        generate(energy_model, blank, share=(i, 3), parts=parts, batch_size=1, **reports, **how)
    assert sum(told) == sum(whole)
    assert [r.step.shape[1] for r in records] == ([1, 2] if refine else [])
    made = generate(energy_model, blank, parts=parts, **how)
    assert made.n_atoms.tolist() == expected.n_atoms.tolist()
    torch.testing.assert_close(made.positions, expected.positions, rtol=0, atol=2e-4)


def test_a_batch_ends_where_another_was_begun(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SAVE_SECONDS", 0.0)
    blank, parts = cubic_blank(tiny_model, 4, atoms=10), Parts(tmp_path / "g.extxyz", {})

    def interrupted(*_):
        if parts.begun():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tiny_model, blank, n_steps=3, share=(2, 2), batch_size=2, parts=parts, on_step=interrupted)
    generate(tiny_model, blank, n_steps=3, batch_size=4, parts=parts)
    assert sorted(path.name for path in parts.folder.iterdir()) == ["0000000.safetensors", "0000002.safetensors"]


def test_two_workers_make_what_one_makes(tiny_model, energy_model, tmp_path):
    """Interrupted by somebody once one structure is finished, and gone on with; one model denoises, another moves."""
    blank, parts, steps, told = cubic_blank(tiny_model, 4, atoms=(8, 11)), Parts(tmp_path / "g", {}), [], []
    how = {"seed": 2, "n_steps": 20, "refine": HMCConfig(n_verlet=1, t_max=0.1), "energy": energy_model}
    expected = generate(tiny_model, blank, on_step=lambda n, _: steps.append(n), **how)

    def interrupted(*_):
        if parts.n_kept:
            raise KeyboardInterrupt

    def shared(on_step, on_estimate):
        make_shares(
            TWO, tiny_model, blank, request=Request(), parts=parts, on_step=on_step, on_estimate=on_estimate, **how
        )

    with pytest.raises(KeyboardInterrupt):
        shared(interrupted, told.append)
    assert len(told) == 1
    assert parts.n_kept
    counted, notes = [], set()
    shared(lambda n, now: (counted.append(n), notes.add(now)), told.append)
    assert sum(counted) == sum(steps)
    assert len(notes) > 1
    assert parts.n_kept == 4
    made = generate(tiny_model, blank, parts=parts, **how)
    torch.testing.assert_close(made.positions, expected.positions, rtol=0, atol=1e-5)


def test_what_a_worker_says_is_wrong_is_raised_here(tiny_model, tmp_path):
    blank = Blank(100.0 * torch.eye(3).expand(2, 3, 3), torch.tensor([10, 10]))
    told = {"on_step": pytest.fail, "on_estimate": pytest.fail}
    with pytest.raises(ValueError, match="structure 0 is too dilute"):
        make_shares(TWO, tiny_model, blank, request=Request(), parts=Parts(tmp_path / "g", {}), **told)


def test_a_worker_that_dies_is_told(tiny_model, tmp_path, monkeypatch):
    class Broken(Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_exception(BrokenExecutor("a process was terminated abruptly"))
            return future

    monkeypatch.setattr(sharing, "batch_executor", lambda **_: nullcontext(Broken()))
    blank, told = cubic_blank(tiny_model, 2, atoms=10), {"on_step": pytest.fail, "on_estimate": pytest.fail}
    with pytest.raises(OSError, match="a worker process died, killed or out of memory; finished batches are kept"):
        make_shares(TWO, tiny_model, blank, request=Request(), parts=Parts(tmp_path / "g", {}), **told)


def test_a_guided_generation_is_shared_by_the_verb(tmp_path, monkeypatch, capsys):
    for seed, name in enumerate(("model", "guide")):
        conditional(tmp_path / f"{name}.safetensors", seed=seed)
    asked = ["generate", str(tmp_path / "model.safetensors"), "--guide", str(tmp_path / "guide.safetensors")]
    asked += ["--target", "x=1.5", "--formula", "SiO2", "--n", "3", "--atoms", "24", "--steps", "6", "--device", "cpu"]
    main([*asked, "--out", str(tmp_path / "one.extxyz")])
    monkeypatch.setattr(sampling_commands, "gpus_to_share", lambda *_, **__: TWO)
    capsys.readouterr()
    main([*asked, "--out", str(tmp_path / "two.extxyz")])
    assert "2 workers on GPU" in capsys.readouterr().err
    assert (tmp_path / "two.extxyz").read_bytes() == (tmp_path / "one.extxyz").read_bytes()
    assert not list(tmp_path.glob(".*.parts"))


@pytest.mark.parametrize(
    ("device", "n", "work", "left", "found"),
    [
        ("cuda", 8, SHARED_FROM // 100, 8, ["3", "4", "5"]),
        ("cuda", 2, SHARED_FROM // 100, 2, ["3", "4"]),
        ("cuda", 8, SHARED_FROM // 400, 8, ["3", "4"]),
        ("cuda", 8, SHARED_FROM // 100, 1, []),
        ("cuda", 8, SHARED_FROM // 100, 0, []),
        ("cuda", 8, 200, 8, []),
        ("cuda:1", 8, SHARED_FROM, 8, []),
        ("cpu", 8, SHARED_FROM, 8, []),
    ],
)
def test_gpus_take_part_where_there_is_enough_to_do(tiny_model, monkeypatch, device, n, work, left, found):
    monkeypatch.setattr(sharing, "visible_gpus", lambda: ["3", "4", "5"])
    blank = cubic_blank(tiny_model, n, atoms=100)
    assert gpus_to_share(torch.device(device), blank, work=work, left=left) == found
