"""The recipes that come with the package are valid, and those of energy models fit the score models they start from."""

from pathlib import Path

import pytest

from amden.cli import main
from amden.config import load_config
from amden.io import write_structures
from amden.recipe import Recipe
from amden.testing import random_structures

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_is_valid(path):
    recipe = load_config(Recipe, path)
    assert recipe.data == f"data/{path.stem.removesuffix('-energy')}"
    assert recipe.energy == path.stem.endswith("-energy")


@pytest.mark.parametrize("name", ["si-anneal", "si-quench"])
def test_energy_model_starts_from_the_score_model(name, tmp_path, capsys):
    score, energy = (load_config(Recipe, RECIPES / f"{name}{end}.yaml") for end in ("", "-energy"))
    assert (energy.egnn, energy.diffusion, energy.properties) == (score.egnn, score.diffusion, score.properties)
    write_structures(tmp_path / "mine.extxyz", random_structures([12] * 6, species=(14,), seed=2))
    main(["train", str(RECIPES / f"{name}-energy.yaml"), "--data", str(tmp_path / "mine.extxyz"), "--dry-run"])
    assert "energy: true" in capsys.readouterr().out
