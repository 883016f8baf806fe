from dataclasses import replace

import pytest
import torch

from amden.diffusion.composition import Formula, Neutral
from amden.diffusion.vocabulary import Vocabulary
from amden.elements import atomic_number
from amden.model import denoiser_of, load_model, save_model
from amden.nn.embedding import PropertyScale
from amden.recipe import property_scale
from amden.request import Guidance, Request
from amden.structure import Structures
from amden.targets import box_density, outcome, read_composition, read_request, read_targets
from amden.testing import random_sample
from amden.units import converted

SHEAR = PropertyScale(25.0, 3.0, None, tuple(torch.linspace(15.0, 40.0, 101).tolist()), {"density": 0.9})
DENSITY = PropertyScale(2.3, 0.1, None, tuple(torch.linspace(1.8, 2.8, 101).tolist()), {"shear_modulus": 0.9})
KNOWN = {
    "shear_modulus": SHEAR,
    "density": DENSITY,
    "hardness": PropertyScale(5.0, 1.0, quantiles=(1.0, 9.0)),
    "spectrum": PropertyScale(0.0, 1.0, size=4),
}


@pytest.mark.parametrize(
    "text", ["shear_modulus=27 GPa", "shear_modulus = 27000MPa", "shear_modulus=27", "shear_modulus=2.7e1"]
)
def test_units_are_understood(text):
    assert read_targets([text], KNOWN).values == {"shear_modulus": pytest.approx(27.0)}


def test_several_targets_and_no_note_for_ordinary_ones():
    read = read_targets(["shear_modulus=27 GPa", "density=2380 kg/m³", "hardness=5"], KNOWN)
    assert read.values == {"shear_modulus": 27.0, "density": pytest.approx(2.38), "hardness": 5.0}
    assert read.notes == ()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["shear_modulus"], "must look like 'shear_modulus=36 GPa', got 'shear_modulus'"),
        (["shear=30"], r"'shear' \(did you mean 'shear_modulus'\?\); it knows: shear_modulus \(15 to 40 GPa\)"),
        (["shear_modulus=much"], "`--target shear_modulus` needs a number, with or without a unit, got 'much'"),
        (["shear_modulus=30 K"], "unit 'K' cannot be turned into GPa: expected one of GPa, MPa"),
        (["hardness=5 GPa"], "the unit of 'hardness' is not known to amden"),
        (["spectrum=5"], "'spectrum' is a vector of 4 numbers"),
        (["shear_modulus=30", "shear_modulus=31"], "comes twice: 30 and 31"),
        (["shear_modulus=36 MPa"], "is outside the training data, 15 to 40 GPa; `--extrapolate`"),
        (["shear_modulus=32", "density=1.9"], "goes with density = 2.51 ± 0.044, not 1.9; `--extra"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_the_range(texts, message):
    with pytest.raises(ValueError, match=message):
        read_targets(texts, KNOWN)


def test_extrapolation_is_allowed_when_asked_for_and_rare_values_are_noted():
    read = read_targets(["shear_modulus=45 GPa", "density=1.9"], KNOWN, extrapolate=True)
    assert read.values["shear_modulus"] == 45.0
    assert "outside the training data" in read.notes[0]
    assert any("at odds" in note for note in read.notes)
    assert "nine in ten" in read_targets(["shear_modulus=39"], KNOWN).notes[0]


def test_units_of_one_quantity_only():
    assert converted(1.0, "nm", "Å") == 10.0
    with pytest.raises(ValueError, match="unit 'furlong' is unknown"):
        converted(1.0, "m", "furlong")


def test_scales_come_from_the_known_values():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, generator=g, dtype=torch.float64)
    data = {"x": x, "y": -0.8 * x + 0.6 * torch.randn(500, generator=g), "curve": torch.arange(6.0).reshape(2, 3)}
    data["x"][7] = torch.nan
    scale = property_scale(data, "x", ["y"])
    known = data["x"][~data["x"].isnan()]
    assert (scale.mean, scale.std) == (pytest.approx(float(known.mean())), pytest.approx(float(known.std())))
    assert (scale.quantiles[0], scale.quantiles[50]) == (float(known.min()), pytest.approx(float(known.quantile(0.5))))
    assert scale.correlation["y"] == pytest.approx(-0.8, abs=0.05)
    assert property_scale(data, "curve").size == 3
    with pytest.raises(ValueError, match="property 'z' is known of less than two structures"):
        property_scale({"z": torch.tensor([1.0, torch.nan])}, "z")


def test_compositions():
    silica, metals = Vocabulary((8, 14)), Vocabulary((14, 26))
    assert read_composition("SiO2", silica) == Formula({14: 1, 8: 2}) == read_composition("Si:1 O:2", silica)
    assert read_composition(None, silica) == Neutral({8: -2, 14: 4}) == read_composition("neutral", silica)
    assert read_composition("free", silica) is None
    assert read_composition(None, metals) is None
    with pytest.raises(ValueError, match="have no formal charges of both signs"):
        read_composition("neutral", metals)
    with pytest.raises(ValueError, match="'O:half' is no term of a composition"):
        read_composition("Si:1 O:half", silica)
    with pytest.raises(ValueError, match="'Si' comes twice in the composition 'Si:1 Si:2'"):
        read_composition("Si:1 Si:2", silica)
    for text in ("Si02", "Si02:60 Li2O:40"):
        with pytest.raises(ValueError, match="begins with zero: 'SiO2', with the letter O"):
            read_composition(text, silica)
    with pytest.raises(ValueError, match="must be a formula such as SiO2"):
        read_composition("glass!", silica)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("SiO2:60 Li2O:40", {"Si": 3, "O": 8, "Li": 4}),
        ("SiO2:0.5, Li2O:0.25", {"Si": 2, "O": 5, "Li": 2}),
        ("SiO2:60%", {"Si": 1, "O": 2}),
        ("Si=2 O=4", {"Si": 1, "O": 2}),
        ("Al2(SiO3)3", {"Al": 2, "Si": 3, "O": 9}),
    ],
)
def test_compositions_in_the_language_of_simulate(text, parts):
    found = read_composition(text, Vocabulary((3, 8, 13, 14)))
    assert found == Formula({atomic_number(name): n for name, n in parts.items()})


@pytest.mark.parametrize(
    ("species", "text", "notes"),
    [
        ((8, 14), "SiO2", []),
        ((8, 14), None, []),
        ((8, 14), "Si2O3", ["Si2O3 is not neutral: its formal charges sum to +2 e"]),
        ((3, 8, 14), "SiO2", ["SiO2 leaves out Li, which the model knows"]),
        (
            (8, 14),
            "Si",
            ["Si leaves out O, which the model knows", "Si is not neutral: its formal charges sum to +4 e"],
        ),
        ((14,), "Si", []),
        ((14, 32), "SiGe", []),
        ((14,), "SiO2", []),
    ],
)
def test_an_unusual_composition_is_noted(tiny_model, species, text, notes):
    config = replace(tiny_model.denoiser.config, vocabulary=Vocabulary(species))
    model = replace(tiny_model, denoiser=denoiser_of(config, tiny_model.diffusion))
    assert list(read_request(model, composition=text)[1]) == notes


def made_of(*species: int, **properties: float) -> Structures:
    n = len(species)
    told = {name: torch.tensor([value], dtype=torch.float64) for name, value in properties.items()}
    cell = 3.0 * torch.eye(3, dtype=torch.float64)[None]
    return Structures(torch.rand(n, 3, dtype=torch.float64), torch.tensor(species), cell, torch.tensor([n]), told)


def test_what_became_of_a_request_is_told_with_units_and_what_is_not_measured():
    asked = Request({"shear_modulus": 28.0, "density": 2.2, "li_fraction": 0.1, "beauty": 1.0})
    told = list(outcome(made_of(14, 8, 8), asked))
    assert told[0].startswith("asked for shear_modulus = 28 GPa, density = 2.2 g/cm³, li_fraction = 0.1, beauty = 1; ")
    assert told[1:] == [
        "shear_modulus: not measured; `amden properties FILE --moduli --out OTHER` measures it",
        "li_fraction: not measured; `amden properties FILE --fractions --out OTHER` measures it",
        "beauty: not measured by amden",
    ]
    assert len(list(outcome(made_of(14, 8, 8, shear_modulus=27.0), Request({"shear_modulus": 28.0})))) == 1


def test_charges_are_told_as_balanced_where_something_was():
    assert list(outcome(made_of(14, 8), Request())) == []
    assert list(outcome(made_of(14, 8, 8, charge_error=0.0), Request())) == [
        "charge error: 0.0000 e an atom, 1 of 1 neutral"
    ]
    silica = Request(composition=Formula({14: 1, 8: 2}))
    assert list(outcome(made_of(14, 8, 8, charge_error=0.5, changed_atoms=1.0), silica)) == [
        "charge error before balancing: 0.5000 e an atom, 0 of 1 neutral",
        "after: 1 of 1 exactly neutral",
        "elements changed to be SiO2: 1 atoms a structure, at most 1",
    ]


def test_errors_name_the_option():
    with pytest.raises(ValueError, match="`--tolerance hardness` needs a number, with or without a unit, got 'abc'"):
        read_targets(["hardness=abc"], KNOWN, option="--tolerance")


def test_requests_say_what_does_not_go_together(tiny_model):
    with pytest.raises(ValueError, match="guidance strengthens targets"):
        read_request(tiny_model, guidance=1.0)
    with pytest.raises(ValueError, match="need a composition to keep to"):
        read_request(tiny_model, restarts=1)
    with pytest.raises(ValueError, match="guidance by a model needs that model"):
        Guidance(kind="model")
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        Guidance(weight=-1.0)
    with pytest.raises(ValueError, match="does not know the property 'x'; it knows: none"):
        Request({"x": 1.0}).check(tiny_model, torch.tensor([4]), refine=None)
    assert box_density(Request({"density": 2.4}), None) == 2.4
    with pytest.raises(ValueError, match=r"`--density` 2\.2 contradicts `--target density=2\.4`"):
        box_density(Request({"density": 2.4}), 2.2)


def test_conditions_keep_their_place_in_a_file(tiny_model, tmp_path):
    """The header sorts names; the network must not depend on the order of a recipe."""
    scales = {"zeta": PropertyScale(0.0, 1.0), "alpha": PropertyScale(0.0, 1.0)}
    config = replace(tiny_model.denoiser.config, properties=scales)
    model = replace(tiny_model, denoiser=denoiser_of(config, tiny_model.diffusion))
    save_model(tmp_path / "m.safetensors", model)
    back = load_model(tmp_path / "m.safetensors")
    sample = random_sample([6], conditions=["alpha", "zeta"])
    t = torch.tensor([0.4], dtype=torch.float64)
    found = [m.denoiser.double()(sample, t).positions for m in (model, back)]
    torch.testing.assert_close(*found, rtol=0, atol=0)
