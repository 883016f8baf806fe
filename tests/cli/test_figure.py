"""`amden figure` as a user types it: what is off and by how much, sets made when they are missing."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amden.cli import main
from amden.config import load_config
from amden.io import read_structures, write_structures
from amden.panels import Panels
from amden.simulate.potentials import StillingerWeber
from amden.simulate.relaxation import relax_structures
from amden.structure import Structures
from amden.testing import diamond

RECIPES = Path(__file__).parents[2] / "recipes" / "figures"


def shaken(n: int, *, seed: int, a: float = 5.43) -> Structures:
    """Diamond with the atoms displaced by 0.1 Å: its inherent structure is known."""
    cells = diamond(a=a).select([0] * n).to(dtype=torch.float64)
    moves = torch.randn(cells.positions.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return replace(cells, positions=cells.positions + 0.1 * moves)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_structures("reference.extxyz", shaken(8, seed=0))
    write_structures("same.extxyz", shaken(6, seed=1))
    Path("recipe.yaml").write_text(
        "rows:\n  crystal:\n    reference: {path: reference.extxyz}\n    generated: {same: {path: same.extxyz}}\n"
    )
    return tmp_path


def rows(path: str) -> dict[tuple[str, str], dict[str, str]]:
    with Path(path).open(encoding="utf-8") as file:
        return {(row["quantity"], row["measure"]): row for row in csv.DictReader(file)}


def test_shaken_crystals_have_the_same_inherent_structure(folder, capsys):
    main(["figure", "recipe.yaml", "--out", "fig", "--device", "cpu"])
    found = rows("fig/differences.csv")
    assert float(found["energy", "mean"]["generated"]) == pytest.approx(-4.3366, abs=1e-4)
    assert float(found["energy", "mean"]["difference"]) < 1e-5
    assert float(found["g(r)", "RMSD"]["difference"]) < 0.02
    assert Path("fig/figure.png").read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr().out
    assert "crystal" in told
    assert max(map(len, told.partition("fig/")[0].splitlines())) <= 80
    with pytest.raises(SystemExit):
        main(["figure", "recipe.yaml", "--out", "fig"])
    assert "exists; use --overwrite" in capsys.readouterr().err


def test_a_sample_with_overlapping_atoms_counts_as_any_other(folder):
    made = read_structures("same.extxyz")
    made.positions[1] = made.positions[0] + torch.tensor([0.27, 0.0, 0.0], dtype=torch.float64)
    write_structures("same.extxyz", made, overwrite=True)
    main(["figure", "recipe.yaml", "--out", "fig", "--device", "cpu"])
    energies = rows("fig/differences.csv")["energy", "mean"]
    assert float(energies["generated"]) > float(energies["reference"]) + 1e-3


def test_sets_as_they_are_differ_by_their_thermal_energy(folder):
    write_structures("same.extxyz", shaken(6, seed=1, a=5.6), overwrite=True)
    main(["figure", "recipe.yaml", "--out", "fig", "--set", "relaxed=false"])
    found = rows("fig/differences.csv")
    known = relax_structures(read_structures("same.extxyz"), StillingerWeber(), max_steps=1, device="cpu").energy
    assert float(found["energy", "mean"]["difference"]) > 0.02
    assert float(found["energy", "mean"]["generated"]) * 8 > known.mean()


def test_a_missing_set_is_made_by_its_command(folder, capsys):
    text = Path("recipe.yaml").read_text()
    made = "made: {path: made, make: 'simulate si-melt --n 4 --out made --device nowhere'}"
    Path("recipe.yaml").write_text(text.replace("same: {path: same.extxyz}", made))
    with pytest.raises(SystemExit):
        main(["figure", "recipe.yaml", "--out", "fig"])
    told = capsys.readouterr().err
    assert "made is not there: amden simulate si-melt --n 4 --out made --device nowhere" in told
    assert "unknown device 'nowhere'" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("same.extxyz", "gone.extxyz"), "gone.extxyz: no such file, and the recipe does not say how it is made"),
        (("path: same.extxyz", "path: gone, make: train recipe.yaml"), "must begin with one of simulate, generate"),
        (("rows:", "at_most: 1\nrows:"), "`at_most` must be at least 4, got 1"),
        (("rows:", "quantities: [beauty]\nrows:"), "'beauty' is no quantity of these sets: expected one of g(r)"),
        (("generated:", "generate:"), "generate"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(folder, capsys, change, message):
    Path("recipe.yaml").write_text(Path("recipe.yaml").read_text().replace(*change))
    with pytest.raises(SystemExit) as stopped:
        main(["figure", "recipe.yaml", "--out", "fig", "--device", "cpu"])
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
    assert not Path("fig").exists()


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_are_sound(recipe):
    plan = load_config(Panels, recipe)
    for file in plan.files:
        assert f"--out {file.path}" in file.make
