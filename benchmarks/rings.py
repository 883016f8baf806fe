"""Cells of silica a second whose rings are counted: `python benchmarks/rings.py [--cells 1000]`.

The cells are glasses of 90 and 117 atoms by molecular dynamics, and the first twice as large, again and again; rings
are sought up to 24 atoms. Beside them the paper's rings by networkx in a repeated cell, and shortest-path rings by
matscipy likewise, on one cell. The first call compiles, or loads what an earlier run compiled.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from ase import Atoms
from ase.io import iread
from ase.neighborlist import neighbor_list
from matscipy.rings import ring_statistics
from rich.console import Console
from rich.table import Table

from amden.analysis.rings import DEFINITIONS, rings
from amden.io import from_ase, to_ase
from amden.structure import Structures
from amden.structure import concatenate as batch_of
from amden.testing import supercell

GLASSES = Path(__file__).parents[1] / "tests" / "data" / "tersoff_sio2.extxyz"
BONDS = {"Si-O": 2.3}


def cells(number: int) -> Structures:
    glasses = from_ase(list(iread(GLASSES, "1:3"))).to(dtype=torch.float32)
    kinds = batch_of([glasses, supercell(glasses.select([0]), (2, 1, 1))])
    return kinds.select([k % len(kinds) for k in range(number)])


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def by_networkx(atoms: Atoms) -> set[frozenset]:
    graph = nx.Graph(list(zip(*neighbor_list("ij", atoms.repeat(2), {("Si", "O"): 2.3}), strict=True)))
    found = set()
    for a, b in list(graph.edges):
        graph.remove_edge(a, b)
        found.add(frozenset(nx.shortest_path(graph, a, b)))
        graph.add_edge(a, b)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    options = parser.parse_args()
    silica = cells(options.cells)
    one = to_ase(silica.select([1]))[0]
    others = {
        "closing": ("networkx", 1.0 / seconds(lambda: by_networkx(one))),
        "primitive": (
            "matscipy",
            1.0 / seconds(lambda: ring_statistics(one.repeat(2), {("Si", "O"): 2.3}, maxlength=25)),
        ),
    }
    page = Table("definition", "first, s", "cells/s", "rings", "Si", "another code")
    for definition in DEFINITIONS:
        first = seconds(lambda d=definition: rings(silica.select([0]), definition=d, cutoff=BONDS, counted="Si"))
        start = time.perf_counter()
        found = rings(silica, definition=definition, cutoff=BONDS, counted="Si")
        rate = len(silica) / (time.perf_counter() - start)
        code, its_rate = others.get(definition, ("", 0.0))
        page.add_row(
            definition,
            f"{first:.2f}",
            f"{rate:.0f}",
            f"{found.n_rings.mean():.1f}",
            f"{found.mean:.2f}",
            f"{code}: {its_rate:.2g} cells/s" if code else "",
        )
    page.caption = (
        f"{torch.get_num_threads()} threads; {len(silica.positions) / len(silica):.0f} atoms a cell in the mean"
    )
    Console().print(page)


if __name__ == "__main__":
    main()
