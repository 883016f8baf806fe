"""The table of an analysis, for a terminal."""

from math import isfinite
from typing import Final

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from amden.analysis.compare import Analysis
from amden.report.selection import left_out, shown_curves

ENOUGH: Final = 10
"""With fewer structures in a set, `within noise` says little."""
_SHORT: Final = {"Wasserstein": "W1"}


def table(analysis: Analysis) -> Group:
    """All quantities with their means and, if there is a reference, differences, noise floors and verdicts."""
    rows = _plain_table(analysis) if analysis.reference is None else _comparison_table(analysis)
    return Group(rows, Text(_caption(analysis), style="dim"))


def _plain_table(analysis: Analysis) -> Table:
    ours = analysis.generated
    page = _empty()
    page.add_column("quantity")
    page.add_column("mean", justify="right")
    page.add_column("spread", justify="right")
    page.add_row("peak of g(r) (Å)", number(ours.rdf.peak), "")
    page.add_row("bond angle (°)", number(ours.angles.mean), "")
    for name, (unit, sample) in ours.scalars.items():
        spread = sample.values.std(ddof=1) if len(sample) > 1 else np.nan
        mean = sample.values.mean() if len(sample) else np.nan
        page.add_row(f"{name} ({unit})" if unit else name, number(mean), number(spread))
    return page


def _comparison_table(analysis: Analysis) -> Table:
    """At most 80 columns wide: a quantity's second line has its unit."""
    page = _empty()
    page.add_column("quantity")
    page.add_column("how")
    for name in ("generated", "reference", "off by", "floor"):
        page.add_column(name, justify="right", no_wrap=True)
    page.add_column("verdict", min_width=16)
    previous, hidden = "", {*analysis.generated.curves} - {*shown_curves(analysis)}
    for d in analysis.differences:
        if d.quantity in hidden:
            continue
        name = d.quantity if d.quantity != previous else f"({d.unit})" if d.unit else ""
        means = number(d.generated), number(d.reference)
        differences = number(d.value, 3), number(d.floor.expected, 2)
        page.add_row(name, _SHORT.get(d.measure, d.measure), *means, *differences, d.verdict)
        previous = d.quantity
    return page


def _empty() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))


def _caption(analysis: Analysis) -> str:
    lines = [f"{len(analysis.generated)} structures"]
    if analysis.reference is not None:
        lines[0] += f" against {len(analysis.reference)} of the reference"
    lines += [line for line in (few(analysis), left_out(analysis)) if line] + findings(analysis)
    if analysis.reference is not None:
        lines += [
            "how: RMSD of mean curves, difference of means, W1 (Wasserstein distance)",
            "floor: difference by chance between two such sets made the same way, from",
            "  random halves of the reference; a verdict on such sets is `within noise`",
            "  19 times in 20",
        ]
    for name, observables in (("generated", analysis.generated), ("reference", analysis.reference)):
        if observables is not None and observables.unconverged:
            lines.append(f"{observables.unconverged} of the {name} did not relax and are left out")
    return "\n".join(lines)


def few(analysis: Analysis) -> str:
    """What is to be said where fewer than `ENOUGH` structures of a set are compared; empty else."""
    if analysis.reference is None or min(len(analysis.generated), len(analysis.reference)) >= ENOUGH:
        return ""
    counts = f"{len(analysis.generated)} and {len(analysis.reference)}"
    return f"only {counts} structures were compared: so few show none but large differences"


def findings(analysis: Analysis) -> list[str]:
    """What is said of copies and of properties that were asked for, a line each."""
    found = []
    if analysis.novelty is not None:
        known = (("near copies of the training set", analysis.novelty.copies), ("repeats", analysis.novelty.repeats))
        found += [f"{name}: {copies.verdict}" for name, copies in known if copies is not None]
    for p in analysis.parities:
        errors = ("MAE", p.mean_absolute_error), ("RMSE", p.root_mean_square_error), ("R²", p.r_squared)
        words = (f"{name} {number(value, 3)}" for name, value in errors)
        found.append(f"{p.name} against its target: {', '.join(words)} ({p.unit or 'no unit'}, {len(p)})")
        if p.requenched is not None:
            known = int(np.isfinite(p.requenched).sum())
            found.append(f"{p.name}, requenched, against its target: MAE {number(p.requenched_error, 3)} ({known})")
    return found


def number(value: float, digits: int = 4) -> str:
    """So many significant digits; a dash for what is not known.

    >>> number(0.0123456), number(0.0123456, 2), number(float("nan"))
    ('0.01235', '0.012', '–')
    """
    return f"{value:.{digits}g}" if isfinite(value) else "–"
