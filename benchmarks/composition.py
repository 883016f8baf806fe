"""What a property would be by composition alone: `python benchmarks/composition.py [SWEEP.csv] [--data FOLDER]`.

A polynomial of second degree in the fractions of the elements, oxygen left out, fitted to a simulated set, says what
glass of a composition is like in the set. Its own error is found in tenths of the set that were left out of the fit.
Structures of a sweep that differ from it, while it agrees with the targets, have right compositions and wrong
structures: a first answer to what `--requench` asks, at no cost.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from amden.dataset import load_dataset
from amden.properties import PROPERTIES

ROOT = Path(__file__).parents[1]
FRACTIONS = [name for name in PROPERTIES["fractions"].columns if name != "o_fraction"]
STIFFNESS = 1e-2
"""Of the ridge, with fractions in units of 0.1."""


def features(fractions: Float[np.ndarray, "glasses elements"]) -> Float[np.ndarray, "glasses features"]:
    """Products of no, one and two fractions."""
    tenths = 10.0 * fractions
    first, second = np.triu_indices(tenths.shape[1])
    return np.concatenate([np.ones((len(tenths), 1)), tenths, tenths[:, first] * tenths[:, second]], axis=1)


def fitted(fractions: np.ndarray, values: np.ndarray) -> Float[np.ndarray, " features"]:
    """Coefficients of the polynomial."""
    products = features(fractions)
    normal = products.T @ products + STIFFNESS * np.eye(products.shape[1])
    return np.linalg.solve(normal, products.T @ values)


def left_out(fractions: np.ndarray, values: np.ndarray, *, parts: int = 10) -> Float[np.ndarray, " glasses"]:
    """What the fit to the other parts says of each part."""
    order, found = np.random.default_rng(0).permutation(len(values)), np.zeros(len(values))
    for k in range(parts):
        own, others = order[k::parts], np.delete(order, np.s_[k::parts])
        found[own] = features(fractions[own]) @ fitted(fractions[others], values[others])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", nargs="?", type=Path, default=ROOT / "docs" / "figures" / "fig2ab.csv")
    parser.add_argument("--data", default=ROOT / "examples" / "oxide-glasses")
    parser.add_argument("--property", default="youngs_modulus")
    parser.add_argument("--between", type=float, nargs=2, default=(40.0, 110.0), help="targets that the means are over")
    args = parser.parse_args()
    glasses, name = load_dataset(args.data), args.property
    known = glasses.properties[name].isfinite()
    fractions, values = (
        np.stack([glasses.properties[column][known].double().numpy() for column in FRACTIONS], axis=1),
        glasses.properties[name][known].double().numpy(),
    )
    off = left_out(fractions, values) - values
    share = 1.0 - float(np.square(off).mean() / values.var())
    print(
        f"{name} of {len(values)} glasses by composition: mean absolute error {np.abs(off).mean():.3g}, R² {share:.3f}"
    )
    with args.sweep.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    target, made = (np.array([float(row[column]) for row in rows]) for column in (f"target_{name}", name))
    likely = features(np.array([[float(row[c]) for c in FRACTIONS] for row in rows])) @ fitted(fractions, values)
    table = Table(f"target {name}", "generated", "by composition")
    for each in np.unique(target):
        own = target == each
        table.add_row(
            f"{each:g}", *(f"{np.nanmean(v[own]):.1f} ± {np.nanstd(v[own], ddof=1):.1f}" for v in (made, likely))
        )
    Console().print(table)
    within = (target >= args.between[0]) & (target <= args.between[1]) & np.isfinite(made)
    for label, found in (("generated", made), ("by composition", likely)):
        error = (found - target)[within]
        print(
            f"{label}, {within.sum()} structures: mean error {error.mean():+.1f}, absolute {np.abs(error).mean():.1f}"
        )


if __name__ == "__main__":
    main()
