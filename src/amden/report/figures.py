"""The figures of an analysis, styled for a paper."""

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from amden.analysis.beside import QUANTITIES, glass
from amden.analysis.compare import Analysis
from amden.analysis.experiment import measured
from amden.analysis.memorisation import Copies
from amden.analysis.noise import deviation_of_difference
from amden.analysis.observables import Curve, Observables
from amden.report.selection import shown_curves
from amden.report.tables import number

GENERATED: Final = "#0072B2"
REFERENCE: Final = "#9A9A9A"
NOISE: Final = "#E69F00"
MEASURED: Final = "#D55E00"
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
    "defects": "fraction of atoms with\nunusual coordination",
    "density": "density\n(g/cm³)",
    "largest void": "radius of the\nlargest void (Å)",
    "energy": "energy\n(eV/atom)",
    "relaxed energy": "energy, relaxed\n(eV/atom)",
}

_COLUMNS: Final = 4
"""Histograms side by side."""
_ACROSS: Final = 3
"""Curves side by side."""
_WIDTH: Final = 9.0
"""Inches."""


def figures(analysis: Analysis) -> dict[str, Figure]:
    """All figures by name: `analysis` (curves over numbers), `curves`, `numbers` and, where there is, `novelty` and
    `parity`.
    """
    found = {
        "analysis": figure(analysis),
        "curves": _drawn(lambda page: _curves(page, analysis), _WIDTH, _curves_height(analysis)),
        "numbers": _drawn(lambda page: _histograms(page, analysis), _WIDTH, _height(analysis)),
    }
    new = analysis.novelty
    if new is not None and (new.copies or new.repeats):
        found["novelty"] = _drawn(lambda page: _novelty(page, analysis), 7.2, 2.6)
    if analysis.parities:
        rows = _n_rows(len(analysis.parities), 3)
        found["parity"] = _drawn(lambda page: _parities(page, analysis), 7.2, 2.8 * rows)
    return found


def figure(analysis: Analysis) -> Figure:
    """All curves over their differences from the reference, and histograms of what is a number a structure.

    The band in the panels of differences is what noise explains: two standard deviations of the difference between
    the means of two such sets made the same way.
    """
    heights = _curves_height(analysis), _height(analysis)
    with mpl.rc_context(STYLE):
        page = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
        top, bottom = np.array(page.subfigures(2, 1, height_ratios=heights), dtype=object)
        _curves(top, analysis)
        _histograms(bottom, analysis)
        return page


def _drawn(draw: Callable[[Figure], None], width: float, height: float) -> Figure:
    with mpl.rc_context(STYLE):
        page = Figure(figsize=(width, height), layout="constrained")
        draw(page)
        return page


def _n_rows(panels: int, columns: int) -> int:
    return -(-panels // columns)


def _curves_height(analysis: Analysis) -> float:
    row = 2.0 if analysis.reference is None else 2.7
    return 0.3 + row * _n_rows(len(shown_curves(analysis)), _ACROSS)


def _height(analysis: Analysis) -> float:
    return 0.3 + 2.2 * _n_rows(len(_numbers(analysis)), _COLUMNS)


def _curves(page: Figure | SubFigure, analysis: Analysis) -> None:
    """Each curve that is shown, and under it how it differs from the reference; side by side."""
    curves, known = analysis.generated.curves, None if analysis.reference is None else analysis.reference.curves
    ours = {name: curves[name] for name in shown_curves(analysis)}
    sizes = [{len(each[name].sample) for name in ours if name in each} for each in (curves, known or curves)]
    alike = all(len(each) == 1 for each in sizes)  # or the one legend would name every size
    counted = lambda label, curve: f"{label} ({len(curve.sample)})" if alike else label  # noqa: E731
    heights = [3.0] if known is None else [3.0, 1.0]
    rows = _n_rows(len(ours), _ACROSS)
    grid = page.subplots(rows * len(heights), _ACROSS, squeeze=False, height_ratios=heights * rows)
    for axes in grid.flat:
        axes.set_visible(False)
    for panel, (name, curve) in enumerate(ours.items()):
        first, column = panel // _ACROSS * len(heights), panel % _ACROSS
        panels: list[Axes] = [grid[first + row, column] for row in range(len(heights))]
        for axes in panels:
            axes.set_visible(True)
        main, mean = panels[0], curve.sample.values.mean(axis=0)
        main.set_ylabel(f"{name}, density (1/°)" if curve.unit else name)
        if known is not None and name in known:
            theirs = known[name]
            reference = theirs.sample.values.mean(axis=0)
            main.plot(theirs.x, reference, color=REFERENCE, lw=3.0, label=counted("reference", theirs))
            main.set_title(_verdict(analysis, name, "RMSD"), fontsize=7, loc="left")
            _difference(panels[1], *difference(curve, theirs))
        label = "structures" if known is None else "generated"
        main.plot(curve.x, mean, color=GENERATED, lw=1.2, label=counted(label, curve))
        main.set_ylim(bottom=min(0.0, float(mean.min())))
        panels[-1].set_xlabel(curve.axis)
        for axes in panels:
            axes.set_xlim(30.0 if curve.unit else 0.0, float(curve.x[-1]) + 0.5 * float(curve.x[1] - curve.x[0]))
        if len(panels) > 1:
            main.tick_params(labelbottom=False)
    _legend(page, grid.flat)


def difference(ours: Curve, theirs: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, the difference of the means, and twice its standard deviation by chance, where both curves are known."""
    _, a, b = np.intersect1d(ours.x.round(6), theirs.x.round(6), return_indices=True)
    means = ours.sample.values.mean(axis=0)[a], theirs.sample.values.mean(axis=0)[b]
    return ours.x[a], means[0] - means[1], 2.0 * deviation_of_difference(theirs.sample, ours.sample)[b]


def _difference(axes: Axes, x: np.ndarray, found: np.ndarray, noise: np.ndarray) -> None:
    label = "noise floor (±2σ)" if np.isfinite(noise).any() else None
    axes.fill_between(x, -noise, noise, color=NOISE, alpha=0.45, lw=0.0, label=label)
    axes.axhline(0.0, color=REFERENCE, lw=0.8)
    axes.plot(x, found, color=GENERATED, lw=1.0)
    axes.set_ylabel("difference")


def _legend(page: Figure | SubFigure, panels: Iterable[Axes]) -> None:
    """One for all panels, above them: what several name alike is told once."""
    told = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            told.setdefault(label, handle)
    page.legend(told.values(), told.keys(), loc="outside upper center", ncols=max(1, len(told)), handlelength=1.6)


def _numbers(analysis: Analysis) -> list[str]:
    """Quantities that have a panel: neighbours by bars, the others by histograms."""
    return [*analysis.generated.partial_coordinations, *_histogrammed(analysis)]


def _histogrammed(analysis: Analysis) -> list[str]:
    scalars = analysis.generated.scalars
    return [name for name in scalars if name != "coordination" and not name.endswith(" neighbours")]


def _histograms(page: Figure | SubFigure, analysis: Analysis) -> None:
    names = _numbers(analysis)
    columns = min(_COLUMNS, len(names))
    grid = page.subplots(_n_rows(len(names), columns), columns, squeeze=False)
    panels = list(grid.flat)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    elements = list(analysis.generated.partial_coordinations)
    for axes, element in zip(panels, elements, strict=False):
        _coordination(axes, analysis, element)
    panels[0].set_ylabel("fraction of atoms")
    for axes, name in zip(panels[len(elements) :], _histogrammed(analysis), strict=False):
        sets = [(o.scalars[name][1].values, *about) for o, *about in _sets(analysis) if name in o.scalars]
        unit = analysis.generated.scalars[name][0]
        axes.set_xlabel(_LABELS.get(name, f"{name}\n({unit})" if unit else name))
        axes.set_title(_verdict(analysis, name, "mean"), fontsize=7, loc="left")
        _histogram(axes, [(values, colour) for values, colour, _ in sets], tuple(label for *_, label in sets))
        _mark_measured(axes, analysis, name)
    panels[len(elements)].set_ylabel("fraction of structures")
    _legend(page, panels)


def _mark_measured(axes: Axes, analysis: Analysis, name: str) -> None:
    """A line where experiment is, if it has the glass and the quantity, and the value in the name of the axis."""
    formula = glass(analysis.generated)
    found = measured(formula, QUANTITIES[name]) if formula and name in QUANTITIES else ()
    for m in found:
        axes.axvline(m.value, color=MEASURED, lw=1.2, ls=":", label="measured (glass, room temperature)")
    if found:
        axes.set_xlabel(f"{axes.get_xlabel()}\nmeasured: {', '.join(f'{m.value:g}' for m in found)}")


def _histogram(axes: Axes, sets: list[tuple[np.ndarray, str]], labels: tuple[str, ...] = ()) -> None:
    """Fractions of the structures of each set, in bins that are the same for all."""
    together = np.concatenate([values for values, _ in sets])
    low, high = (float(f(together)) if len(together) else 0.0 for f in (np.min, np.max))
    least = 1e-3 * max(abs(low), abs(high), 1e-3)  # all the same but for rounding: one bar
    margin = max(0.0, 0.5 * (least - (high - low)))
    edges = np.linspace(low - margin, high + margin, int(np.clip(2.0 * np.sqrt(len(together)), 8, 30)) + 1)
    for i, (values, colour) in enumerate(sets):
        weights = np.full(len(values), 1.0 / max(len(values), 1))
        axes.hist(
            values, edges.tolist(), weights=weights, color=colour, alpha=0.65, label=labels[i] if labels else None
        )
    if margin > 0.0:
        axes.set_xticks([0.5 * (low + high)], [number(0.5 * (low + high))])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))


def _coordination(axes: Axes, analysis: Analysis, element: str) -> None:
    sets = [(o.partial_coordinations.get(element), colour) for o, colour, _ in _sets(analysis)]
    width = 0.8 / len(sets)
    for i, (found, colour) in enumerate(sets):
        if found is not None:
            shown = np.flatnonzero(found.distribution > 1e-3)
            axes.bar(shown + (i - 0.5 * (len(sets) - 1)) * width, found.distribution[shown], width, color=colour)
    cutoff = analysis.settings.bond_cutoff
    lengths = set(cutoff.values()) if isinstance(cutoff, Mapping) else {cutoff}
    within = f"\nwithin {lengths.pop():g} Å" if len(lengths) == 1 and cutoff is not None else ""
    alone = len(analysis.generated.partial_coordinations) == 1
    axes.set_xlabel(f"neighbours{within}" if alone else f"neighbours of {element}{within}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    name = "coordination" if alone else f"{element} neighbours"
    axes.set_title(_verdict(analysis, name, "mean"), fontsize=7, loc="left")


def _novelty(page: Figure | SubFigure, analysis: Analysis) -> None:
    """How close the closest structure is, beside what is usual."""
    new = analysis.novelty
    if new is None:
        return
    known = [("training set", new.copies), ("rest of the set", new.repeats)]
    found: list[tuple[str, Copies]] = [(name, copies) for name, copies in known if copies is not None]
    for axes, (name, copies) in zip(page.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        labels = f"no copies ({len(copies.unseen)})", f"generated ({len(copies.closest)})"
        _histogram(axes, [(copies.unseen.novelty, REFERENCE), (copies.closest.novelty, GENERATED)], labels)
        if np.isfinite(copies.limit):
            axes.axvline(copies.limit, color=NOISE, lw=1.2, ls="--", label="near copies below")
        axes.set_xlabel(f"distance to the closest of the {name}\n/ typical distance")
        axes.set_title(f"near copies: {copies.verdict}", fontsize=8, loc="left")
        axes.legend(fontsize=7)
        axes.set_ylabel("fraction of structures")


def _parities(page: Figure | SubFigure, analysis: Analysis) -> None:
    """Properties over their targets."""
    columns = min(3, len(analysis.parities))
    panels = list(page.subplots(_n_rows(len(analysis.parities), columns), columns, squeeze=False).flat)
    for axes in panels[len(analysis.parities) :]:
        axes.set_visible(False)
    for axes, parity in zip(panels, analysis.parities, strict=False):
        others = np.full_like(parity.value, np.nan) if parity.requenched is None else parity.requenched
        ends = [float(f(np.concatenate([parity.target, parity.value, others]))) for f in (np.nanmin, np.nanmax)]
        axes.plot(ends, ends, color=REFERENCE, lw=1.0)
        if parity.requenched is not None:
            axes.plot(parity.target, others, "^", color=MEASURED, ms=3.5, alpha=0.6, mew=0.0, label="requenched")
        axes.plot(parity.target, parity.value, "o", color=GENERATED, ms=3.0, alpha=0.6, mew=0.0, label="generated")
        unit = f" ({parity.unit})" if parity.unit else ""
        axes.set(xlabel=f"target {parity.name}{unit}", ylabel=f"{parity.name}{unit}", aspect="equal")
        errors = parity.mean_absolute_error, parity.root_mean_square_error, parity.r_squared
        words = (f"{name} {number(value, 3)}" for name, value in zip(("MAE", "RMSE", "R²"), errors, strict=True))
        title = ", ".join(words)
        if parity.requenched is not None:
            title += f"\nrequenched: MAE {number(parity.requenched_error, 3)}"
            axes.legend(fontsize=7)
        axes.set_title(title, fontsize=7, loc="left")


def _sets(analysis: Analysis) -> list[tuple[Observables, str, str]]:
    """Each set with its colour and name."""
    if analysis.reference is None:
        return [(analysis.generated, GENERATED, "structures")]
    return [(analysis.reference, REFERENCE, "reference"), (analysis.generated, GENERATED, "generated")]


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


def rendered(page: Figure, form: str) -> bytes:
    """The file of a figure as png, pdf or svg: the same figure gives the same bytes, but for rounding in a pdf."""
    metadata = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
    }
    content = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": "amden", "figure.constrained_layout.use": False}):
        if (engine := page.get_layout_engine()) is not None:  # places are found once, not for each file
            engine.execute(page)
            page.set_layout_engine(None)
        page.savefig(content, format=form, dpi=200, metadata=metadata[form], transparent=form == "svg")
    return content.getvalue()
