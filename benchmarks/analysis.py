"""Time of the analysis on random silicon of the glass's density: `python benchmarks/analysis.py [--cells 1000]`.

The first call compiles, or loads what an earlier run compiled. ASE's time is that of its neighbour search alone, for
the same range, on a few cells and scaled to all; it makes a list of pairs, from which g(r) would still have to be made.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from ase.neighborlist import neighbor_list
from rich.console import Console
from rich.table import Table

from amden.analysis.bonds import bond_angles, coordination
from amden.analysis.compare import analyze
from amden.analysis.rdf import rdf
from amden.io import to_ase
from amden.structure import Structures

DENSITY = 0.05
"""Atoms per Å³."""


def gas(n_cells: int, n_atoms: int, *, seed: int = 0) -> Structures:
    edge = (n_atoms / DENSITY) ** (1 / 3)
    generator = torch.Generator().manual_seed(seed)
    positions = edge * torch.rand(n_cells * n_atoms, 3, generator=generator)
    cell = (edge * torch.eye(3)).repeat(n_cells, 1, 1)
    return Structures(positions, torch.full((len(positions),), 14), cell, torch.full((n_cells,), n_atoms))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ase_search(structures: Structures, reach: float, *, cells: int = 4) -> float:
    images = to_ase(structures.select(range(min(cells, len(structures)))))
    return seconds(lambda: [neighbor_list("d", atoms, reach) for atoms in images]) * len(structures) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--atoms", type=int, default=256)
    options = parser.parse_args()
    many, other, large = gas(options.cells, options.atoms), gas(options.cells, options.atoms, seed=1), gas(1, 100_000)
    one = many.select([0])
    page = Table("what", "of", "seconds", "ASE's search alone")
    of_many, of_large = f"{options.cells} × {options.atoms} atoms", "1 × 100,000 atoms"
    page.add_row("first call (compile or load)", "1 cell", f"{seconds(lambda: (rdf(one), bond_angles(one))):.2f}", "")
    searches = {of_many: ase_search(many, 7.0), of_large: ase_search(large, 7.0)}
    for of, structures in ((of_many, many), (of_large, large)):
        page.add_row("g(r) to 7 Å", of, f"{seconds(lambda s=structures: rdf(s)):.2f}", f"{searches[of]:.1f}")
        page.add_row("bond angles, 2.9 Å", of, f"{seconds(lambda s=structures: bond_angles(s)):.2f}", "")
        page.add_row("coordination, 2.9 Å", of, f"{seconds(lambda s=structures: coordination(s)):.2f}", "")
    page.add_row("analyze against a reference", f"2 × {of_many}", f"{seconds(lambda: analyze(many, other)):.2f}", "")
    page.caption = f"{torch.get_num_threads()} threads"
    Console().print(page)


if __name__ == "__main__":
    main()
