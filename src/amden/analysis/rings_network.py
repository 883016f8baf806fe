"""The infinite network of a periodic system, as far as a search for rings needs it: compiled.

A vertex is an atom with an integer lattice offset, so a ring closes only if it comes back to the same image, however
small the cell. The searches walk a `patch`: all vertices within `depth` bonds of the home cell, numbered with the atoms
of the home cell first. A ring of up to 2 depth + 1 vertices through an atom at home lies inside, with every shortest
path between its vertices, once these are moved home.

A ring may be met more than once, from several of its bonds. `record` gives it a fingerprint of 64 bits, a sum over its
bonds that is the same for all images of the ring: two of a million rings share one with a probability of 3e-8.
"""

from typing import no_type_check

import numpy as np

from amden.compiler import kept

HALF = 1 << 14
"""Offsets must be below this, and so fit into 45 bits."""

MOST_ATOMS = 1 << 18
"""So that atom and offset fit into 63 bits."""


@kept()
@no_type_check
def vertex_key(atom, x, y, z):
    """One number for an atom and its offset, not negative."""
    return (((np.int64(atom) * (2 * HALF) + x + HALF) * (2 * HALF)) + y + HALF) * (2 * HALF) + z + HALF


@kept()
@no_type_check
def _mixed(key):
    """A number that looks random (finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    h = np.uint64(key) + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@kept()
@no_type_check
def slot(key, keys):
    """Place of a key in the hash table, or the empty place where it belongs."""
    mask = np.int64(len(keys) - 1)
    at = np.int64(_mixed(key) & np.uint64(mask))
    while keys[at] != -1 and keys[at] != key:
        at = (at + 1) & mask
    return at


@kept()
@no_type_check
def patch(start, target, shift, depth, vertices, keys, ids):
    """Vertices (atom and offset) within `depth` bonds of the home cell, into rows of `vertices`; their number.

    Bond k = start[i] … start[i + 1] - 1 of atom i leads to atom target[k] in the cell shift[k]. `keys` and `ids` become
    the table of the vertices' numbers. -1: there is too little room.
    """
    n = len(start) - 1
    keys[:] = -1
    for i in range(n):
        at = slot(vertex_key(i, 0, 0, 0), keys)
        keys[at], ids[at] = vertex_key(i, 0, 0, 0), i
        vertices[i, 0], vertices[i, 1], vertices[i, 2], vertices[i, 3] = i, 0, 0, 0
    count, begin = n, 0
    for _ in range(depth):
        end = count
        for v in range(begin, end):
            i = vertices[v, 0]
            for k in range(start[i], start[i + 1]):
                x, y, z = vertices[v, 1] + shift[k, 0], vertices[v, 2] + shift[k, 1], vertices[v, 3] + shift[k, 2]
                key = vertex_key(target[k], x, y, z)
                at = slot(key, keys)
                if keys[at] == -1:
                    if count == len(vertices):
                        return -1
                    keys[at], ids[at] = key, count
                    vertices[count, 0], vertices[count, 1] = target[k], x
                    vertices[count, 2], vertices[count, 3] = y, z
                    count += 1
        begin = end
    return count


@kept()
@no_type_check
def bonds(start, target, shift, vertices, keys, ids, first, near):
    """Neighbours of vertex v inside the patch, into near[first[v] : first[v + 1]], in the order of the bonds."""
    count = 0
    for v in range(len(vertices)):
        first[v] = count
        i = vertices[v, 0]
        for k in range(start[i], start[i + 1]):
            x, y, z = vertices[v, 1] + shift[k, 0], vertices[v, 2] + shift[k, 1], vertices[v, 3] + shift[k, 2]
            at = slot(vertex_key(target[k], x, y, z), keys)
            if keys[at] != -1:
                near[count] = ids[at]
                count += 1
    first[len(vertices)] = count


@kept()
@no_type_check
def before(vertices, v, w):
    """Whether vertex v comes before w in an order that moving both by a lattice vector does not change."""
    for c in range(4):
        if vertices[v, c] != vertices[w, c]:
            return vertices[v, c] < vertices[w, c]
    return False


@kept()
@no_type_check
def record(ring, length, vertices, counted, count, found, sizes):
    """Write fingerprint and size of the ring, if there is room."""
    if count >= len(found):
        return
    origin, size = ring[0], 0
    for k in range(length):
        size += counted[vertices[ring[k], 0]]
        if before(vertices, ring[k], origin):
            origin = ring[k]
    x, y, z = vertices[origin, 1], vertices[origin, 2], vertices[origin, 3]
    v = ring[length - 1]
    last = _mixed(vertex_key(vertices[v, 0], vertices[v, 1] - x, vertices[v, 2] - y, vertices[v, 3] - z))
    total = np.uint64(0)
    for k in range(length):
        v = ring[k]
        here = _mixed(vertex_key(vertices[v, 0], vertices[v, 1] - x, vertices[v, 2] - y, vertices[v, 3] - z))
        total += _mixed(here + last)
        last = here
    found[count], sizes[count] = total, size
