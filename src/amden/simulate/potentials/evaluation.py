"""Exact energies, forces and stresses of a batch of periodic systems in float64, on the CPU.

This is the truth that the engine, the calculator and the analysis are measured by: any cell, however small or skewed,
all images. Speed over many steps is the engine's business.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from jaxtyping import Float64, Int

from amden.compiler import compiled, kept
from amden.simulate.potentials.pairs import Grid, neighbor_list
from amden.simulate.potentials.potential import Potential, Tools


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`."""

    energy: Float64[np.ndarray, " systems"]
    """Potential energy in eV."""
    energies: Float64[np.ndarray, " atoms"]
    """Share of each atom in it, in eV."""
    forces: Float64[np.ndarray, "atoms 3"]
    """-∂E/∂r, in eV/Å."""
    stress: Float64[np.ndarray, "systems 3 3"]
    """(1/V) ∂E/∂ε in eV/Å³, tension positive."""


def evaluate(
    potential: Potential,
    positions: Float64[np.ndarray, "atoms 3"],
    cells: Float64[np.ndarray, "systems 3 3"],
    n_atoms: Int[np.ndarray, " systems"],
    *,
    species: Int[np.ndarray, " atoms"] | None = None,
) -> Evaluation:
    """Energy, forces and stress of each system of a flat batch, systems in parallel.

    `cells` holds lattice vectors as rows; `species` are numbers into `potential.symbols`, all 0 when left out.

    >>> from amden.simulate.potentials import StillingerWeber
    >>> cell = 5.431 / 2 * np.array([[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    >>> diamond = np.array([[0.0, 0.0, 0.0], [5.431 / 4] * 3])
    >>> round(float(evaluate(StillingerWeber(), diamond, cell, np.array([2])).energy[0]) / 2, 5)
    -4.3366
    """
    species = np.zeros(len(positions), np.int64) if species is None else species.astype(np.int64)
    _check(potential, positions, cells, n_atoms, species)
    ends = np.cumsum(n_atoms)
    kernel = _compiled(potential)

    def system(s: int) -> tuple:
        own = slice(int(ends[s] - n_atoms[s]), int(ends[s]))
        grid = Grid.of(positions[own], cells[s], cutoff=potential.cutoff)
        return kernel(*grid.arrays, np.ascontiguousarray(cells[s]), species[own])

    if len(cells) == 1:
        results = [system(0)]
    else:
        with ThreadPoolExecutor(numba.get_num_threads()) as pool:
            results = list(pool.map(system, range(len(cells))))
    energies, forces, virials = zip(*results, strict=True)
    energy = np.array([e.sum() for e in energies])
    for s in np.flatnonzero(~np.isfinite(energy)):
        raise ValueError(f"`positions` of system {s}: two atoms are in the same place")
    stress = np.stack(virials) / np.abs(np.linalg.det(cells))[:, None, None]
    return Evaluation(energy, np.concatenate(energies), np.concatenate(forces), stress)


def _check(potential: Potential, positions: np.ndarray, cells: np.ndarray, n_atoms: np.ndarray, species: np.ndarray):
    if len(cells) == 0 or len(n_atoms) != len(cells) or int(np.sum(n_atoms)) != len(positions):
        raise ValueError(f"`n_atoms` must hold one count a cell and sum to {len(positions)} atoms, got {n_atoms}")
    if np.min(n_atoms) < 1:
        raise ValueError(f"`n_atoms` must be positive, got {np.min(n_atoms)}")
    if not (np.isfinite(positions).all() and np.isfinite(cells).all()):
        raise ValueError("`positions` and `cells` must be finite, got nan or inf")
    volumes = np.abs(np.linalg.det(cells))
    if volumes.min() < 1e-6:
        raise ValueError(f"`cells` must enclose a volume, got {volumes.min()} Å³ in system {volumes.argmin()}")
    if len(species) != len(positions) or species.min() < 0 or species.max() >= len(potential.symbols):
        raise ValueError(f"`species` must be one number an atom, below {len(potential.symbols)}")


@lru_cache(maxsize=16)
def _compiled(potential: Potential) -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Energies, forces and virial of one system."""
    first, second = potential.phases(_float64_tools())
    cutoff, n_moments, n_neighbor_moments = potential.cutoff, potential.n_moments, potential.n_neighbor_moments

    def evaluate_system(positions, bins, shape, around, cell, species):
        n = positions.shape[0]
        geometry = (*neighbor_list(positions, bins, shape, around, cell, cutoff), species)
        rows = n_moments
        if n_neighbor_moments > 0:
            for i in range(n):
                rows = max(rows, n_moments + n_neighbor_moments * (geometry[0][i + 1] - geometry[0][i]))
        moments = np.empty((rows, n))
        for i in range(n):
            first(i, geometry, moments)
        energies, forces, virial = np.empty(n), np.empty((n, 3)), np.zeros((3, 3))
        for i in range(n):
            forces[i, 0], forces[i, 1], forces[i, 2], energies[i], (xx, yy, zz, yz, xz, xy) = second(
                i, geometry, moments
            )
            virial[0, 0] += 0.5 * xx
            virial[1, 1] += 0.5 * yy
            virial[2, 2] += 0.5 * zz
            virial[1, 2] += 0.5 * yz
            virial[0, 2] += 0.5 * xz
            virial[0, 1] += 0.5 * xy
        virial[2, 1], virial[2, 0], virial[1, 0] = virial[1, 2], virial[0, 2], virial[0, 1]
        return energies, forces, virial

    return kept(potential)(evaluate_system)


def _float64_tools() -> Tools:
    jit = compiled(fastmath={"contract", "nsz", "arcp"}, error_model="numpy", forceinline=True)
    return Tools(
        jit=jit,
        real=float,
        index=np.uint64,
        exp=jit(lambda x: math.exp(x)),
        log=jit(lambda x: math.log(x)),
        sin=jit(lambda x: math.sin(x)),
        cos=jit(lambda x: math.cos(x)),
        acos=jit(lambda x: math.acos(x)),
        rsqrt=jit(lambda x: 1.0 / math.sqrt(x) if x > 0.0 else math.nan),
        inverse=jit(lambda x: 1.0 / x),
        n_near=jit(lambda geometry, i: np.uint64(geometry[0][i + 1] - geometry[0][i])),
        neighbor=jit(_neighbor),
        span2=jit(lambda geometry, i, k, r2: r2),
        species=jit(lambda geometry, i: geometry[3][i]),
        no_virial=jit(lambda: (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        add_virial=jit(_add_virial),
    )


def _neighbor(geometry, i, k):
    start, partner, vector, _ = geometry
    pair = np.uint64(start[i]) + k
    return partner[pair], vector[pair, 0], vector[pair, 1], vector[pair, 2]


def _add_virial(total, x, y, z, gx, gy, gz):
    xx, yy, zz, yz, xz, xy = total
    return xx + x * gx, yy + y * gy, zz + z * gz, yz + y * gz, xz + x * gz, xy + x * gy
