"""The figure of an analysis, styled for a paper."""

import io
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from amden.analysis.compare import Analysis
from amden.analysis.noise import deviation_of_difference
from amden.analysis.observables import Observables
from amden.report.tables import number

GENERATED: Final = "#0072B2"
REFERENCE: Final = "#9A9A9A"
NOISE: Final = "#E69F00"
"""Colours of Okabe and Ito (jfly.uni-koeln.de/color), told apart by colour-blind readers and in grey print."""

STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}

_LABELS: Final = {
    "density": "density\n(g/cm³)",
    "energy": "energy\n(eV/atom)",
    "relaxed energy": "energy, relaxed\n(eV/atom)",
}


def figure(analysis: Analysis) -> Figure:
    """g(r) and bond angles over their differences from the reference, and histograms of what is a number a structure.

    The band in the panels of differences is what noise explains: two standard deviations of the difference between
    the means of two such sets made the same way.
    """
    with mpl.rc_context(STYLE):
        page = Figure(figsize=(7.2, 6.2), layout="constrained")
        top, bottom = np.array(page.subfigures(2, 1, height_ratios=[1.6, 1.0]), dtype=object)
        _curves(top, analysis)
        _histograms(bottom, analysis)
        return page


def _curves(page: SubFigure, analysis: Analysis) -> None:
    ours, known = analysis.generated, analysis.reference
    rows = 1 if known is None else 2
    grid = page.subplots(rows, 2, sharex="col", squeeze=False, height_ratios=[3.0, 1.0][:rows])
    x = {"g(r)": ours.rdf.r, "bond angles": ours.angles.angle}
    y_label = {"g(r)": "g(r)", "bond angles": "probability density (1/°)"}
    for column, (name, (_, sample)) in enumerate(ours.curves.items()):
        main = grid[0, column]
        mean = sample.values.mean(axis=0)
        if known is not None:
            reference = known.curves[name][1]
            main.plot(
                x[name], reference.values.mean(axis=0), color=REFERENCE, lw=3.0, label=_counted("reference", known)
            )
            noise = 2.0 * deviation_of_difference(reference, sample)
            _difference(grid[1, column], x[name], mean - reference.values.mean(axis=0), noise)
            main.set_title(_verdict(analysis, name, "RMSD"), fontsize=8, loc="left")
        main.plot(
            x[name], mean, color=GENERATED, lw=1.2, label=_counted("structures" if known is None else "generated", ours)
        )
        main.set_ylabel(y_label[name])
        main.set_ylim(bottom=0.0)
    grid[0, 0].legend(loc="upper right")
    grid[-1, 0].set(xlabel="r (Å)", xlim=(0.0, float(ours.rdf.edges[-1])))
    grid[-1, 1].set(xlabel="bond angle (°)", xlim=(30.0, 180.0), xticks=range(30, 181, 30))


def _difference(axes: Axes, x: np.ndarray, difference: np.ndarray, noise: np.ndarray) -> None:
    axes.fill_between(x, -noise, noise, color=NOISE, alpha=0.45, lw=0.0, label="noise floor (±2σ)")
    axes.axhline(0.0, color=REFERENCE, lw=0.8)
    axes.plot(x, difference, color=GENERATED, lw=1.0)
    axes.set_ylabel("difference")
    if np.isfinite(noise).any():
        axes.legend(loc="lower right", handlelength=1.2, fontsize=7)


def _histograms(page: SubFigure, analysis: Analysis) -> None:
    names = [name for name in analysis.generated.scalars if name != "coordination"]
    panels = page.subplots(1, 1 + len(names), squeeze=False)[0]
    _coordination(panels[0], analysis)
    for axes, name in zip(panels[1:], names, strict=True):
        sets = [(o.scalars[name][1].values, colour) for o, colour in _sets(analysis)]
        together = np.concatenate([values for values, _ in sets])
        edges = np.histogram_bin_edges(together, bins=int(np.clip(2.0 * np.sqrt(len(together)), 8, 30)))
        for values, colour in sets:
            axes.hist(values, edges, weights=np.full(len(values), 1.0 / max(len(values), 1)), color=colour, alpha=0.65)
        axes.set_xlabel(_LABELS[name])
        axes.set_title(_verdict(analysis, name, "mean"), fontsize=8, loc="left")
        axes.locator_params(axis="x", nbins=4)
    panels[1].set_ylabel("fraction of structures")


def _coordination(axes: Axes, analysis: Analysis) -> None:
    sets = [(o.coordination.distribution, colour) for o, colour in _sets(analysis)]
    width = 0.8 / len(sets)
    for i, (fractions, colour) in enumerate(sets):
        shown = np.flatnonzero(fractions > 1e-3)
        axes.bar(shown + (i - 0.5 * (len(sets) - 1)) * width, fractions[shown], width, color=colour)
    axes.set(xlabel=f"neighbours\nwithin {analysis.settings.bond_cutoff:g} Å", ylabel="fraction of atoms")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(_verdict(analysis, "coordination", "mean"), fontsize=8, loc="left")


def _sets(analysis: Analysis) -> list[tuple[Observables, str]]:
    known = [] if analysis.reference is None else [(analysis.reference, REFERENCE)]
    return [*known, (analysis.generated, GENERATED)]


def _counted(name: str, observables: Observables) -> str:
    return f"{name} ({len(observables)})"


def _verdict(analysis: Analysis, quantity: str, measure: str) -> str:
    """Difference and verdict: on one line above a curve, on two above the narrower histograms."""
    for d in analysis.differences:
        if (d.quantity, d.measure) == (quantity, measure):
            return (
                f"RMSD {number(d.value, 3)}: {d.verdict}"
                if measure == "RMSD"
                else f"Δ {number(d.value, 3)}\n{d.verdict}"
            )
    return ""


def rendered(page: Figure, form: str, metadata: dict[str, None]) -> bytes:
    """The file of a figure: the same figure gives the same bytes."""
    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        page.savefig(content, format=form, dpi=200, metadata=metadata)
    return content.getvalue()
