"""The figure and the tables of several glasses side by side."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.table import Table

from amden.analysis.compare import Difference
from amden.analysis.observables import Observables
from amden.io import check_output
from amden.panels import Measured
from amden.report.figures import GENERATED, REFERENCE, STYLE, rendered
from amden.report.tables import number
from amden.storage import replacing

COLOURS: Final = (GENERATED, "#D55E00", "#009E73", "#CC79A7")
"""Of the generated sets of a row, in their order (Okabe and Ito)."""

FIGURE: Final = "figure"
"""Name of the files without ending."""

_BINS: Final = 40
"""Of a histogram."""

_WORDS: Final = {"energy": "energy (eV/atom)", "bond angles": "bond angle (°)"}


def panels_figure(rows: Mapping[str, Measured], quantities: Sequence[str]) -> Figure:
    """A row of panels for every glass: the reference broad and grey, generated sets in colour.

    Above each panel stands by how much each set is off: RMSD of curves, difference of means of numbers in the unit of
    the axis, and that in units of the noise floor.
    """
    with mpl.rc_context(STYLE):
        page = Figure(figsize=(1.9 * len(quantities) + 0.6, 1.9 * len(rows) + 0.5), layout="constrained")
        grid = page.subplots(len(rows), len(quantities), squeeze=False, sharex="col")
        edges = {quantity: _edges(rows, quantity) for quantity in quantities}
        for axes_of_row, (name, row) in zip(grid, rows.items(), strict=True):
            for axes, quantity in zip(axes_of_row, quantities, strict=True):
                _panel(axes, row, quantity, edges[quantity])
            axes_of_row[0].set_ylabel(f"{name}\n{quantities[0]}")
        for axes, quantity in zip(grid[-1], quantities, strict=True):
            axes.set_xlabel(_axis(next(iter(rows.values())).reference, quantity))
        handles: dict[str, Any] = {}
        for axes in grid.flat:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        page.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=len(handles))
        return page


def _axis(observables: Observables, quantity: str) -> str:
    curve = observables.curves.get(quantity)
    return _WORDS.get(quantity, quantity) if curve is None else curve.axis


def _edges(rows: Mapping[str, Measured], quantity: str) -> list[float]:
    """Bins that are the same for all histograms of a quantity; none for a curve."""
    sets = [o for row in rows.values() for o in (row.reference, *row.generated.values())]
    if any(quantity in o.curves for o in sets):
        return []
    values = [o.scalars[quantity][1].values for o in sets if quantity in o.scalars]
    if not values:
        raise ValueError(f"{quantity!r} is no quantity of these sets: expected one of {_known(sets[0])}")
    together = np.concatenate(values)
    return np.linspace(together.min(), together.max() + 1e-9, _BINS + 1).tolist()


def _panel(axes: Axes, row: Measured, quantity: str, edges: list[float]) -> None:
    sets = {"reference": row.reference, **row.generated}
    colours = (REFERENCE, *(COLOURS[i % len(COLOURS)] for i in range(len(row.generated))))
    for i, ((label, o), colour) in enumerate(zip(sets.items(), colours, strict=True)):
        if quantity in o.curves:
            curve = o.curves[quantity]
            mean = curve.sample.values.mean(axis=0)
            axes.plot(curve.x, mean, color=colour, lw=1.1 if i else 2.8, label=label)
            axes.set_xlim(30.0 if curve.unit else 0.0)
        elif quantity in o.scalars:
            values = o.scalars[quantity][1].values
            weights = np.full(len(values), 1.0 / max(len(values), 1))
            kind = "step" if i else "stepfilled"
            axes.hist(values, edges, weights=weights, histtype=kind, color=colour, lw=1.2, label=label)
            axes.locator_params(axis="x", nbins=4)
    if not edges:
        axes.set_ylim(bottom=0.0)  # after all curves: it ends the search for a top
    words = [f"Δ {number(found.value, 2)}: {found.floors:.1f} floors" for found in _differences(row, quantity)]
    axes.set_title("\n".join(words), fontsize=6, loc="right")


def _known(observables: Observables) -> str:
    return ", ".join([*observables.curves, *observables.scalars])


def _differences(row: Measured, quantity: str, label: str | None = None) -> Iterator[Difference]:
    """That of each generated set, or of one, by RMSD or by means."""
    for name, differences in row.differences.items():
        if label in (None, name):
            yield from (d for d in differences if d.quantity == quantity and d.measure in ("RMSD", "mean"))


def panels_table(rows: Mapping[str, Measured], quantities: Sequence[str]) -> Table:
    """The differences that stand in the panels, for the terminal."""
    shown = Table("row", "set", "quantity", "generated", "reference", "off by", "floors", box=SIMPLE, pad_edge=False)
    for name, row in rows.items():
        for label in row.generated:
            for quantity in quantities:
                for d in _differences(row, quantity, label):
                    means = (f"{value:.4f}" if np.isfinite(value) else "" for value in (d.generated, d.reference))
                    shown.add_row(name, label, d.quantity, *means, number(d.value, 2), f"{d.floors:.1f}")
    return shown


def _all(rows: Mapping[str, Measured]) -> Iterator[tuple[str, str, Difference]]:
    for name, row in rows.items():
        for label, differences in row.differences.items():
            yield from ((name, label, d) for d in differences)


def write_panels(
    rows: Mapping[str, Measured], quantities: Sequence[str], folder: Path, *, overwrite: bool = False
) -> list[Path]:
    """`figure.png`, `figure.pdf`, `differences.csv` and `curves.csv` in a folder, each whole; returns what was written.

    Errors: `FileExistsError` for a file that exists, unless `overwrite`.
    """
    page = panels_figure(rows, quantities)
    contents = {f"{FIGURE}.{form}": rendered(page, form) for form in ("png", "pdf")}
    tables = {"differences.csv": list(_difference_rows(rows)), "curves.csv": list(_curve_rows(rows, quantities))}
    for name in (*contents, *tables):
        check_output(folder / name, overwrite=overwrite)
    for name, content in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    for name, lines in tables.items():
        with replacing(folder / name) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
    return [folder / name for name in (*contents, *tables)]


def _difference_rows(rows: Mapping[str, Measured]) -> Iterator[Sequence[Any]]:
    yield "row", "set", "quantity", "measure", "unit", "generated", "reference", "difference", "floor", "verdict"
    for name, label, d in _all(rows):
        numbers = (f"{v:.8g}" for v in (d.generated, d.reference, d.value, d.floor.expected))
        yield name, label, d.quantity, d.measure, d.unit, *numbers, d.verdict


def _curve_rows(rows: Mapping[str, Measured], quantities: Sequence[str]) -> Iterator[Sequence[Any]]:
    yield "row", "set", "quantity", "x", "mean"
    for name, row in rows.items():
        for label, o in {"reference": row.reference, **row.generated}.items():
            for quantity in quantities:
                if quantity in o.curves:
                    curve = o.curves[quantity]
                    for x, mean in zip(curve.x, curve.sample.values.mean(axis=0), strict=True):
                        yield name, label, quantity, f"{x:.6g}", f"{mean:.6g}"
