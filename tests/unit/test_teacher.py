"""Training on the noise that another model predicts."""

from dataclasses import replace

import pytest
import torch

from amden.cli.program import main
from amden.dataset import Split, split
from amden.diffusion.corruption import corrupt, encode, gaussian_noise
from amden.diffusion.loss import noise_error
from amden.diffusion.schedule import Diffusion, VarianceExploding
from amden.io import write_structures
from amden.model import load_model
from amden.nn.egnn import EGNNConfig
from amden.recipe import Recipe, TrainingConfig
from amden.structure import concatenate
from amden.testing import diamond, random_structures
from amden.training import train

EGNN = EGNNConfig(layers=1, hidden=16, channels=2, cutoff=4.0, n_norm=10.0)
LOOP = TrainingConfig(steps=2, batch_size=4, warmup=1, validation=4, log_every=1, validate_every=2, learning_rate=1e-6)
TAUGHT = replace(LOOP, teacher="another")


def test_a_model_that_learns_from_itself_has_nothing_to_learn_and_is_validated_by_noise(fabric, parts, tmp_path):
    teacher = train(Recipe(egnn=EGNN, training=LOOP), parts, tmp_path / "teacher", fabric=fabric)
    for name, how, loop in (("taught", {"teacher": teacher}, TAUGHT), ("alone", {}, LOOP)):
        seen = []
        model = train(
            Recipe(egnn=EGNN, training=loop),
            parts,
            tmp_path / name,
            fabric=fabric,
            start=teacher,
            progress=seen.append,
            **how,
        )
        assert seen[-1].validation == pytest.approx(1.0, abs=0.5)
        assert (seen[0].loss < 1e-6) == (name == "taught")
        assert ("teacher" in model.provenance) == (name == "taught")
    assert load_model(tmp_path / "taught" / "model.safetensors").provenance["teacher"] == {"steps": 2}


def test_a_student_comes_nearer_to_its_teacher_than_one_that_learns_by_drawn_noise(fabric, tmp_path):
    """Both from random weights in as many steps, judged by noise that none has seen."""
    crystals = concatenate([diamond().to(dtype=torch.float32)] * 16)
    data = split(crystals, validation=8)
    loop = TrainingConfig(steps=80, batch_size=4, warmup=5, validation=8, log_every=80, learning_rate=1e-2, ema=0.9)
    recipe = Recipe(egnn=replace(EGNN, cutoff=5.0, n_norm=20.0), energy=True, training=loop)
    teacher = train(recipe, data, tmp_path / "teacher", fabric=fabric)
    loop = replace(loop, steps=70, seed=1)
    alone = train(replace(recipe, training=loop), data, tmp_path / "alone", fabric=fabric)
    student = replace(recipe, training=replace(loop, teacher="teacher"))
    taught = train(student, data, tmp_path / "taught", fabric=fabric, teacher=teacher)
    clean = encode(crystals, teacher.denoiser.config.vocabulary)
    t = torch.linspace(0.1, 0.9, len(clean))
    noisy = corrupt(clean, t, gaussian_noise(clean, torch.Generator().manual_seed(9)), Diffusion())
    told = teacher.denoiser(noisy, t)
    assert float(told.positions.square().mean()) > 0.1
    off = [float(noise_error(m.denoiser(noisy, t), told, noisy).positions.mean()) for m in (taught, alone)]
    assert off[0] < 0.6 * off[1], off


def test_what_cannot_teach_is_refused(fabric, parts, tmp_path):
    labelled = Split(
        *(
            replace(part, properties={"x": torch.arange(float(len(part)))})
            for part in (parts.training, parts.validation)
        )
    )
    silicon = split(random_structures([8] * 12, species=(14,), seed=1, dtype=torch.float32), validation=4)
    recipe = Recipe(egnn=EGNN, training=TAUGHT)
    made = Recipe(egnn=EGNN, properties=("x",), training=LOOP)
    knowing = train(made, labelled, tmp_path / "x", fabric=fabric, max_seconds=0.0)
    plain = train(Recipe(egnn=EGNN, training=LOOP), parts, tmp_path / "plain", fabric=fabric, max_seconds=0.0)
    wide = replace(recipe, diffusion=Diffusion(positions=VarianceExploding(sigma_max=2.0)))
    for name, asked, data, teacher, said in (
        ("a", recipe, parts, None, "the recipe names a teacher, another: give that model"),
        ("b", recipe, silicon, plain, "the teacher knows O, Si, the data hold Si"),
        ("c", recipe, parts, knowing, "the teacher is conditioned on x, the recipe is not"),
        ("d", wide, parts, plain, "the teacher's noise is"),
    ):
        with pytest.raises(ValueError, match=said):
            train(asked, data, tmp_path / name, fabric=fabric, teacher=teacher)


def test_the_recipe_names_the_teacher(tmp_path):
    data, score = tmp_path / "mine.extxyz", tmp_path / "score"
    write_structures(data, random_structures([12] * 6, species=(14,), seed=2))
    shape = ["--set", "egnn.hidden=16", "--set", "egnn.layers=1", "--set", "egnn.channels=2"]
    options = ["train", "--data", str(data), "--device", "cpu", *shape, "--set", "training.steps=1"]
    main([*options, "--out", str(score)])
    learns = [*options, "--set", "energy=true", "--set", f"training.teacher={score}", "--out"]
    main([*learns, str(tmp_path / "taught")])
    told = load_model(tmp_path / "taught" / "model.safetensors").provenance
    assert told["teacher"] == {"name": "score", "steps": 1}
    with pytest.raises(SystemExit):
        main([*learns[:-2], f"training.teacher={tmp_path / 'none'}", "--out", str(tmp_path / "lost")])
    assert not (tmp_path / "lost").exists()
