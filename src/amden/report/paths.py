"""The figure and the table of noise energies along the ways between order and noise."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amden import storage
from amden.paths import EnergyPath
from amden.report.figures import STYLE

COLOURS: Final = ("#9A9A9A", "#E69F00", "#0072B2")
"""Of the ways, in their order (Okabe and Ito)."""

_CLOSE_UP = 0.5
"""Times below this are drawn again, larger."""


def paths_figure(paths: Mapping[str, EnergyPath]) -> Figure:
    """Mean energy an atom along t with its standard error; below, the difference from the first way at small t."""
    with mpl.rc_context(STYLE):
        page = Figure(figsize=(7.2, 3.2), layout="constrained")
        whole, close = page.subplots(1, 2)
        for (name, path), colour in zip(paths.items(), COLOURS, strict=False):
            _drawn(whole, path.t.numpy(), path.mean.numpy(), path.error.numpy(), colour, name)
        first = next(iter(paths.values()))
        order = np.argsort(first.t.numpy())
        for (_, path), colour in zip(paths.items(), COLOURS, strict=False):
            t = path.t.numpy()
            inside = t <= _CLOSE_UP
            truth = np.interp(t, first.t.numpy()[order], first.mean.numpy()[order])
            off = path.mean.numpy() - truth
            _drawn(close, t[inside], off[inside], path.error.numpy()[inside], colour, None)
        whole.set(xlabel="diffusion time t", ylabel="noise energy an atom")
        close.set(xlabel="diffusion time t", ylabel="difference from forward noising")
        whole.legend()
        return page


def _drawn(axes: Axes, t: np.ndarray, mean: np.ndarray, error: np.ndarray, colour: str, name: str | None) -> None:
    axes.plot(t, mean, color=colour, label=name, linewidth=1.2)
    axes.fill_between(t, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.25, linewidth=0)


def write_paths(paths: Mapping[str, EnergyPath], folder: Path) -> list[Path]:
    """`paths.png`, `paths.pdf` and `paths.csv` in a folder; returns what was written."""
    written = [folder / f"paths.{ending}" for ending in ("png", "pdf", "csv")]
    page = paths_figure(paths)
    for path in written[:2]:
        with storage.replacing(path) as temporary:
            page.savefig(temporary, format=path.suffix[1:], dpi=200)
    with storage.replacing(written[2]) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["way", "t", "energy_per_atom", "standard_error", "systems"])
        for name, path in paths.items():
            for t, mean, error in zip(path.t.tolist(), path.mean.tolist(), path.error.tolist(), strict=True):
                rows.writerow([name, f"{t:.6g}", f"{mean:.8g}", f"{error:.4g}", path.energy.shape[1]])
    return written
