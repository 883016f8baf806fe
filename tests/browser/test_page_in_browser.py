"""The page of an analysis in a real browser: it draws, it turns, it asks for nothing. Skipped without a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from amden.analysis.compare import analyze
from amden.analysis.observables import Settings
from amden.report import write
from amden.testing import random_structures

playwright = pytest.importorskip("playwright.sync_api")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    structures, reference = (random_structures([24] * 5, species=(8, 14), seed=s, spacing=2.2) for s in (1, 2))
    found = analyze(structures, reference, settings=Settings(r_max=5.0, halvings=10, resamples=10))
    write(found, folder, views={"generated": structures, "reference": reference})
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as started:
        if path is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("no Chromium is installed")
        running = started.chromium.launch(executable_path=path, args=["--no-sandbox", *SOFTWARE_WEBGL])
        yield running
        running.close()


class Opened:
    """The page, with all that it said and asked for."""

    def __init__(self, browser, report: Path, **options) -> None:
        self.asked, self.said = [], []
        context = browser.new_context(offline=True, **options)
        self.page = context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(report.as_uri())
        self.page.wait_for_selector("#view[data-shown] canvas")
        self.view = self.page.locator("#view")

    def still(self) -> bytes:
        """What the view shows once two pictures of it are the same."""
        before = self.view.screenshot()
        while (after := self.view.screenshot()) != before:
            before = after
        return after


@pytest.fixture
def opened(browser, report) -> Iterator[Opened]:
    found = Opened(browser, report, viewport={"width": 480, "height": 480})
    yield found
    found.page.context.close()


def test_it_draws_without_errors_and_asks_for_nothing(opened, report):
    opened.still()
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [report.as_uri()]
    widths = opened.page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(widths) >= 2
    assert all(widths)
    assert "differences are within noise" in opened.page.inner_text("header")


def test_the_structure_turns_when_dragged_and_grows_with_the_wheel(opened):
    before = opened.still()
    box = opened.view.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    opened.page.mouse.move(x, y)
    opened.page.mouse.down()
    opened.page.mouse.move(x + 90, y + 40, steps=4)
    opened.page.mouse.up()
    turned = opened.still()
    assert turned != before
    opened.page.mouse.wheel(0, -300)
    assert opened.still() != turned
    assert opened.said == []


def test_another_structure_is_chosen_by_its_button_and_turning_by_itself_is_off_until_asked_for(opened):
    first = opened.still()
    opened.page.get_by_role("button", name="reference 0").click()
    assert opened.view.get_attribute("data-shown") == "3"
    second = opened.still()
    assert second != first
    opened.page.get_by_label("turn slowly").check()
    opened.page.wait_for_timeout(200)
    opened.page.get_by_label("turn slowly").uncheck()
    assert opened.still() != second


def test_dark_and_narrow_screens(browser, report):
    dark = Opened(browser, report, color_scheme="dark", viewport={"width": 390, "height": 480})
    style = "getComputedStyle(document.body).backgroundColor"
    assert dark.page.evaluate(style) == "rgb(20, 23, 27)"
    assert dark.page.evaluate("document.documentElement.scrollWidth") <= 390  # wide tables scroll by themselves
    assert dark.said == []
    dark.page.context.close()
