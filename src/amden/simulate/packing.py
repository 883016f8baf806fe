"""Random starts: atoms put down one after the other where there is room (random sequential addition)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int

from amden.compiler import kept
from amden.elements import COVALENT_RADII, FORMAL_CHARGES, atomic_number

_DENSEST = 0.38
"""Volume fraction of spheres at which random sequential addition jams (Talbot, Schaaf, Tarjus, Mol. Phys. 72, 1397)."""
_ATTEMPTS = 5_000
"""Trials for an atom, on average, before giving up."""
_ION_ATTEMPTS = 20_000
"""Trials for an ion."""
_BLOCK = 4096
"""Points drawn at once. Compiled code gets arrays and never the generator itself: Numba looks its address up by way of
Python and does not ask whether that failed, so that Ctrl-C there is a crash."""
_SHRINKAGE, _SHRINKINGS = 0.98, 35
"""Of the distances between ions: to half at most."""
_ANIONS_APART, _CATIONS_APART, _BOND = 2.1, 2.4, 0.85
"""Å, Å, and of the sum of two covalent radii."""


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


@kept()
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


def _place(n_atoms: int, length: float, min_distance: float, rng: np.random.Generator) -> np.ndarray | None:
    """Positions, or None when an atom finds no room. Bins are no narrower than `min_distance`."""
    n_bins = max(1, min(int(length / max(min_distance, 1e-9)), int(n_atoms ** (1.0 / 3.0)) + 1))
    newest, older = np.full((n_bins, n_bins, n_bins), -1), np.full(n_atoms, -1)
    positions, placed, left = np.empty((n_atoms, 3)), 0, _ATTEMPTS * n_atoms
    while placed < n_atoms and left > 0:
        points = rng.random((min(left, _BLOCK), 3))
        placed = _place_more(points, positions, placed, newest, older, length, min_distance)
        left -= len(points)
    return positions if placed == n_atoms else None


@kept()
def _place_more(points, positions, placed, newest, older, length, min_distance):
    """Puts atoms at those of the points (in edges) where there is room; how many are placed then."""
    n_bins = newest.shape[0]
    for k in range(len(points)):
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        home = int(x * n_bins), int(y * n_bins), int(z * n_bins)
        if _is_free(positions, length * x, length * y, length * z, home, newest, older, length, min_distance):
            positions[placed, 0], positions[placed, 1], positions[placed, 2] = length * x, length * y, length * z
            older[placed], newest[home] = newest[home], placed
            placed += 1
            if placed == len(positions):
                break
    return placed


def ion_distances(symbols: Sequence[str]) -> Float64[np.ndarray, "species species"]:
    """Least distances (Å) for a random start of ions: like charges apart, so that nothing explodes.

    Opposite charges 0.85 times the sum of their covalent radii, anions 2.1 Å, cations 2.4 Å.

    >>> ion_distances(["Si", "O", "K"]).round(2).tolist()
    [[2.4, 1.5, 2.4], [1.5, 2.1, 2.29], [2.4, 2.29, 2.4]]
    """
    charges = np.array([FORMAL_CHARGES[symbol] for symbol in symbols])
    radii = COVALENT_RADII[[atomic_number(symbol) for symbol in symbols]]
    alike = np.where(charges[:, None] < 0, _ANIONS_APART, _CATIONS_APART)
    return np.where(np.multiply.outer(charges, charges) > 0, alike, _BOND * np.add.outer(radii, radii))


def random_ion_packing(
    species: Int[np.ndarray, " atoms"],
    *,
    volume: float,
    min_distances: Float64[np.ndarray, "species species"],
    seed: int,
) -> tuple[Float64[np.ndarray, "atoms 3"], Float64[np.ndarray, "3 3"]]:
    """Positions in a periodic cube of `volume` (Å³) with a least distance (Å) for each pair of species, and the cell.

    Species are put down in the order of their widest distance. Where they cannot all find room, distances shrink by
    2 % at a time, all alike.

    >>> salt = np.array([0] * 20 + [1] * 20)
    >>> positions, _ = random_ion_packing(salt, volume=1000.0, min_distances=np.array([[3.0, 2.0], [2.0, 3.0]]), seed=1)
    >>> positions.shape
    (40, 3)
    """
    if len(species) < 1 or species.min() < 0 or species.max() >= len(min_distances):
        raise ValueError(f"`species` must be one number an atom, below {len(min_distances)}")
    if not 0.0 < volume < math.inf:
        raise ValueError(f"`volume` must be positive, got {volume}")
    if not (min_distances >= 0.0).all() or not (min_distances == min_distances.T).all():
        raise ValueError("`min_distances` must be symmetric and not negative")
    length, points = volume ** (1.0 / 3.0), _Points(np.random.default_rng(seed))
    present = np.unique(species)
    widest = min_distances[np.ix_(present, present)].max(axis=1)
    order = np.argsort(-widest[np.searchsorted(present, species)], kind="stable")
    shrunk = np.minimum(min_distances, length)
    for _ in range(_SHRINKINGS):
        placed = _place_ions(species[order].astype(np.int64), length, shrunk, points)
        if placed is not None:
            positions = np.empty_like(placed)
            positions[order] = placed
            return positions, length * np.eye(3)
        shrunk = _SHRINKAGE * shrunk
    raise ValueError(f"`volume` {volume} Å³ has no room for {len(species)} atoms even at half the `min_distances`")


class _Points:
    """Random points, one after the other, for compiled code, which takes some of a block."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._left = rng, np.empty((0, 3))

    def left(self) -> Float64[np.ndarray, "points 3"]:
        """Those of the block that were not taken, in edges; a new block where all were."""
        if not len(self._left):
            self._left = self._rng.random((_BLOCK, 3))
        return self._left

    def take(self, n: int) -> None:
        """The first `n` are used up."""
        self._left = self._left[n:]


def _place_ions(species: np.ndarray, length: float, min_distances: np.ndarray, points: _Points) -> np.ndarray | None:
    """Positions, or None when an atom finds no room."""
    positions, placed, misses = np.empty((len(species), 3)), 0, 0
    while placed < len(species) and misses < _ION_ATTEMPTS:
        placed, misses, used = _place_more_ions(
            points.left(), positions, placed, misses, species, length, min_distances
        )
        points.take(used)
    return positions if placed == len(species) else None


@kept()
def _place_more_ions(points, positions, placed, misses, species, length, min_distances):
    """Puts ions at those of the points (in edges) where there is room, until one has missed too often; how many are
    placed then, the misses of the next, and the points used."""
    for k in range(len(points)):
        if placed == len(species) or misses == _ION_ATTEMPTS:
            return placed, misses, k
        x, y, z = length * points[k, 0], length * points[k, 1], length * points[k, 2]
        free = True
        for j in range(placed):
            dx, dy, dz = x - positions[j, 0], y - positions[j, 1], z - positions[j, 2]
            dx -= length * np.rint(dx / length)
            dy -= length * np.rint(dy / length)
            dz -= length * np.rint(dz / length)
            if dx * dx + dy * dy + dz * dz < min_distances[species[placed], species[j]] ** 2:
                free = False
                break
        if free:
            positions[placed, 0], positions[placed, 1], positions[placed, 2] = x, y, z
            placed, misses = placed + 1, 0
        else:
            misses += 1
    return placed, misses, len(points)
