"""Time of the analysis, beside other codes in the same run: `python benchmarks/analysis.py [--cells 1000]`.

Random silicon of the glass's density, and for rings and Qⁿ glasses of silica, again and again. The first call compiles,
or loads what an earlier run compiled. The other codes' times are for a few cells, scaled to all:

========= =======================================================================================
g(r)      ASE, matscipy: neighbour search for the same range, and a histogram
angles    ASE, matscipy: neighbour search alone, from which the angles would still have to be made
S(q)      NumPy: exp(i q · r) written out, for the same number of vectors
rings     networkx: see `rings.py`
========= =======================================================================================
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import ase.neighborlist
import numpy as np
import torch
from matscipy.neighbours import neighbour_list
from rich.console import Console
from rich.table import Table
from rings import BONDS, by_networkx, cells

from amden.analysis.bonds import bond_angles, coordination, partial_bond_angles
from amden.analysis.compare import analyze
from amden.analysis.qn import qn
from amden.analysis.rdf import partial_rdf, rdf
from amden.analysis.rings import rings
from amden.analysis.scattering import structure_factor, structure_factor_from_rdf
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


def searches(structures: Structures, reach: float, *, most: int = 4) -> str:
    """Times of the other codes' neighbour searches with a histogram of distances, scaled to all atoms."""
    sample = structures.select(range(min(most, len(structures)))) if len(structures) > 1 else gas(1, 12_500)
    images, scale = to_ase(sample), len(structures.positions) / len(sample.positions)

    def by(search: Callable[..., Any]) -> float:
        return scale * seconds(lambda: [np.histogram(search("d", a, reach), 140) for a in images])

    return f"ASE {by(ase.neighborlist.neighbor_list):.1f}, matscipy {by(neighbour_list):.2f}"


def numpy_waves(structures: Structures, n_vectors: int, *, sample: int = 2000) -> str:
    """Time of |Σ exp(i q · r)|² written out, for `sample` vectors, scaled to all."""
    r = structures.positions[: int(structures.n_atoms[0])].double().numpy()
    q = np.random.default_rng(0).normal(size=(min(sample, n_vectors), 3))
    once = seconds(lambda: np.abs(np.exp(1j * (q @ r.T)).sum(axis=1)) ** 2)
    return f"NumPy {once * n_vectors / len(q):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--atoms", type=int, default=256)
    options = parser.parse_args()
    many, large, silica = gas(options.cells, options.atoms), gas(1, 100_000), cells(options.cells)
    few = many.select(range(min(100, len(many))))
    page = Table("what", "of", "seconds", "other codes, s")

    def row(what: str, of: Structures, work: Callable[[], Any], other: str = "") -> None:
        name = f"{len(of):,} × {len(of.positions) // len(of):,} atoms"
        page.add_row(what, name, f"{seconds(work):.2f}", other)

    one, glass = many.select([0]), silica.select([0])

    def first() -> None:
        rdf(one), bond_angles(one), structure_factor(one), qn(glass, cutoff=BONDS)
        rings(glass, definition="closing", cutoff=BONDS)

    row("first calls (compile or load)", one, first)
    for of in (many, large):
        row("g(r) to 7 Å", of, lambda of=of: rdf(of), searches(of, 7.0))
        row("bond angles, 2.9 Å", of, lambda of=of: bond_angles(of), searches(of, 2.9))
        row("coordination, 2.9 Å", of, lambda of=of: coordination(of))
    for of, settings in ((few, {}), (many, {"q_max": 12.0, "most": 200}), (large, {"most": 200})):
        found = structure_factor(of.select([0]), **settings)
        n_vectors = int(found.n_vectors.sum()) * len(of)
        name = f"S(q) to {settings.get('q_max', 15.0):g} 1/Å, {n_vectors / len(of):.2g} vectors a cell"
        row(name, of, lambda of=of, settings=settings: structure_factor(of, **settings), numpy_waves(of, n_vectors))
    row("S(q) from g(r) to 10 Å", many, lambda: structure_factor_from_rdf(many))
    row("partial g(r) of silica", silica, lambda: partial_rdf(silica))
    row("partial angles of silica", silica, lambda: partial_bond_angles(silica, cutoff=BONDS))
    row("Qⁿ of silica", silica, lambda: qn(silica, cutoff=BONDS))
    image = to_ase(silica.select([1]))[0]
    networkx = f"networkx {len(silica) * seconds(lambda: by_networkx(image)):.0f}"
    for definition in ("closing", "king", "primitive"):
        search = lambda d=definition: rings(silica, definition=d, cutoff=BONDS, counted="Si")  # noqa: E731
        row(f"rings, {definition}", silica, search, networkx if definition == "closing" else "")
    row("analyze against a reference", many, lambda: analyze(many, gas(options.cells, options.atoms, seed=1)))
    page.caption = f"{torch.get_num_threads()} threads"
    Console(width=110).print(page)


if __name__ == "__main__":
    main()
