"""Compiled searches for the rings that are shortest paths between the ends of a bond, or of two bonds of an atom.

Each search writes what it finds to `found` and `sizes`, a fingerprint and a size for each ring, as far as there is
room, and returns how many it met, copies included, and how many bonds or corners no ring closes.
"""

from typing import no_type_check

import numpy as np

from amden.analysis.rings_network import before, record
from amden.compiler import kept


@kept()
@no_type_check
def _meet(a, b, hidden, limit, mark, first, near, seen, parent, queue):
    """Where the shortest paths from a to b meet that a breadth-first search from both ends finds, shorter front first.

    The bond between a and b is not used where `hidden` is -1; else the vertex `hidden` is not. Returns the steps from
    a and from b to the middle, the vertex of the middle that was met first, and the part of `queue[0]` among which the
    others are: those as many steps from b. -1 for the vertex: no path of up to `limit` steps.

    Distances from a and b of the vertices met become `seen[0] - mark` and `seen[1] - mark`, the vertex from which each
    was met first `parent`.
    """
    seen[0, a], seen[1, b] = mark, mark
    queue[0, 0], queue[1, 0] = a, b
    begin, end, steps = np.zeros(2, np.int64), np.ones(2, np.int64), np.zeros(2, np.int64)
    while steps[0] + steps[1] < limit:
        side = 0 if end[0] - begin[0] <= end[1] - begin[1] else 1
        if begin[side] == end[side]:
            break
        steps[side] += 1
        last, middle = end[side], -1
        for at in range(begin[side], last):
            v = queue[side, at]
            for k in range(first[v], first[v + 1]):
                w = near[k]
                if seen[side, w] >= mark or w == hidden:
                    continue
                if hidden == -1 and ((v == a and w == b) or (v == b and w == a)):
                    continue
                seen[side, w], parent[side, w] = mark + steps[side], v
                queue[side, end[side]] = w
                end[side] += 1
                if middle == -1 and seen[1 - side, w] >= mark:
                    middle = w
        begin[side] = last
        if middle != -1:
            return steps[0], steps[1], middle, begin[0], end[0]
    return 0, 0, -1, 0, 0


@kept()
@no_type_check
def closing(n, limit, counted, vertices, first, near, found, sizes):
    """One shortest path that closes each bond: the one that a breadth-first search from both ends meets first."""
    seen = np.zeros((2, len(vertices)), np.int64)
    parent, queue = np.zeros((2, len(vertices)), np.int64), np.zeros((2, len(vertices)), np.int64)
    ring = np.zeros(limit + 1, np.int64)
    mark, count, n_open = 1, 0, 0
    for a in range(n):
        for k in range(first[a], first[a + 1]):
            b = near[k]
            if not before(vertices, a, b):
                continue
            mark += limit + 1
            from_a, from_b, middle, _, _ = _meet(a, b, -1, limit - 1, mark, first, near, seen, parent, queue)
            if middle == -1:
                n_open += 1
                continue
            ring[from_a] = middle
            for step in range(from_a, 0, -1):
                ring[step - 1] = parent[0, ring[step]]
            for step in range(from_a, from_a + from_b):
                ring[step + 1] = parent[1, ring[step]]
            record(ring, from_a + from_b + 1, vertices, counted, count, found, sizes)
            count += 1
    return count, n_open


@kept()
@no_type_check
def _record_all(
    lead, from_a, from_b, middle, mark, first, near, seen, ring, cursor, vertices, counted, count, found, sizes
):
    """Record every shortest path through a vertex of the middle, each closed by the first `lead` vertices of `ring`.

    Depth first: step t goes from the middle towards a, and beyond `from_a` steps from the middle towards b.
    """
    n_steps = from_a + from_b
    ring[lead + from_a] = middle
    cursor[1] = first[middle]
    t = 1
    while t > 0:
        if t > n_steps:
            record(ring, lead + n_steps + 1, vertices, counted, count, found, sizes)
            count += 1
            t -= 1
            continue
        if t <= from_a:
            side, here, place, wanted = 0, ring[lead + from_a - t + 1], lead + from_a - t, mark + from_a - t
        else:
            side, here, place, wanted = 1, ring[lead + t - 1], lead + t, mark + n_steps - t
        while cursor[t] < first[here + 1] and seen[side, near[cursor[t]]] != wanted:
            cursor[t] += 1
        if cursor[t] == first[here + 1]:
            t -= 1
            continue
        ring[place] = near[cursor[t]]
        cursor[t] += 1
        t += 1
        if t <= n_steps:
            cursor[t] = first[ring[lead + from_a]] if t == from_a + 1 else first[ring[place]]
    return count


@kept()
@no_type_check
def guttman(n, limit, counted, vertices, first, near, found, sizes):
    """All shortest paths that close each bond."""
    seen = np.zeros((2, len(vertices)), np.int64)
    parent, queue = np.zeros((2, len(vertices)), np.int64), np.zeros((2, len(vertices)), np.int64)
    ring, cursor = np.zeros(limit + 1, np.int64), np.zeros(limit + 1, np.int64)
    mark, count, n_open = 1, 0, 0
    for a in range(n):
        for k in range(first[a], first[a + 1]):
            b = near[k]
            if not before(vertices, a, b):
                continue
            mark += limit + 1
            i, j, middle, begin, end = _meet(a, b, -1, limit - 1, mark, first, near, seen, parent, queue)
            n_open += middle == -1
            for at in range(begin, end):
                middle = queue[0, at]
                if seen[1, middle] == mark + j:
                    count = _record_all(
                        0, i, j, middle, mark, first, near, seen, ring, cursor, vertices, counted, count, found, sizes
                    )
    return count, n_open


@kept()
@no_type_check
def king(n, limit, counted, vertices, first, near, found, sizes):
    """All shortest paths between each two neighbours of an atom that avoid the atom."""
    seen = np.zeros((2, len(vertices)), np.int64)
    parent, queue = np.zeros((2, len(vertices)), np.int64), np.zeros((2, len(vertices)), np.int64)
    ring, cursor = np.zeros(limit + 1, np.int64), np.zeros(limit + 1, np.int64)
    mark, count, n_open = 1, 0, 0
    for c in range(n):
        for k in range(first[c], first[c + 1]):
            for m in range(first[c], k):
                mark += limit + 1
                i, j, middle, begin, end = _meet(near[m], near[k], c, limit - 2, mark, first, near, seen, parent, queue)
                n_open += middle == -1
                ring[0] = c
                for at in range(begin, end):
                    middle = queue[0, at]
                    if seen[1, middle] == mark + j:
                        count = _record_all(
                            1,
                            i,
                            j,
                            middle,
                            mark,
                            first,
                            near,
                            seen,
                            ring,
                            cursor,
                            vertices,
                            counted,
                            count,
                            found,
                            sizes,
                        )
    return count, n_open
