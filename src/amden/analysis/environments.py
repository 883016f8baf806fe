"""What surrounds an atom, as numbers that do not change when the structure is turned, mirrored, moved or renumbered."""

from collections.abc import Sequence
from math import factorial, sqrt
from typing import Final, no_type_check

import numpy as np
from jaxtyping import Float

from amden.analysis.grid import Grid, grids, kinds
from amden.analysis.histogram import neighbours, on_all_cores
from amden.compiler import kept
from amden.structure import Structures

FIRST: Final = 1.0
"""Radius of the innermost shell in Å; closer neighbours count as there."""
SPACING: Final = 1.0
"""Distance between shells in Å."""
SHELLS: Final = 5
REACH: Final = FIRST + SHELLS * SPACING
"""Neighbours count up to here, in Å: three shells of neighbours in a glass."""
DEGREES: Final = 6
"""Angular momenta l = 0 … 5."""


@kept()
@no_type_check
def _expand(begin, end, points, places, kinds, cell, n_bins, stencil, start, reach, first, spacing, norms, expansion):
    """Expansion of the neighbour density of sorted atoms to `expansion[atom, kind, shell, harmonic]`."""
    n_kinds, n_shells, degrees = expansion.shape[1], expansion.shape[2], len(norms)
    found, other = np.empty((128, 3)), np.empty(128, np.int64)
    for i in range(begin, end):
        n = neighbours(i, places[i], points, cell, n_bins, stencil, start, reach * reach, found, other)
        if n > len(other):
            found, other = np.empty((2 * n, 3)), np.empty(2 * n, np.int64)
            n = neighbours(i, places[i], points, cell, n_bins, stencil, start, reach * reach, found, other)
        weights = np.zeros((n_kinds * n_shells, n))
        z, real, imaginary = np.empty(n), np.ones(n), np.zeros(n)
        for j in range(n):
            r = sqrt(found[j, 0] ** 2 + found[j, 1] ** 2 + found[j, 2] ** 2) + 1e-300
            found[j, 0], found[j, 1], z[j] = found[j, 0] / r, found[j, 1] / r, found[j, 2] / r
            place = max((r - first) / spacing, 0.0)
            shell = min(int(place), n_shells - 1)
            t = place - shell
            outer = t * t * (3.0 - 2.0 * t)
            row = kinds[other[j]] * n_shells + shell
            weights[row, j] = 1.0 - outer
            if shell + 1 < n_shells:
                weights[row + 1, j] = outer
        harmonics = np.empty((degrees * degrees, n))
        polynomial, before, last = np.ones(n), np.zeros(n), np.zeros(n)
        for m in range(degrees):
            for j in range(n):  # (x + iy)^m, and the polynomial of degree m, (2m - 1)!!
                if m > 0:
                    real[j], imaginary[j] = (
                        real[j] * found[j, 0] - imaginary[j] * found[j, 1],
                        real[j] * found[j, 1] + imaginary[j] * found[j, 0],
                    )
                    polynomial[j] = 2 * m - 1 if m == 1 else last[j] * (2 * m - 1)
                last[j], before[j] = polynomial[j], 0.0
            for l in range(m, degrees):
                norm = norms[l, m]
                up, down = harmonics[l * l + l + m], harmonics[l * l + l - m]
                for j in range(n):
                    down[j] = norm * polynomial[j] * imaginary[j]
                    up[j] = norm * polynomial[j] * real[j]
                    polynomial[j], before[j] = (
                        ((2 * l + 1) * z[j] * polynomial[j] - (l + m) * before[j]) / (l + 1 - m),
                        polynomial[j],
                    )
        expansion[i] = np.dot(weights, harmonics.T).reshape(expansion.shape[1:])


def environments(structures: Structures, *, elements: Sequence[int]) -> Float[np.ndarray, "atoms numbers"]:
    """Spectrum of the neighbour density of each of the `elements` around each atom, in smooth shells.

        p_anl = √[Σ_m c_anlm²],  c_anlm = √[4π/(2l+1)] Σ_j g_n(r_j) Y_lm(r_j),  over neighbours j of element a

    ====== ==============================================================================================
    g_n    smooth bumps (cubic) with the shells as centres, together 1 from the first shell to the last
    Y_lm   real spherical harmonics, l = 0 … 5
    ====== ==============================================================================================

    It is the diagonal of the smooth overlap of atomic positions, SOAP (Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115
    (2013)): p² = Σ_jk g_n(r_j) g_n(r_k) P_l(cos θ_jk). `elements` are atomic numbers, and must hold all that occur.

    >>> from amden.testing import diamond
    >>> found = environments(diamond(), elements=[14]).reshape(8, SHELLS, DEGREES)
    >>> (found[0, 1] > 0.01).tolist()  # four neighbours, a tetrahedron: no dipole, no quadrupole, but an octupole
    [True, False, False, True, True, False]
    """
    present = kinds(structures)
    whole = np.zeros((len(structures.positions), len(elements), SHELLS, DEGREES), np.float32)
    places = np.array([list(elements).index(z) for z in present], dtype=np.int64)
    first = np.arange(DEGREES) ** 2
    norms = _norms()

    def run(grid: Grid, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        part = np.zeros((len(grid.atoms), len(present), SHELLS, DEGREES**2))
        _expand(begin, end, *grid.arrays(), REACH, FIRST, SPACING, norms, part)
        return grid.atoms[begin:end], np.sqrt(np.add.reduceat(part[begin:end] ** 2, first, axis=-1))

    for atoms, spectra in on_all_cores(run, grids(structures, REACH)):
        whole[np.ix_(atoms, places)] = spectra
    return whole.reshape(len(whole), -1)


def _norms() -> Float[np.ndarray, "degrees degrees"]:
    """√[(2 - δ_m0) (l - m)! / (l + m)!], which makes Σ_m of the products of two harmonics P_l of the angle between."""
    norms = np.zeros((DEGREES, DEGREES))
    for l in range(DEGREES):
        for m in range(l + 1):
            norms[l, m] = sqrt((2 - (m == 0)) * factorial(l - m) / factorial(l + m))
    return norms
