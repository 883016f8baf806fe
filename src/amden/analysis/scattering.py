"""Structure factors S(q) of structures: exact, from reciprocal lattice vectors, or by transforming g(r).

`structure_factor` is exact: it sums over the reciprocal lattice vectors of each cell. `structure_factor_from_rdf`
transforms g(r), as one does to compare with others who do. Both give a `StructureFactor`, of `faber_ziman`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations_with_replacement
from math import pi
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int

from amden.analysis.faber_ziman import StructureFactor
from amden.analysis.grid import kinds
from amden.analysis.rdf import partial_rdf
from amden.analysis.reciprocal import amplitudes, chunks, vectors
from amden.elements import symbol
from amden.structure import Structures, validate

WINDOWS: Final = ("lorch", "none")


def structure_factor(
    structures: Structures, *, q_max: float = 15.0, bin_width: float = 0.05, most: int = 2000
) -> StructureFactor:
    """Structure factors from the reciprocal lattice vectors q of each cell, the only ones that a periodic system has.

        S_ab(q) = 1 + [<Re A_a(q) A_b(q)*> / N - c_a δ_ab] / (c_a c_b),  A_a(q) = Σ_{j in a} exp(i q · r_j)

    The mean is over the vectors of a bin: all of them or, where there are more than `most`, so many drawn at random,
    always the same of a cell. A cell of 256 atoms of silicon has 1,500 in the bins at 15 1/Å, and the default takes
    all; drawing gives a structure a relative error of 1/√`most` in a bin. Exact in the sense that there is no window,
    no cutoff and no correction for the size of the cell. Ghosts are removed.

    Errors: `ValueError` for settings that are not positive, or structures that cannot be worked with.

    >>> from amden.testing import diamond
    >>> found = structure_factor(diamond(), q_max=3.0)
    >>> round(found.peak("neutron", between=(1.5, 2.5)), 1)  # (111): 2π √3 / 5.431 Å = 2.0 1/Å
    2.0
    """
    n_bins = _n_bins(q_max, bin_width)
    if most < 1:
        raise ValueError(f"`most` must be positive, got {most}")
    structures = structures.without_ghosts()
    validate(structures)
    batch = _Batch(structures)

    def of_system(system: int, each: Callable[..., Any]) -> tuple[np.ndarray, np.ndarray]:
        return _binned(batch, system, vectors(batch.cells[system], n_bins=n_bins, bin_width=bin_width, most=most), each)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        if len(structures) >= torch.get_num_threads():
            results = list(pool.map(lambda system: of_system(system, map), range(len(structures))))
        else:
            results = [of_system(system, pool.map) for system in range(len(structures))]
    return _assembled(
        (np.arange(n_bins) + 0.5) * bin_width,
        np.stack([s for s, _ in results]),
        np.stack([n for _, n in results]),
        batch,
        f"reciprocal lattice vectors, at most {most} a bin of {bin_width:g} 1/Å",
    )


def structure_factor_from_rdf(
    structures: Structures,
    *,
    q_max: float = 15.0,
    bin_width: float = 0.05,
    r_max: float = 10.0,
    r_width: float = 0.02,
    window: str = "lorch",
) -> StructureFactor:
    """Structure factors by transforming the partial g(r) up to `r_max` Å, in bins of `r_width`.

        S_ab(q) = 1 + ρ ∫ 4π r² [g_ab(r) - 1] sin(qr)/(qr) L(r) dr,  L(r) = sin(π r/R) / (π r/R)

    L is the window of Lorch, J. Phys. C 2, 229 (1969), or 1; R is `r_max`, ρ the number density of all atoms. The range
    limits the resolution to about 2π/R (Lorch: 3.8/R half width at half height), and without a window makes ripples.
    Beyond half of the cell's height g(r) has the cell's own periodicity in it, an ideal gas has g = 1 - 1/N below:
    both show at small q, where the exact sum is to be preferred.

    Errors: `ValueError` for settings that are not positive or an unknown window.

    >>> from amden.testing import random_structures
    >>> structure_factor_from_rdf(random_structures([60], species=(8, 14)), q_max=2.0).partials.keys()
    dict_keys(['O-O', 'O-Si', 'Si-Si'])
    """
    n_bins = _n_bins(q_max, bin_width)
    if window not in WINDOWS:
        raise ValueError(f"unknown `window` {window!r}: expected one of {', '.join(WINDOWS)}")
    structures = structures.without_ghosts()
    found = partial_rdf(structures, r_max=r_max, bin_width=r_width)
    batch, q = _Batch(structures), (np.arange(n_bins) + 0.5) * bin_width
    g = next(iter(found.values()))
    damping = np.sinc(g.r / r_max) if window == "lorch" else np.ones(len(g.r))
    shells = 4.0 * pi / 3.0 * np.diff(g.edges**3) * damping
    kernel = shells[:, None] * np.sinc(np.outer(g.r, q) / pi)
    density = batch.n_atoms / structures.volume.cpu().double().numpy()
    empty = np.full((len(structures), len(q)), np.nan)
    partials = [
        1.0 + density[:, None] * ((found[pair].per_system - 1.0) @ kernel) if pair in found else empty
        for pair in batch.pairs
    ]
    words = f"transform of g(r) to {r_max:g} Å, " + ("window of Lorch" if window == "lorch" else "no window")
    return _assembled(q, np.stack(partials, axis=1), np.zeros((len(structures), len(q)), np.int64), batch, words)


class _Batch:
    """What the sums need to know of structures, as arrays."""

    def __init__(self, structures: Structures) -> None:
        self.present = kinds(structures)
        self.names = [symbol(z) for z in self.present]
        self.pairs = [f"{a}-{b}" for a, b in combinations_with_replacement(self.names, 2)]
        self.cells = structures.cell.detach().cpu().double().numpy()
        self.n_atoms = structures.n_atoms.cpu().numpy()
        self.first = structures.first.cpu().numpy()
        self.positions = structures.positions.detach().cpu().double().numpy()
        self.kinds: np.ndarray = np.searchsorted(self.present, structures.species.cpu().numpy())
        system = structures.system.cpu().numpy()
        counts = [np.bincount(system[self.kinds == k], minlength=len(structures)) for k in range(len(self.present))]
        self.concentrations = np.stack(counts, axis=1) / self.n_atoms[:, None]


def _binned(
    batch: _Batch, system: int, lattice: tuple[np.ndarray, np.ndarray, np.ndarray], each: Callable[..., Any]
) -> tuple[Float[np.ndarray, "pairs bins"], Int[np.ndarray, " bins"]]:
    """Partials of one system and the number of vectors in each bin."""
    hkl, bins, counts = lattice
    own = slice(batch.first[system], batch.first[system] + batch.n_atoms[system])
    scaled = batch.positions[own] @ np.linalg.inv(batch.cells[system])
    n, c = batch.n_atoms[system], batch.concentrations[system]

    def sums(chunk: slice) -> np.ndarray:
        a = amplitudes(scaled, batch.kinds[own], hkl[chunk], len(c))
        products = [(a[:, i] * a[:, j]).sum(axis=1) for i, j in combinations_with_replacement(range(len(c)), 2)]
        return np.stack([np.bincount(bins[chunk], weights=p, minlength=len(counts)) for p in products])

    used = np.bincount(bins, minlength=len(counts))
    total = np.sum(list(each(sums, chunks(len(hkl)))), axis=0) if len(hkl) else np.zeros((len(batch.pairs), len(used)))
    of_bins = np.where(used > 0, total / np.maximum(used, 1), np.nan) / n
    pairs = list(combinations_with_replacement(c, 2))
    same = [i == j for i, j in combinations_with_replacement(range(len(c)), 2)]
    partials = [
        1.0 + (s - a * own_kind) / (a * b) if a * b > 0 else np.full(len(used), np.nan)
        for s, own_kind, (a, b) in zip(of_bins, same, pairs, strict=True)
    ]
    return np.stack(partials), used


def _assembled(
    q: np.ndarray, partials: np.ndarray, n_vectors: np.ndarray, batch: _Batch, method: str
) -> StructureFactor:
    """`partials` is [systems, pairs, bins]; a pair that no system has is left out."""
    there = dict(zip(batch.pairs, partials.swapaxes(0, 1), strict=True))
    c = batch.concentrations
    together = {
        f"{batch.names[i]}-{batch.names[j]}": np.any(c[:, i] * c[:, j] > 0)
        for i, j in combinations_with_replacement(range(len(batch.names)), 2)
    }
    return StructureFactor(
        q=q,
        partials={pair: np.ascontiguousarray(s) for pair, s in there.items() if together[pair]},
        concentrations=dict(zip(batch.names, c.T, strict=True)),
        n_vectors=n_vectors,
        method=method,
    )


def _n_bins(q_max: float, bin_width: float) -> int:
    if not (q_max > 0 and bin_width > 0):
        raise ValueError(f"`q_max` and `bin_width` must be positive, got {q_max} and {bin_width}")
    n_bins = round(q_max / bin_width)
    if n_bins < 1 or abs(n_bins * bin_width - q_max) > 1e-6 * q_max:
        raise ValueError(f"`q_max` must be a whole number of bins, got {q_max} with `bin_width` {bin_width}")
    return n_bins
