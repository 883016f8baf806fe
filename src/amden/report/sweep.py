"""A property over what was asked for: the figure and its numbers (fig. 4 of the paper)."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, Num
from matplotlib.figure import Figure

from amden.report.figures import GENERATED, NOISE, REFERENCE, STYLE, rendered
from amden.storage import replacing


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
        yield (
            f"  targets within {low:.4g} to {high:.4g}{unit} (5th to 95th percentile of the training data): "
            f"mean absolute error {self.error(self.inside):.3g}{unit}"
        )
        yield f"  targets beyond: mean absolute error {self.error(~self.inside):.3g}{unit}"
        yield f"  Pearson r of the means over the targets {self.pearson:.3f}"


def sweep_figure(sweeps: Sequence[Sweep]) -> Figure:
    """A panel for each: structures as dots, means with standard deviations, the line of parity, the usual range."""
    with mpl.rc_context(STYLE):
        page = Figure(figsize=(3.5 * len(sweeps), 3.3), layout="constrained")
        for axes, sweep in zip(page.subplots(1, len(sweeps), squeeze=False)[0], sweeps, strict=True):
            unit = f" ({sweep.unit})" if sweep.unit else ""
            name = sweep.name.replace("_", " ")
            axes.axvspan(*sweep.usual, color=NOISE, alpha=0.15, lw=0.0, label="training data, 5th to 95th percentile")
            ends = [float(f(sweep.target)) for f in (np.min, np.max)]
            axes.plot(ends, ends, color=REFERENCE, lw=1.0, ls="--")
            axes.plot(sweep.target, sweep.value, "o", color=GENERATED, ms=2.5, alpha=0.35, mew=0.0)
            target, mean, spread, _ = np.array(list(sweep.means())).T
            axes.errorbar(target, mean, np.nan_to_num(spread), fmt="s", color=GENERATED, ms=4.0, lw=1.0, capsize=2.0)
            axes.set(xlabel=f"target {name}{unit}", ylabel=f"{name}{unit}")
            errors = f"MAE {sweep.error(sweep.inside):.3g} within, {sweep.error(~sweep.inside):.3g} beyond"
            axes.set_title(f"{errors}; r {sweep.pearson:.3f}", fontsize=7, loc="left")
            axes.legend(fontsize=6, loc="upper left")
        return page


def write_sweep(
    sweeps: Sequence[Sweep], folder: Path, columns: Mapping[str, Num[np.ndarray, " structures"]]
) -> list[Path]:
    """`sweep.png`, `sweep.pdf`, `sweep.csv` (a row a structure, with these columns) and `targets.csv`, each whole."""
    page = sweep_figure(sweeps)
    header = ["property", "target", "mean", "standard_deviation", "structures"]
    means = [[s.name, *(f"{v:.8g}" for v in row)] for s in sweeps for row in s.means()]
    each = [[i, *(f"{float(v):.8g}" for v in row)] for i, row in enumerate(zip(*columns.values(), strict=True))]
    tables = {"sweep.csv": [["structure", *columns], *each], "targets.csv": [header, *means]}
    for form in ("png", "pdf"):
        with replacing(folder / f"sweep.{form}") as temporary:
            temporary.write_bytes(rendered(page, form))
    for name, rows in tables.items():
        with replacing(folder / name) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return [folder / name for name in ("sweep.png", "sweep.pdf", *tables)]
