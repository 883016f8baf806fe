"""What the page of an analysis says, and that it needs nothing else."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from amden.analysis.compare import Analysis, analyze
from amden.analysis.observables import Settings
from amden.report.about import About, Source, source, versions
from amden.report.page import page
from amden.report.tables import few
from amden.shard import save_shard
from amden.structure import Structures, concatenate
from amden.testing import random_structures

SETTINGS = Settings(r_max=5.0, halvings=20, resamples=20)
PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"/>'
PICTURES = {"curves": PICTURE, "numbers": PICTURE}
TRAINING, REFERENCE = (random_structures([20] * 12, seed=s, skew=0.0) for s in (1, 2))
GENERATED = concatenate([random_structures([20] * 4, seed=3, skew=0.0), TRAINING.select([5])])


class Elements(HTMLParser):
    """All elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def compared() -> Analysis:
    return analyze(GENERATED, REFERENCE, training=TRAINING, settings=SETTINGS)


@pytest.fixture(scope="module")
def html(compared) -> str:
    about = About(
        "amden analyze '<b>.extxyz'",
        (Source("generated", "<b>.extxyz", 5, "ab" * 32, {"seed": 42}),),
        {"amden": "0.1.0"},
    )
    return page(compared, about, PICTURES, views={"generated": GENERATED, "reference": REFERENCE, "training": TRAINING})


def shown_structures(html: str) -> list[dict]:
    found = re.search(r'<script type="application/json" id="structures">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_every_verdict_is_on_the_page(compared, html):
    text = " ".join(Elements(html).text.split())
    for d in compared.differences:
        assert d.quantity in text
        assert d.verdict in text
    settled = [d for d in compared.differences if np.isfinite(d.value)]
    assert f"{sum(d.within_noise for d in settled)} of {len(settled)} differences are within noise" in text
    assert "near copies of the training set: 1 of 5" in text
    assert "Si-Si 2.9 Å" in text
    assert "coordination" in text


def test_command_files_versions_and_seeds_are_told_and_escaped(html):
    text = Elements(html).text
    assert "amden analyze '<b>.extxyz'" in text
    assert '"seed": 42' in text
    assert "SHA-256 abababababababab" in text
    assert "amden 0.1.0" in text
    assert "<b>" not in html


def test_nothing_is_asked_of_the_network(html):
    elements = Elements(html)
    for tag, attributes in elements.found:
        for name in ("src", "href"):
            address = attributes.get(name)
            assert address is None or address.startswith("data:"), (tag, address)
    (policy,) = (a["content"] for a in elements.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_pictures_have_descriptions_with_their_numbers(compared, html):
    images = Elements(html).of("img")
    assert len(images) == 2
    for image in images:
        assert image["alt"] is not None
        assert compared.differences[0].verdict in image["alt"]


def test_the_first_structures_and_a_near_copy_with_its_original_can_be_turned(html):
    found = shown_structures(html)
    titles = ["generated 0", "generated 1", "generated 2", "near copy: generated 4", "of training 5", "reference 0"]
    assert [s["title"] for s in found] == titles
    copy, original = (np.array(found[i]["positions"]) for i in (3, 4))
    np.testing.assert_array_equal(copy, original)
    for s in found:
        assert s["elements"] == ["Si"] * 20
        positions, cell = np.array(s["positions"]), np.array(s["cell"])
        inside = positions @ np.linalg.inv(cell)
        assert (inside > -1e-3).all()
        assert (inside < 1.001).all()
        lengths = [np.linalg.norm(positions[i] - positions[j]) for i, j in s["bonds"]]
        assert max(lengths) < 2.9


def test_a_page_of_structures_alone(tmp_path):
    alone = analyze(GENERATED.select([0]), settings=SETTINGS)
    html = page(alone, About(), PICTURES)
    assert "Differences" not in html
    assert "3Dmol" not in html.partition("<main>")[2].partition("How this was made")[0]
    assert shown_structures(html) == []
    assert "density" in Elements(html).text


def test_the_same_analysis_gives_the_same_page(compared, html):
    assert page(compared, About(), PICTURES) == page(compared, About(), PICTURES)
    assert html.count("<figure") == 2


def test_structures_that_are_too_large_are_not_shown(compared):
    large = Structures(
        torch.zeros(4000, 3, dtype=torch.float64),
        torch.full((4000,), 14),
        50.0 * torch.eye(3, dtype=torch.float64)[None],
        torch.tensor([4000]),
    )
    html = page(compared, About(), PICTURES, views={"reference": large})
    assert shown_structures(html) == []


def test_sources_are_files_with_what_amden_wrote_into_them(tmp_path):
    (tmp_path / "data").mkdir()
    save_shard(tmp_path / "data" / "a.safetensors", GENERATED, provenance={"seed": 7})
    found = source("reference", tmp_path / "data", structures=5)
    assert (found.name, found.structures, found.provenance["seed"]) == ("data", 5, 7)
    (tmp_path / "x.extxyz").write_text("x")
    assert source("generated", tmp_path / "x.extxyz", structures=1).sha256.startswith("2d711642b726b044")
    assert {"amden", "numpy", "torch", "numba"} <= set(versions())


def test_few_structures_are_told_to_show_little(compared, html):
    told = "only 5 and 12 structures were compared: so few show none but large differences"
    header = html[html.index("<header>") : html.index("</header>")]
    assert told in header
    many = analyze(concatenate([GENERATED] * 2), REFERENCE, settings=SETTINGS)
    assert "were compared: so few" not in page(many, About("", (), {}), PICTURES)
    assert few(many) == few(analyze(GENERATED, settings=SETTINGS)) == ""


def test_the_seed_is_that_of_the_noise_floor_and_measured_values_of_glass(html):
    text = " ".join(Elements(html).text.split())
    assert "Seed of the noise floor 0;" in text
    assert "Measured values are of glass at room temperature" in text
