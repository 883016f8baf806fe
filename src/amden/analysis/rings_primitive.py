"""Compiled search for primitive rings: those without a shortcut, a path between two vertices that beats the ring."""

from typing import no_type_check

import numpy as np

from amden.analysis.rings_network import before, record, slot, vertex_key
from amden.compiler import kept

FAR = 255
"""Distance of vertices too far to matter."""


@kept()
@no_type_check
def distances(n, depth, first, near):
    """Bonds between atom i at home and vertex v in row i, column v; `FAR` beyond `depth`."""
    table = np.full((n, len(first) - 1), FAR, np.uint8)
    queue = np.zeros(table.shape[1], np.int64)
    for i in range(n):
        table[i, i], queue[0] = 0, i
        begin, end = 0, 1
        while begin < end and table[i, queue[begin]] < depth:
            v = queue[begin]
            begin += 1
            for k in range(first[v], first[v + 1]):
                if table[i, near[k]] == FAR:
                    table[i, near[k]] = table[i, v] + 1
                    queue[end] = near[k]
                    end += 1
    return table


@kept()
@no_type_check
def _apart(v, w, vertices, keys, ids, table):
    """Bonds between two vertices, or `FAR`: v is moved home."""
    x, y, z = vertices[w, 1] - vertices[v, 1], vertices[w, 2] - vertices[v, 2], vertices[w, 3] - vertices[v, 3]
    at = slot(vertex_key(vertices[w, 0], x, y, z), keys)
    return table[vertices[v, 0], ids[at]] if keys[at] != -1 else FAR


@kept()
@no_type_check
def _no_shortcut(ring, level, length, vertices, keys, ids, table):
    """Whether the two vertices `level` bonds from ring[0] are as far from each other and their opposites as the ring.

    A ring without shortcuts between opposite vertices has none at all. Those nearer to ring[0] are not set yet.
    """
    left, right, half = level, length - level, length // 2
    if _apart(ring[left], ring[right], vertices, keys, ids, table) != min(2 * level, length - 2 * level):
        return False
    for opposite in (left + half, left + length - half):
        if opposite <= right and _apart(ring[left], ring[opposite], vertices, keys, ids, table) != half:
            return False
    for opposite in (right - half, right - length + half):
        if opposite >= left and _apart(ring[right], ring[opposite], vertices, keys, ids, table) != half:
            return False
    return True


@kept()
@no_type_check
def _record_primitive(top, length, first, near, ring, cursor, vertices, counted, keys, ids, table, count, found, sizes):
    """Record the primitive rings that go from ring[top] and ring[length - top] straight down to ring[0]."""
    v, level = ring[0], top
    if not _no_shortcut(ring, level, length, vertices, keys, ids, table):
        return count
    cursor[level] = 0
    while level <= top:
        if level == 1:
            record(ring, length, vertices, counted, count, found, sizes)
            count += 1
            level += 1
            continue
        p, q = ring[level], ring[length - level]
        width = first[q + 1] - first[q]
        deeper = False
        while not deeper and cursor[level] < (first[p + 1] - first[p]) * width:
            row, column = divmod(cursor[level], width)
            x, y = near[first[p] + row], near[first[q] + column]
            if table[v, x] != level - 1 or not before(vertices, v, x):
                cursor[level] = (row + 1) * width
                continue
            cursor[level] += 1
            if x != y and table[v, y] == level - 1 and before(vertices, v, y):
                ring[level - 1], ring[length - level + 1] = x, y
                deeper = _no_shortcut(ring, level - 1, length, vertices, keys, ids, table)
        if deeper:
            level -= 1
            cursor[level] = 0
        else:
            level += 1
    return count


@kept()
@no_type_check
def primitive(n, limit, counted, vertices, first, near, keys, ids, table, found, sizes):
    """All rings without a shortcut, each from its first vertex v: up to the opposite vertex or bond, and back."""
    ring, cursor = np.zeros(limit, np.int64), np.zeros(limit, np.int64)
    count = 0
    for v in range(n):
        ring[0] = v
        for w in range(len(vertices)):
            far = np.int64(table[v, w])
            if far > limit // 2 or not before(vertices, v, w):
                continue
            for k in range(first[w], first[w + 1]):
                p = near[k]
                if not before(vertices, v, p):
                    continue
                if table[v, p] == far and w < p and 2 * far < limit:
                    ring[far], ring[far + 1] = w, p
                    count = _record_primitive(
                        far,
                        2 * far + 1,
                        first,
                        near,
                        ring,
                        cursor,
                        vertices,
                        counted,
                        keys,
                        ids,
                        table,
                        count,
                        found,
                        sizes,
                    )
                elif table[v, p] == far - 1:
                    for m in range(first[w], k):
                        q = near[m]
                        if table[v, q] == far - 1 and before(vertices, v, q):
                            ring[far - 1], ring[far], ring[far + 1] = p, w, q
                            count = _record_primitive(
                                far - 1,
                                2 * far,
                                first,
                                near,
                                ring,
                                cursor,
                                vertices,
                                counted,
                                keys,
                                ids,
                                table,
                                count,
                                found,
                                sizes,
                            )
    return count, 0
