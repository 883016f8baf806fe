"""What is in a set of simulated silicon: `python benchmarks/datasets.py data/si-melt data/si-anneal [--relax 500]`.

Density and energy of all structures; of the first `--relax` of them the energy after relaxation of atoms and cell to
0.005 eV/Å, coordination, the first peak of g(r) before and after relaxation, and the share of atoms that sit as in
diamond. Means, with the standard error of the last digits in brackets.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from amden.analysis.bonds import coordination
from amden.analysis.rdf import rdf
from amden.dataset import load_dataset
from amden.simulate.crystal import crystalline_share
from amden.simulate.potentials import StillingerWeber
from amden.simulate.relaxation import relax_structures
from amden.structure import Structures

BOND = 2.9
"""Å."""


def with_error(values: np.ndarray, digits: int) -> str:
    """Mean, and its standard error in units of the last digit."""
    error = values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.{digits}f}({max(1, round(error * 10**digits))})"


def row(path: str, n_relaxed: int) -> list[str]:
    """The line of a dataset."""
    everything = load_dataset(path)
    energy = everything.properties["potential_energy"].numpy()
    some = everything.select(range(min(n_relaxed, len(everything))))
    relaxed = relax_structures(some, StillingerWeber())
    after = (relaxed.energy / some.n_atoms.numpy())[relaxed.converged]
    diamond = crystalline_share(some).numpy()
    return [
        path,
        f"{len(everything)}",
        with_error(everything.density.numpy(), 4),
        with_error(energy, 4),
        with_error(after, 4),
        f"{1000 * after.std(ddof=1):.1f}",
        with_error(neighbours(some), 3),
        f"{peak(some):.2f}",
        f"{peak(relaxed.structures):.2f}",
        f"{100 * diamond.mean():.2f} ({100 * diamond.max():.1f})",
        f"{np.sum(~relaxed.converged)}",
    ]


def neighbours(structures: Structures) -> np.ndarray:
    """Mean coordination number of each structure."""
    return coordination(structures, cutoff=BOND).per_system


def peak(structures: Structures) -> float:
    """First peak of g(r) in Å, in bins of 0.02 Å."""
    return rdf(structures, r_max=4.0, bin_width=0.02).peak


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="*", default=sorted(map(str, Path("examples").glob("*.extxyz"))))
    parser.add_argument("--relax", type=int, default=500, help="structures relaxed and measured")
    options = parser.parse_args()
    table = Table("set", "n", "g/cm³", "eV/atom", "relaxed", "sd, meV", "coordination", "peak, Å", "relaxed")
    table.add_column("like diamond, % (most)")
    table.add_column("not converged")
    for path in options.datasets:
        table.add_row(*row(path, options.relax))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
