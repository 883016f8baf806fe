"""Random starts: atoms put down one after the other where there is room (random sequential addition)."""

import math

import numpy as np
from jaxtyping import Float64

from amden.simulate.compiler import compiled

_DENSEST = 0.38
"""Volume fraction of spheres at which random sequential addition jams (Talbot, Schaaf, Tarjus, Mol. Phys. 72, 1397)."""
_ATTEMPTS = 5_000
"""Trials for an atom, on average, before giving up."""


def random_packing(
    n_atoms: int, *, volume: float, min_distance: float, seed: int
) -> tuple[Float64[np.ndarray, "atoms 3"], Float64[np.ndarray, "3 3"]]:
    """Positions of `n_atoms` in a periodic cube of `volume` (Å³), no two closer than `min_distance` (Å), and the cell.

    >>> positions, cell = random_packing(64, volume=1280.0, min_distance=2.0, seed=1)
    >>> positions.shape, round(float(cell[0, 0]), 3)
    ((64, 3), 10.858)
    """
    if n_atoms < 1:
        raise ValueError(f"`n_atoms` must be positive, got {n_atoms}")
    if not 0.0 < volume < math.inf:
        raise ValueError(f"`volume` must be positive, got {volume}")
    if not 0.0 <= min_distance < math.inf:
        raise ValueError(f"`min_distance` must not be negative, got {min_distance}")
    length = volume ** (1.0 / 3.0)
    fraction = n_atoms * math.pi / 6.0 * min_distance**3 / volume
    positions = None
    if fraction < _DENSEST and min_distance <= length:
        positions = _place(n_atoms, length, min_distance, np.random.default_rng(seed))
    if positions is None:
        raise ValueError(
            f"`min_distance` {min_distance} is too long for {n_atoms} atoms in {volume} Å³: "
            f"they would fill {fraction:.2f} of it, random packing jams near {_DENSEST}"
        )
    return positions, length * np.eye(3)


@compiled()
def _is_free(positions, x, y, z, bin_xyz, newest, older, length, min_distance):
    """Whether no atom of the bins around a point is too close to it. Bins are linked lists, newest atom first."""
    n_bins = newest.shape[0]
    span = min(n_bins, 3)
    for da in range(span):
        for db in range(span):
            for dc in range(span):
                j = newest[
                    (bin_xyz[0] + da - 1) % n_bins, (bin_xyz[1] + db - 1) % n_bins, (bin_xyz[2] + dc - 1) % n_bins
                ]
                while j >= 0:
                    dx, dy, dz = x - positions[j, 0], y - positions[j, 1], z - positions[j, 2]
                    dx -= length * np.rint(dx / length)
                    dy -= length * np.rint(dy / length)
                    dz -= length * np.rint(dz / length)
                    if dx * dx + dy * dy + dz * dz < min_distance * min_distance:
                        return False
                    j = older[j]
    return True


@compiled()
def _place(n_atoms, length, min_distance, rng):
    """Positions, or None when an atom finds no room. Bins are no narrower than `min_distance`."""
    n_bins = max(1, min(int(length / max(min_distance, 1e-9)), int(n_atoms ** (1.0 / 3.0)) + 1))
    newest = np.full((n_bins, n_bins, n_bins), -1)
    older = np.full(n_atoms, -1)
    positions = np.empty((n_atoms, 3))
    i = 0
    for _ in range(_ATTEMPTS * n_atoms):
        x, y, z = rng.random(), rng.random(), rng.random()
        home = int(x * n_bins), int(y * n_bins), int(z * n_bins)
        if _is_free(positions, length * x, length * y, length * z, home, newest, older, length, min_distance):
            positions[i, 0], positions[i, 1], positions[i, 2] = length * x, length * y, length * z
            older[i], newest[home] = newest[home], i
            i += 1
            if i == n_atoms:
                return positions
    return None
