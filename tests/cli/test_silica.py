"""From data to structures with a target: a model with ghosts and a property, in the smallest size."""

from dataclasses import replace

import ase.io
import pytest
import torch

from amden.cli import main
from amden.io import write_structures
from amden.testing import random_structures

RECIPE = """
properties: [shear_modulus]
ghosts: {density: 0.09}
egnn: {layers: 1, hidden: 16, channels: 2, cutoff: 4.0, n_norm: 10.0}
training: {batch_size: 8, max_atoms: 200, validation: 2, log_every: 2, validate_every: 4, save_every: 2, warmup: 2}
"""


@pytest.fixture
def run(tmp_path):
    """A run of four steps on 24 cells of silica, some without a modulus, and what trains it."""
    made = random_structures([24, 30, 36] * 8, species=(8, 8, 14), seed=4, dtype=torch.float32)
    modulus = torch.linspace(20.0, 40.0, 24)
    modulus[3] = torch.nan
    write_structures(tmp_path / "silica.extxyz", replace(made, properties={"shear_modulus": modulus}))
    (tmp_path / "silica.yaml").write_text(RECIPE)
    arguments = ["train", str(tmp_path / "silica.yaml"), "--data", str(tmp_path / "silica.extxyz"), "--device", "cpu"]
    arguments += ["--out", str(tmp_path / "run"), "--set"]
    main([*arguments, "training.steps=4"])
    return tmp_path, arguments


def test_silica_with_a_target_from_data_to_structures(run, capsys):
    folder, arguments = run
    main([*arguments, "training.steps=8", "--resume"])
    assert (folder / "run" / "metrics.csv").read_text().count("\n") == 5
    with pytest.raises(SystemExit):
        main([*arguments, "ghosts.density=0.1", "--resume"])
    assert "the run was made with another `ghosts`" in capsys.readouterr().err
    main(["models", str(folder / "run")])
    told = capsys.readouterr().out
    assert "up to 0.09 atoms/Å³" in told
    assert "20.86 to 40 GPa" in told or "20 to 40 GPa" in told
    out = folder / "glass.extxyz"
    how = ["--n", "2", "--atoms", "30", "--steps", "4", "--device", "cpu", "--out", str(out), "--overwrite"]
    main(["generate", str(folder / "run"), *how, "--target", "shear_modulus=30000 MPa", "--formula", "SiO2"])
    glass = ase.io.read(out, ":")
    for one in glass:
        assert one.symbols.count("O") == 2 * one.symbols.count("Si") > 0
        assert one.info["target_shear_modulus"] == 30.0
        assert one.info["changed_atoms"] >= 0
    said = capsys.readouterr().out
    assert "e an atom" in said
    assert "elements changed to be SiO2" in said


def test_requests_that_cannot_be_met_end_before_work_begins(run, capsys):
    folder, _ = run
    for options, message in (
        (["--target", "shear_modulus=99 GPa"], "is outside the training data"),
        (["--target", "shear_modulus=30", "--guidance-kind", "odd"], "`--guidance-kind` must be null, model or icg"),
        (["--formula", "GeO2"], "GeO2 has Ge, the model knows O, Si and ghosts"),
        (["--target", "shear_modulus=30", "--guidance-kind", "model"], "guidance by a model needs that model"),
    ):
        with pytest.raises(SystemExit):
            main(["generate", str(folder / "run"), "--out", str(folder / "no.extxyz"), "--device", "cpu", *options])
        assert message in capsys.readouterr().err
    assert not (folder / "no.extxyz").exists()
