"""Of the hundreds of curves of a glass of many elements the telling ones are shown, and all are written."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from amden.analysis.compare import Analysis, Settings, analyze
from amden.report import figures
from amden.report.selection import MOST_CURVES, left_out, shown_curves
from amden.report.tables import table
from amden.testing import random_structures

ELEMENTS = (3, 8, 13, 14, 15, 20)
TOTAL = ["g(r)", "S(q)", "S(q) X-ray"]
FAST = Settings(r_max=4.0, q_max=3.0, q_vectors=2, halvings=20, resamples=20)


@pytest.fixture(scope="module")
def many() -> Analysis:
    sets = (random_structures([60] * 6, species=ELEMENTS, seed=seed) for seed in (1, 2))
    return analyze(*sets, settings=FAST)


def test_few_curves_are_all_shown():
    few = analyze(random_structures([40], species=(8, 14)), settings=FAST)
    assert shown_curves(few) == list(few.generated.curves)
    assert left_out(few) == ""


def test_of_many_curves_those_furthest_off_are_shown(many):
    names, shown = list(many.generated.curves), shown_curves(many)
    assert len(shown) == MOST_CURVES < len(names)
    assert [name for name in names if name in shown] == shown, "in their order"
    assert {*TOTAL} <= {*shown}
    off = {d.quantity: np.nan_to_num(d.floors) for d in many.differences if d.measure == "RMSD"}
    hidden = {*names} - {*shown}
    assert max(off[name] for name in hidden) <= min(off[name] for name in {*shown} - {*TOTAL})
    assert f"{len(hidden)} more partial curves are in the CSV files; shown are those with the largest" in left_out(many)


def test_without_a_reference_the_commonest_elements_are_shown(many):
    alone = replace(many, reference=None, differences=())
    shown = shown_curves(alone)
    share = {name: values.mean() for name, values in alone.generated.fractions.items()}
    common = max(share, key=share.__getitem__)
    assert f"g(r) {common}-{common}" in shown
    assert left_out(alone).endswith("shown are those with most atoms")


def test_table_and_picture_have_the_shown_ones(many):
    console = Console(width=80, record=True, file=None)
    with console.capture() as captured:
        console.print(table(many))
    words = {" ".join(line.split()[:2]) for line in captured.get().splitlines()}
    two_words = {name for name in many.generated.curves if " " in name}
    assert words & two_words == two_words & {*shown_curves(many)} != set()
    assert "more partial curves are in the CSV files" in " ".join(captured.get().split())
    drawn = [axes.get_ylabel() for axes in figures(many)["curves"].axes if axes.get_visible()]
    assert len([label for label in drawn if label != "difference"]) == MOST_CURVES
