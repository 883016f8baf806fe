"""Which curves of an analysis are drawn and told: with many elements there are hundreds of partial ones."""

from typing import Final

import numpy as np

from amden.analysis.compare import Analysis
from amden.analysis.observables import Observables

MOST_CURVES: Final = 24
"""Curves of a picture that can still be read."""


def shown_curves(analysis: Analysis) -> list[str]:
    """All curves where they are few; else those of all atoms, and the partial ones that are furthest off in floors,
    or without a reference those of the elements with most atoms, as many as there is room for.
    """
    names = list(analysis.generated.curves)
    if len(names) <= MOST_CURVES:
        return names
    off = {d.quantity: d.floors for d in analysis.differences if d.measure == "RMSD"}
    amount = {name: _amount(name, analysis.generated) for name in names}
    partial = [name for name in names if amount[name] < 1.0]
    rank = sorted(partial, key=lambda name: (-np.nan_to_num(off.get(name, -1.0), nan=-1.0), -amount[name]))
    chosen = {*names} - {*rank[max(MOST_CURVES - len(names) + len(partial), 0) :]}
    return [name for name in names if name in chosen]


def left_out(analysis: Analysis) -> str:
    """How many curves are not shown, and where they are; empty if there are none."""
    n = len(analysis.generated.curves) - len(shown_curves(analysis))
    which = "most atoms" if analysis.reference is None else "the largest differences"
    return f"{n} more partial curves are in the CSV files; shown are those with {which}" if n else ""


def _amount(name: str, of: Observables) -> float:
    """Product of the mean fractions of the elements in a partial curve's name, such as `g(r) O-Si`; 1 for others."""
    elements = name.split()[-1].split("-")
    return float(np.prod([of.fractions[e].mean() for e in elements])) if {*elements} <= {*of.fractions} else 1.0
