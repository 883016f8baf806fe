"""The set of oxide glasses that comes with the package: `meg` was trained on most of it."""

from pathlib import Path

import pytest
import torch

from amden.compositions import counts_of, formal_charge
from amden.config import load_config
from amden.dataset import load_dataset
from amden.pretrained import load_model
from amden.properties import Tools, measured
from amden.recipe import Recipe, score_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def glasses():
    return load_dataset(ROOT / "examples" / "oxide-glasses")


def test_glasses_are_neutral_and_have_their_properties(glasses):
    assert len(glasses) == 3009
    assert {formal_charge(each) for each in counts_of(glasses)} == {0}
    again = measured(glasses, ["density", "fractions"], Tools(None, "cpu")).properties
    for name in ("density", "li_fraction", "o_fraction"):
        torch.testing.assert_close(again[name].float(), glasses.properties[name].float())


def test_one_of_them_has_the_modulus_that_is_told_of_it(glasses):
    stiff = glasses.select([int(glasses.properties["youngs_modulus"].argmax())])
    found = measured(stiff, ["moduli"], Tools("bmp-shrm", "cpu")).properties
    for name in ("youngs_modulus", "shear_modulus", "bulk_modulus"):
        assert float(found[name]) == pytest.approx(float(stiff.properties[name]), rel=0.05)


def test_the_shipped_model_is_one_of_these(glasses):
    recipe = load_config(Recipe, ROOT / "recipes" / "meg.yaml")
    trained = glasses.select(range(2077))
    own, shipped = score_config(recipe, trained), load_model("meg").denoiser.config
    assert (own.vocabulary, own.egnn, own.ghost_density) == (shipped.vocabulary, shipped.egnn, shipped.ghost_density)
    for name, scale in own.properties.items():
        assert shipped.properties[name].mean == pytest.approx(scale.mean, rel=0.05)
