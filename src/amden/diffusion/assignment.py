"""Likeliest classes of atoms under a constraint on how many there are of each: exact, in milliseconds for thousands.

Bare arrays: what the classes mean is `composition`'s matter. Both functions start from the likeliest class of each atom
and pay as little as possible for what has to change; the cost of giving atom i class c is max_c' ln p_ic' - ln p_ic.
"""

from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import gcd
from typing import Final

import numpy as np
from jaxtyping import Float, Int

_BISECTIONS: Final = 40


def balanced(
    log_p: Float[np.ndarray, "atoms classes"], charges: Int[np.ndarray, " classes"]
) -> Int[np.ndarray, " atoms"]:
    """The likeliest classes whose charges add up to zero.

    A price λ on charge, log p + λ q, changes nothing among neutral choices, so it is set such that the likeliest
    classes with it have a charge Q near zero. A dynamic programme over atoms and charge does the rest. In a cheapest
    solution no changes cancel, so they can be ordered such that the charge never repeats on its way from Q to 0: there
    are at most m = |Q| + 2 D of them, D the largest change. So only the m atoms that are cheapest for each size of
    change need to be looked at.

    Errors: `ValueError` where no classes add up to zero.

    >>> balanced(np.log([[0.6, 0.4], [0.9, 0.1]]), np.array([1, -1])).tolist()
    [1, 0]
    """
    chosen = log_p.argmax(1)
    if charges[chosen].sum() == 0:
        return chosen
    log_p = _priced(log_p, charges)
    chosen = log_p.argmax(1)
    total = int(charges[chosen].sum())
    if total == 0:
        return chosen
    steps = charges[None, :] - charges[chosen][:, None]
    unit = gcd(*(int(s) for s in np.unique(steps)), 0)
    if unit == 0 or total % unit:
        raise ValueError(_no_way(len(log_p), charges))
    steps, debt = steps // unit, -total // unit
    cost = log_p.max(1, keepdims=True) - log_p
    most = abs(debt) + 2 * int(np.abs(steps).max())
    sizes = [int(s) for s in np.unique(steps) if s]
    # of each atom and size of change the cheapest class
    paid = np.stack([np.where(steps == s, cost, np.inf).min(1) for s in sizes], 1)
    classes = np.stack([np.where(steps == s, cost, np.inf).argmin(1) for s in sizes], 1)
    near = np.argsort(paid, axis=0, kind="stable")[:most]
    atoms = np.unique(near[np.isfinite(np.take_along_axis(paid, near, 0))])
    reach = abs(debt) + most * max(map(abs, sizes))
    best = np.full(2 * reach + 1, np.inf)
    best[reach] = 0.0
    moves = np.full((len(atoms), len(best)), -1, np.int16)
    for row, atom in enumerate(atoms):
        after = best.copy()
        for k, s in enumerate(sizes):
            if np.isfinite(paid[atom, k]):
                here = slice(max(s, 0), len(best) + min(s, 0))
                there = slice(max(-s, 0), len(best) + min(-s, 0))
                offer = best[there] + paid[atom, k]
                better = offer < after[here]
                after[here][better] = offer[better]
                moves[row, here][better] = k
        best = after
    place = reach + debt
    if not np.isfinite(best[place]):
        raise ValueError(_no_way(len(log_p), charges))
    for row in range(len(atoms) - 1, -1, -1):
        k = moves[row, place]
        if k >= 0:
            chosen[atoms[row]] = classes[atoms[row], k]
            place -= sizes[k]
    return chosen


def _priced(
    log_p: Float[np.ndarray, "atoms classes"], charges: Int[np.ndarray, " classes"]
) -> Float[np.ndarray, "atoms classes"]:
    """log p + λ q for the λ, found by bisection, whose likeliest classes have a charge nearest to zero."""

    def total(price: float) -> int:
        return int(charges[(log_p + price * charges).argmax(1)].sum())

    high = float(np.ptp(log_p)) + 1.0
    low, best = -high, (abs(total(0.0)), 0.0)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        charge = total(middle)
        best = min(best, (abs(charge), middle))
        if charge == 0:
            break
        low, high = (middle, high) if charge < 0 else (low, middle)
    return log_p + best[1] * charges


def proportioned(
    log_p: Float[np.ndarray, "atoms classes"], parts: Int[np.ndarray, " classes"], *, free: int | None = None
) -> Int[np.ndarray, " atoms"]:
    """The likeliest classes of which there are k · `parts` each for some k ≥ 1, and any number of class `free`.

    The cost is convex in k (it is that of a transportation problem), so k is found by going downhill.

    >>> proportioned(np.log([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3]]), np.array([2, 1])).tolist()
    [1, 0, 0]
    """
    n, unit = len(log_p), int(parts.sum())
    flow = _Flow(log_p)
    if free is None:
        flow.reach(parts * (n // unit))
        return flow.chosen

    units = np.arange(1, n // unit + 1)
    all_k = parts * units[:, None]
    all_k[:, free] += n - units * unit
    k = int(np.abs(all_k - np.bincount(flow.chosen, minlength=len(parts))).sum(1).argmin())
    cost, chosen = flow.reach(all_k[k]), flow.chosen.copy()
    for direction in (1, -1):
        moved = False
        while 0 <= k + direction < len(all_k):
            other = flow.reach(all_k[k + direction])
            if other >= cost:
                break
            k, cost, chosen, moved = k + direction, other, flow.chosen.copy(), True
        if moved:
            break
    return chosen


class _Flow:
    """Cheapest classes for given counts, by successive shortest paths (Ahuja, Magnanti and Orlin 1993, section 9.7).

    The classes are the nodes; moving the cheapest atom of class a to class b is the edge (a, b). The state is always
    the cheapest for its own counts, and stays so when a unit is sent along a shortest path.
    """

    def __init__(self, log_p: Float[np.ndarray, "atoms classes"]) -> None:
        self.chosen = log_p.argmax(1)
        self._log_p, self._classes = log_p, range(log_p.shape[1])
        self._heaps = {(a, b): self._sorted(a, b) for a in self._classes for b in self._classes if a != b}
        self._cost = 0.0

    def reach(self, counts: Int[np.ndarray, " classes"]) -> float:
        """Go to these counts; what the state costs in all."""
        surplus = np.bincount(self.chosen, minlength=len(counts)) - counts
        while surplus.any():
            path = self._shortest(surplus)
            moves = [(self._cheapest(a, b), a, b) for a, b in pairwise(path)]
            for (change, atom), _, b in moves:
                self._cost += change
                self.chosen[atom] = b
                for c in self._classes:
                    if c != b:
                        heappush(self._heaps[b, c], (float(self._log_p[atom, b] - self._log_p[atom, c]), atom))
            surplus[path[0]] -= 1
            surplus[path[-1]] += 1
        return self._cost

    def _sorted(self, a: int, b: int) -> list[tuple[float, int]]:
        atoms = np.flatnonzero(self.chosen == a)
        change = self._log_p[atoms, a] - self._log_p[atoms, b]
        heap = list(zip(change.tolist(), atoms.tolist(), strict=True))
        heapify(heap)
        return heap

    def _cheapest(self, a: int, b: int) -> tuple[float, int]:
        """The least change of cost, and the atom; entries of atoms that have left the class are thrown away."""
        heap = self._heaps[a, b]
        while heap and self.chosen[heap[0][1]] != a:
            heappop(heap)
        return heap[0] if heap else (np.inf, -1)

    def _shortest(self, surplus: Int[np.ndarray, " classes"]) -> list[int]:
        """The cheapest path from a class of too many to one of too few (Bellman and Ford)."""
        n = len(surplus)
        weight = np.full((n, n), np.inf)
        for a, b in self._heaps:
            weight[a, b] = self._cheapest(a, b)[0]
        distance = np.where(surplus > 0, 0.0, np.inf)
        before = np.full(n, -1)
        for _ in range(n):
            offer = distance[:, None] + weight
            source = offer.argmin(0)
            found = offer[source, np.arange(n)]
            better = found < distance - 1e-12
            distance, before = np.where(better, found, distance), np.where(better, source, before)
        node = int(np.where(surplus < 0, distance, np.inf).argmin())
        path = [node]
        while before[path[-1]] >= 0:
            path.append(int(before[path[-1]]))
        return path[::-1]


def _no_way(n: int, charges: Int[np.ndarray, " classes"]) -> str:
    return f"no choice of elements makes {n} atoms neutral: their formal charges are {sorted(set(charges.tolist()))}"
