"""A property over what was asked for: the figure and its numbers (fig. 2, 3f and 4 of the paper)."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amden.report.figures import GENERATED, MEASURED, NOISE, REFERENCE, STYLE, rendered
from amden.storage import replacing

TABLE: Final = "sweep.csv"
"""A row a structure."""

CONVERGED: Final = "_vrh"
"""Ending of the moduli that are measured in the converged convention too."""

_BESIDE: Final = (("^", MEASURED), ("D", "#009E73"), ("v", "#CC79A7"))
"""Markers and colours of what is drawn beside."""


@dataclass(frozen=True)
class Sweep:
    """Values of a property of structures that were made for several targets."""

    name: str
    unit: str
    target: Float[np.ndarray, " structures"]
    value: Float[np.ndarray, " structures"]
    """NaN where it could not be measured."""
    usual: tuple[float, float]
    """5th and 95th percentile of the training set."""
    beside: Mapping[str, "Sweep"] = field(default_factory=dict)
    """The same property of other structures, by what they are called."""
    label: str = "generated"
    """What these are called beside them."""

    @property
    def known(self) -> Bool[np.ndarray, " structures"]:
        """Which structures could be measured."""
        return np.isfinite(self.value)

    @property
    def inside(self) -> Bool[np.ndarray, " structures"]:
        """Which targets lie in the usual range."""
        return (self.target >= self.usual[0]) & (self.target <= self.usual[1])

    def means(self) -> Iterator[tuple[float, float, float, int]]:
        """Each target with mean, standard deviation and number of the values."""
        for target in np.unique(self.target):
            values = self.value[(self.target == target) & self.known]
            spread = float(values.std(ddof=1)) if len(values) > 1 else np.nan
            yield float(target), float(values.mean()) if len(values) else np.nan, spread, len(values)

    def error(self, chosen: Bool[np.ndarray, " structures"]) -> float:
        """Mean absolute error of single structures."""
        chosen = chosen & self.known
        return float(np.abs(self.value - self.target)[chosen].mean()) if chosen.any() else np.nan

    def errors(self, name: str, *, unit: str = "") -> str:
        """The errors that are known, by this name: within the usual range of targets and beyond it."""
        both = {"within": self.error(self.inside), "beyond": self.error(~self.inside)}
        texts = [f"{error:.3g}{unit} {where}" for where, error in both.items() if np.isfinite(error)]
        return f"{name} {', '.join(texts)}" if texts else ""

    @property
    def pearson(self) -> float:
        """Correlation between targets and the means of their values; NaN for fewer than three targets."""
        rows = np.array([(target, mean) for target, mean, *_ in self.means() if np.isfinite(mean)])
        return float(np.corrcoef(rows.T)[0, 1]) if len(rows) > 2 else np.nan

    def lines(self) -> Iterator[str]:
        """What it amounts to, in words."""
        unit = f" {self.unit}" if self.unit else ""
        low, high = self.usual
        yield f"{self.name}: {int(self.known.sum())} of {len(self.value)} structures measured"
        if np.isfinite(error := self.error(self.inside)):
            yield (
                f"  targets within {low:.4g} to {high:.4g}{unit} (5th to 95th percentile of the training data): "
                f"mean absolute error {error:.3g}{unit}"
            )
        if np.isfinite(error := self.error(~self.inside)):
            yield f"  targets beyond: mean absolute error {error:.3g}{unit}"
        if np.isfinite(self.pearson):
            yield f"  Pearson r of the means over the targets {self.pearson:.3f}"
        for label, other in self.beside.items():
            errors = other.errors("mean absolute error", unit=unit)
            r = [f"Pearson r {other.pearson:.3f}"] if np.isfinite(other.pearson) else []
            counted = f"{int(other.known.sum())} of {len(other.value)} measured"
            yield f"  {label}: {'; '.join([', '.join(filter(None, (counted, errors))), *r])}"


@dataclass(frozen=True)
class Held:
    """A property that all structures were made to have at one value, while another was swept."""

    name: str
    unit: str
    target: float
    value: Float[np.ndarray, " structures"]
    """NaN where it could not be measured."""
    quantiles: Sequence[float] = ()
    """Evenly spaced ones of the training set, from its least to its largest value."""

    @property
    def known(self) -> Float[np.ndarray, " known"]:
        """The values that could be measured."""
        return self.value[np.isfinite(self.value)]

    def lines(self) -> Iterator[str]:
        """What came of it, in words."""
        known, unit = self.known, f" {self.unit}" if self.unit else ""
        if not len(known):
            yield f"{self.name} held at {self.target:g}{unit}: not measured"
            return
        off = known - self.target
        spread = f", standard deviation {known.std(ddof=1):.2g}" if len(known) > 1 else ""
        yield (
            f"{self.name} held at {self.target:g}{unit}: mean {known.mean():.4g}{spread} of {len(known)} structures; "
            f"mean error {off.mean():+.2g}, mean absolute error {np.abs(off).mean():.2g}{unit}"
        )


def sweep_figure(sweeps: Sequence[Sweep], held: Sequence[Held] = ()) -> Figure:
    """A panel for each: structures as dots, means with standard deviations, the line of parity, the usual range; the
    distribution of what is held beside that of the training data."""
    with mpl.rc_context(STYLE):
        shown = [each for each in held if len(each.known)]
        n = len(sweeps) + len(shown)
        page = Figure(figsize=(3.5 * n, 3.3), layout="constrained")
        panels = page.subplots(1, n, squeeze=False)[0]
        for axes, sweep in zip(panels, sweeps, strict=False):
            _draw_sweep(axes, sweep)
        for axes, each in zip(panels[len(sweeps) :], shown, strict=True):
            _draw_held(axes, each)
        return page


def _label(name: str, unit: str) -> str:
    """What an axis is called."""
    plain = name.removesuffix(CONVERGED)
    convention = " (Voigt-Reuss-Hill)" if plain != name else ""
    return f"{plain.replace('_', ' ')}{convention}{f', {unit}' if unit else ''}"


def _draw_sweep(axes: Axes, sweep: Sweep) -> None:
    name = _label(sweep.name, sweep.unit)
    axes.axvspan(*sweep.usual, color=NOISE, alpha=0.15, lw=0.0, label="training data, 5th to 95th percentile")
    every = np.concatenate([sweep.target, *(other.target for other in sweep.beside.values())])
    ends = [float(f(every)) for f in (np.min, np.max)]
    axes.plot(ends, ends, color=REFERENCE, lw=1.0, ls="--")
    titles = []
    kinds = [(sweep.label if sweep.beside else "", sweep, "s", GENERATED)]
    looks = (_BESIDE[i % len(_BESIDE)] for i in range(len(sweep.beside)))
    kinds += [(label, other, *look) for (label, other), look in zip(sweep.beside.items(), looks, strict=True)]
    for label, each, marker, colour in kinds:
        axes.plot(each.target, each.value, "o" if each is sweep else marker, color=colour, ms=2.5, alpha=0.35, mew=0.0)
        target, mean, spread, _ = np.array(list(each.means())).T
        spread = np.nan_to_num(spread)
        axes.errorbar(target, mean, spread, fmt=marker, color=colour, ms=4.0, lw=1.0, capsize=2.0, label=label or None)
        r = f"r {each.pearson:.3f}" if np.isfinite(each.pearson) else ""
        title = "; ".join(filter(None, (each.errors("MAE"), r)))
        titles.append(": ".join(filter(None, (label, title))))
    axes.set(xlabel=f"target {name}", ylabel=name)
    axes.set_title("\n".join(titles), fontsize=7, loc="left")
    axes.legend(fontsize=6, loc="upper left")


def _draw_held(axes: Axes, held: Held) -> None:
    known = held.known
    ends = [*known.tolist(), held.target, *held.quantiles]
    room = 0.02 * (max(ends) - min(ends)) or 1e-3
    edges = np.linspace(min(ends) - room, max(ends) + room, 31)
    if held.quantiles:
        below = np.interp(edges, held.quantiles, np.linspace(0.0, 1.0, len(held.quantiles)))
        axes.stairs(np.diff(below), edges, color=REFERENCE, lw=1.2, label="training data")
    weights = np.full(len(known), 1.0 / len(known))
    axes.hist(known, edges.tolist(), weights=weights, color=GENERATED, alpha=0.6, label=f"generated ({len(known)})")
    axes.axvline(held.target, color=MEASURED, lw=1.2, ls="--", label=f"target {held.target:g}")
    axes.set(xlabel=_label(held.name, held.unit), ylabel="fraction of structures")
    axes.set_title(f"MAE {np.abs(known - held.target).mean():.2g}", fontsize=7, loc="left")
    axes.legend(fontsize=6)


def write_sweep(
    sweeps: Sequence[Sweep],
    folder: Path,
    columns: Mapping[str, Num[np.ndarray, " structures"] | Sequence[str]],
    *,
    held: Sequence[Held] = (),
) -> list[Path]:
    """`sweep.png`, `sweep.pdf`, `sweep.csv` (a row a structure, with these columns) and `targets.csv`, each whole."""
    page = sweep_figure(sweeps, held)
    header = ["property", "target", "mean", "standard_deviation", "structures"]
    named = [(s.name, s) for s in sweeps]
    named += [(f"{s.name} ({label})", other) for s in sweeps for label, other in s.beside.items()]
    means = [[name, *(f"{v:.8g}" for v in row)] for name, each in named for row in each.means()]
    cells = [v if isinstance(v, Sequence) else [f"{float(x):.8g}" for x in v] for v in columns.values()]
    each = [[i, *row] for i, row in enumerate(zip(*cells, strict=True))]
    tables = {TABLE: [["structure", *columns], *each], "targets.csv": [header, *means]}
    for form in ("png", "pdf"):
        with replacing(folder / f"sweep.{form}") as temporary:
            temporary.write_bytes(rendered(page, form))
    for name, rows in tables.items():
        with replacing(folder / name) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return [folder / name for name in ("sweep.png", "sweep.pdf", *tables)]


def read_sweep(folder: Path, name: str) -> dict[str, Float[np.ndarray, " structures"]]:
    """The columns of numbers in the table of an earlier sweep of the property `name`.

    Errors: `FileNotFoundError`; `ValueError` where another property was swept.
    """
    path = folder / TABLE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: {folder} is not what `amden sweep` left")
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if not {name, f"target_{name}"} <= set(header):
        raise ValueError(f"{path}: no sweep of {name!r}: it has {', '.join(header) or 'nothing'}")
    chosen = [column for column in header if column.removeprefix("target_").startswith(name)]
    return {column: np.array([float(row[header.index(column)]) for row in rows]) for column in chosen}
