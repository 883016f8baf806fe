"""Reciprocal lattice vectors of a cell, and the amplitudes with which its atoms scatter into them.

    A_a(q) = Σ_{j in a} exp(i q · r_j),  q = 2π cell⁻¹ (h, k, l)ᵀ

Since q · r = 2π (h s₁ + k s₂ + l s₃), the exponential is a product of powers along the three lattice axes: tables of
powers are made once, and a vector costs one complex product and sum an atom where (h, k) stay the same. Of q and -q,
which scatter alike, one is taken. What the amplitudes mean is the business of `scattering`.
"""

from collections.abc import Iterator
from math import cos, pi, sin, sqrt
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int

from amden.compiler import kept

BLOCK = 128
"""Atoms whose tables of powers are kept at a time: they stay in the cache."""

CHUNK = 16384
"""Vectors that a thread takes at a time."""


@kept()
@no_type_check
def _walk(reciprocal, limits, width, counts, chosen, seed, hkl, bins):
    """Count the vectors of half the space by bin; with room in `hkl`, write `chosen[bin]` of each, drawn at random.

    Drawing is in one pass: each vector is taken with the probability (still wanted) / (still to come).
    """
    n = 0
    left, wanted, state = counts.copy(), chosen.copy(), np.uint64(seed)
    for h in range(limits[0] + 1):
        for k in range(-limits[1] if h > 0 else 0, limits[1] + 1):
            for l in range(-limits[2] if h > 0 or k > 0 else 1, limits[2] + 1):
                x = h * reciprocal[0, 0] + k * reciprocal[1, 0] + l * reciprocal[2, 0]
                y = h * reciprocal[0, 1] + k * reciprocal[1, 1] + l * reciprocal[2, 1]
                z = h * reciprocal[0, 2] + k * reciprocal[1, 2] + l * reciprocal[2, 2]
                b = int(sqrt(x * x + y * y + z * z) / width)
                if b >= len(counts):
                    continue
                if len(hkl) == 0:
                    counts[b] += 1
                    continue
                state += np.uint64(0x9E3779B97F4A7C15)  # SplitMix64, Steele, Lea and Flood, OOPSLA 2014
                mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                mixed ^= mixed >> np.uint64(31)
                if (mixed >> np.uint64(11)) * (1.0 / (1 << 53)) * left[b] < wanted[b]:
                    hkl[n, 0], hkl[n, 1], hkl[n, 2], bins[n] = h, k, l, b
                    wanted[b] -= 1
                    n += 1
                left[b] -= 1


@kept()
@no_type_check
def _powers(phases, low, high, real, imaginary):
    """exp(i m φ) of each phase φ for m from `low` to `high`."""
    for j in range(len(phases)):
        real[0, j], imaginary[0, j] = cos(low * phases[j]), sin(low * phases[j])
        c, s = cos(phases[j]), sin(phases[j])
        for m in range(high - low):
            real[m + 1, j] = real[m, j] * c - imaginary[m, j] * s
            imaginary[m + 1, j] = real[m, j] * s + imaginary[m, j] * c


@kept(fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _add_amplitudes(phases, hkl, low, high, kind, amplitudes):
    """Add to `amplitudes[vector, kind]`, real and imaginary part, what the atoms of these phases scatter."""
    n = len(phases)
    xr, xi = np.empty((high[0] - low[0] + 1, n)), np.empty((high[0] - low[0] + 1, n))
    yr, yi = np.empty((high[1] - low[1] + 1, n)), np.empty((high[1] - low[1] + 1, n))
    zr, zi = np.empty((high[2] - low[2] + 1, n)), np.empty((high[2] - low[2] + 1, n))
    _powers(phases[:, 0], low[0], high[0], xr, xi)
    _powers(phases[:, 1], low[1], high[1], yr, yi)
    _powers(phases[:, 2], low[2], high[2], zr, zi)
    pr, pi_ = np.empty(n), np.empty(n)
    for v in range(len(hkl)):
        if v == 0 or hkl[v, 0] != hkl[v - 1, 0] or hkl[v, 1] != hkl[v - 1, 1]:
            h, k = hkl[v, 0] - low[0], hkl[v, 1] - low[1]
            for j in range(n):
                pr[j] = xr[h, j] * yr[k, j] - xi[h, j] * yi[k, j]
                pi_[j] = xr[h, j] * yi[k, j] + xi[h, j] * yr[k, j]
        l = hkl[v, 2] - low[2]
        real, imaginary = 0.0, 0.0
        for j in range(n):
            real += pr[j] * zr[l, j] - pi_[j] * zi[l, j]
            imaginary += pr[j] * zi[l, j] + pi_[j] * zr[l, j]
        amplitudes[v, kind, 0] += real
        amplitudes[v, kind, 1] += imaginary


def vectors(
    cell: Float[np.ndarray, "3 3"], *, n_bins: int, bin_width: float, most: int, seed: int = 0
) -> tuple[Int[np.ndarray, "vectors 3"], Int[np.ndarray, " vectors"], Int[np.ndarray, " n_bins"]]:
    """Indices and bins of the vectors of half the space up to `n_bins * bin_width` in 1/Å, and how many there are.

    Of a bin with more than `most` vectors so many are drawn at random, without repetition.

    >>> hkl, bins, counts = vectors(2 * np.pi * np.eye(3), n_bins=3, bin_width=0.5, most=9)
    >>> hkl.tolist(), counts.tolist()  # of (1, 0, 0), (0, 1, 0), (0, 0, 1) and their opposites; |q| < 1.5
    ([[0, 0, 1], [0, 1, -1], [0, 1, 0], [0, 1, 1], [1, -1, 0], [1, 0, -1], [1, 0, 0], [1, 0, 1], [1, 1, 0]], [0, 0, 9])
    """
    reciprocal = 2.0 * pi * np.linalg.inv(cell).T
    limits = np.floor(n_bins * bin_width * np.linalg.norm(cell, axis=1) / (2.0 * pi)).astype(np.int64)
    counts = np.zeros(n_bins, np.int64)
    _walk(reciprocal, limits, bin_width, counts, counts, seed, np.empty((0, 3), np.int32), np.empty(0, np.int64))
    chosen = np.minimum(counts, most)
    hkl, bins = np.empty((int(chosen.sum()), 3), np.int32), np.empty(int(chosen.sum()), np.int64)
    if len(hkl):
        _walk(reciprocal, limits, bin_width, counts, chosen, seed, hkl, bins)
    return hkl, bins, counts


def amplitudes(
    scaled: Float[np.ndarray, "atoms 3"], kinds: Int[np.ndarray, " atoms"], hkl: Int[np.ndarray, "vectors 3"], n: int
) -> Float[np.ndarray, "vectors kinds 2"]:
    """Real and imaginary part of A(q) of the atoms of each of `n` kinds, from their coordinates along the axes."""
    found = np.zeros((len(hkl), n, 2))
    low, high = hkl.min(axis=0), hkl.max(axis=0)
    for kind in range(n):
        phases = 2.0 * pi * (scaled[kinds == kind] % 1.0)
        for begin in range(0, len(phases), BLOCK):
            _add_amplitudes(phases[begin : begin + BLOCK], hkl, low, high, kind, found)
    return found


def chunks(n_vectors: int) -> Iterator[slice]:
    """Stretches of at most `CHUNK` vectors."""
    return (slice(i, min(i + CHUNK, n_vectors)) for i in range(0, n_vectors, CHUNK))
