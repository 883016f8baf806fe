"""The table of an analysis, for a terminal."""

from math import isfinite

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from amden.analysis.compare import Analysis


def table(analysis: Analysis) -> Table:
    """All quantities with their means and, if there is a reference, differences, noise floors and verdicts."""
    return _plain_table(analysis) if analysis.reference is None else _comparison_table(analysis)


def _plain_table(analysis: Analysis) -> Table:
    ours = analysis.generated
    page = Table(caption=_caption(analysis), caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    page.add_column("quantity")
    page.add_column("mean", justify="right")
    page.add_column("spread", justify="right")
    page.add_row("peak of g(r) (Å)", number(ours.rdf.peak), "")
    page.add_row("bond angle (°)", number(ours.angles.mean), "")
    for name, (unit, sample) in ours.scalars.items():
        spread = sample.values.std(ddof=1) if len(sample) > 1 else np.nan
        mean = sample.values.mean() if len(sample) else np.nan
        page.add_row(_named(name, unit), number(mean), number(spread))
    return page


def _comparison_table(analysis: Analysis) -> Table:
    page = Table(caption=_caption(analysis), caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    page.add_column("quantity")
    page.add_column("measure")
    for name in ("generated", "reference", "difference", "floor", "halves"):
        page.add_column(name, justify="right", no_wrap=True)
    page.add_column("verdict")
    for d in analysis.differences:
        means = number(d.generated), number(d.reference)
        differences = number(d.value, 3), number(d.floor.expected, 2), number(d.floor.halves, 2)
        page.add_row(_named(d.quantity, d.unit), d.measure, *means, *differences, d.verdict)
    return page


def _named(quantity: str, unit: str) -> str:
    return f"{quantity} ({unit})" if unit else quantity


def _caption(analysis: Analysis) -> str:
    lines = [f"{len(analysis.generated)} structures"]
    if analysis.reference is not None:
        lines[0] += f" against {len(analysis.reference)} of the reference"
        lines.append("floor: the difference that chance makes between two such sets made the same way,")
        lines.append("       from that between random halves of the reference (halves);")
        lines.append("       one verdict in twenty on sets made the same way is not `within noise`")
    for name, observables in (("generated", analysis.generated), ("reference", analysis.reference)):
        if observables is not None and observables.unconverged:
            lines.append(f"{observables.unconverged} of the {name} did not relax and are left out of that energy")
    return "\n".join(lines)


def number(value: float, digits: int = 4) -> str:
    """So many significant digits; a dash for what is not known.

    >>> number(0.0123456), number(0.0123456, 2), number(float("nan"))
    ('0.01235', '0.012', '–')
    """
    return f"{value:.{digits}g}" if isfinite(value) else "–"
