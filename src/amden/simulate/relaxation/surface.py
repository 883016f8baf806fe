"""The energy surface of one system and its gradient, in coordinates that L-BFGS moves in.

Atoms are at q F and lattice vectors (rows) at cell₀ F with F = 1 + S symmetric, so the cell is stretched and never
rotates. Coordinates are q and c S, its off-diagonal elements times √2, with c = √n Å: then the cell is about as stiff
as an atom, whatever its size. With the forces f, the stress σ (tension positive) and the pressure P

    H = E + P V,    ∂H/∂q = -f F,    ∂H/∂S = sym F⁻¹ (σ + P) V
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.potentials.potential import Potential, Tools
from amden.simulate.relaxation import lists
from amden.simulate.relaxation import workspace as w
from amden.simulate.relaxation.charges import charger

_LANES = 16
"""Threads that add up the shares of all threads."""
_ROOT2 = math.sqrt(2.0)


@lru_cache(maxsize=4)
def gatherer(machine: w.Machine) -> Any:
    """`gather(thread, n_threads, n_sums, n_rows, partial, total)`: sums over the threads, then largest values."""
    sync = machine.sync

    def gather(thread, n_threads, n_sums, n_rows, partial, total):
        lanes = min(_LANES, n_threads)
        sync()
        if thread < lanes:
            for row in range(n_rows):
                value = partial[row, thread]
                for other in range(thread + lanes, n_threads, lanes):
                    value = value + partial[row, other] if row < n_sums else max(value, partial[row, other])
                partial[row, thread] = value
        sync()
        for row in range(thread, n_rows, n_threads):
            value = partial[row, 0]
            for other in range(1, lanes):
                value = value + partial[row, other] if row < n_sums else max(value, partial[row, other])
            total[row] = value
        sync()

    return machine.jit(gather)


@lru_cache(maxsize=4)
def inverter(jit: Callable[[Callable], Any]) -> Any:
    """`invert(matrix, inverse)`; returns the determinant."""

    def invert(matrix, inverse):
        volume = 0.0
        for d in range(3):
            p, q = (d + 1) % 3, (d + 2) % 3
            volume += matrix[0, d] * (matrix[1, p] * matrix[2, q] - matrix[1, q] * matrix[2, p])
        for d in range(3):
            p, q = (d + 1) % 3, (d + 2) % 3
            for e in range(3):
                r, s = (e + 1) % 3, (e + 2) % 3
                inverse[d, e] = (matrix[r, p] * matrix[s, q] - matrix[r, q] * matrix[s, p]) / volume
        return volume

    return jit(invert)


def wearer(jit: Callable[[Callable], Any]) -> Any:
    """`wear_out(thread, n_threads, work)`: makes the neighbours be listed anew before the next evaluation."""

    def wear_out(thread, n_threads, work):
        for d in range(thread, 3, n_threads):
            for e in range(3):
                work.frames[w.LISTED_AT, d, e] = math.nan

    return jit(wear_out)


def placer(machine: w.Machine, potential: Potential) -> Any:
    """`place(thread, n_threads, n, q, cell0, work)`: cell and positions that belong to coordinates.

    Returns the volume, 0 if F is not positive definite, and whether the neighbours must be listed anew.
    """
    jit, sync, any_thread = machine.jit, machine.sync, machine.any
    frame = _framer(jit)
    cutoff, reach = potential.cutoff, potential.cutoff + lists.SKIN

    def spare(work):
        """How far an atom may have moved beside the stretch of the cell."""
        change = 0.0
        for d in range(3):
            for e in range(3):
                x = -1.0 if d == e else 0.0
                for k in range(3):
                    x += work.frames[w.LISTED_AT, d, k] * work.frames[w.STRETCH, k, e]
                change += x * x
        return 0.5 * ((1.0 - math.sqrt(change)) * reach - cutoff)

    spare = jit(spare)

    def place(thread, n_threads, n, q, cell0, work):
        rows, f = n + w.STRAIN_ROWS, work.frames[w.STRETCH]
        sync()
        if thread == 0:
            work.total[0] = frame(n, q, cell0, work)
        sync()
        volume, limit = work.total[0], spare(work)
        worn = limit <= 0.0
        for i in range(thread, n, n_threads):
            moved = 0.0
            for d in range(3):
                x = u = 0.0
                for k in range(3):
                    x += q[k * rows + i] * f[k, d]
                    u += (q[k * rows + i] - work.origin[k * rows + i]) * f[k, d]
                work.place[d, i] = x
                moved += u * u
            worn = worn or not moved < limit * limit
        return volume, any_thread(worn)

    return jit(place)


def _framer(jit: Callable[[Callable], Any]) -> Any:
    """`frame(n, q, cell0, work)`: F, the cell and its inverse; returns the volume as `place` does."""
    invert = inverter(jit)

    def frame(n, q, cell0, work):
        f, rows, scale = work.frames[w.STRETCH], n + w.STRAIN_ROWS, 1.0 / math.sqrt(float(n))
        for d in range(3):
            e, g = (d + 1) % 3, (d + 2) % 3
            f[d, d] = 1.0 + scale * q[d * rows + n]
            f[e, g] = f[g, e] = scale / _ROOT2 * q[d * rows + n + 1]
        for d in range(3):
            for e in range(3):
                work.frames[w.CELL, d, e] = cell0[d, 0] * f[0, e] + cell0[d, 1] * f[1, e] + cell0[d, 2] * f[2, e]
        minor = f[0, 0] * f[1, 1] - f[0, 1] * f[0, 1]
        rest = f[2, 2] * minor + 2.0 * f[0, 1] * f[1, 2] * f[0, 2]
        rest -= f[0, 0] * f[1, 2] * f[1, 2] + f[1, 1] * f[0, 2] * f[0, 2]
        volume = abs(invert(work.frames[w.CELL], work.frames[w.INVERSE]))
        return volume if f[0, 0] > 0.0 and minor > 0.0 and rest > 0.0 else 0.0

    return jit(frame)


def relister(machine: w.Machine, potential: Potential) -> Any:
    """`relist(thread, n_threads, n, q, work)`: lists the neighbours at `work.place`; returns whether all have room."""
    build, any_thread = lists.lister(machine.jit, potential), machine.any
    invert = inverter(machine.jit)

    def relist(thread, n_threads, n, q, work):
        if thread == 0:
            invert(work.frames[w.STRETCH], work.frames[w.LISTED_AT])
        for k in range(thread, len(q), n_threads):
            work.origin[k] = q[k]
        return not any_thread(build(thread, n_threads, n, work))

    return machine.jit(relist)


def _tools(machine: w.Machine) -> Tools:
    jit, index, root = machine.jit, machine.index, machine.rsqrt

    def neighbor(geometry, i, k):
        vector = geometry.vector
        return geometry.near[k, i], vector[0, k, i], vector[1, k, i], vector[2, k, i]

    def add_virial(total, x, y, z, gx, gy, gz):
        xx, yy, zz, yz, xz, xy = total
        return xx + x * gx, yy + y * gy, zz + z * gz, yz + y * gz, xz + x * gz, xy + x * gy

    return Tools(
        jit=jit,
        real=float,
        index=index,
        exp=jit(lambda x: math.exp(x)),
        log=jit(lambda x: math.log(x)),
        sin=jit(lambda x: math.sin(x)),
        cos=jit(lambda x: math.cos(x)),
        acos=jit(lambda x: math.acos(x)),
        rsqrt=jit(lambda x: root(x) if x > 0.0 else math.nan),
        inverse=jit(lambda x: 1.0 / x),
        n_near=jit(lambda geometry, i: index(geometry.counts[1, i])),
        neighbor=jit(neighbor),
        span2=jit(lambda geometry, i, k, r2: geometry.vector[3, k, i]),
        species=jit(lambda geometry, i: geometry.species[i]),
        no_virial=jit(lambda: (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        add_virial=jit(add_virial),
    )


def measurer(machine: w.Machine, potential: Potential) -> Any:
    """`measure(thread, n_threads, n, gradient, work)`: energy, virial and forces at `work.place`.

    The gradient along the atoms is left in `gradient`; in `work.total` the energy, the virial V σ (xx, yy, zz,
    yz, xz, xy) and the square of the largest force.
    """
    tools = _tools(machine)
    first, second = potential.short_phases(tools) if isinstance(potential, LongRanged) else potential.phases(tools)
    charges = charger(machine, potential, tools)
    select, gather, sync = lists.selector(machine.jit, potential), gatherer(machine), machine.sync

    def measure(thread, n_threads, n, gradient, work):
        rows, f, partial = n + w.STRAIN_ROWS, work.frames[w.STRETCH], work.partial
        geometry = w.Geometry(work.near, work.vector, work.counts, work.species)
        for i in range(thread, n, n_threads):
            select(i, work)
            first(i, geometry, work.moments)
        sync()
        energy = xx = yy = zz = yz = xz = xy = largest = 0.0
        for i in range(thread, n, n_threads):
            fx, fy, fz, e, (vxx, vyy, vzz, vyz, vxz, vxy) = second(i, geometry, work.moments)
            energy += e
            xx, yy, zz, yz, xz, xy = xx + vxx, yy + vyy, zz + vzz, yz + vyz, xz + vxz, xy + vxy
            gx, gy, gz, e, (vxx, vyy, vzz, vyz, vxz, vxy) = charges(i, work)
            fx, fy, fz = fx + gx, fy + gy, fz + gz
            for d in range(3):
                gradient[d * rows + i] = -(fx * f[d, 0] + fy * f[d, 1] + fz * f[d, 2])
            energy += e
            xx, yy, zz, yz, xz, xy = xx + vxx, yy + vyy, zz + vzz, yz + vyz, xz + vxz, xy + vxy
            largest = max(largest, fx * fx + fy * fy + fz * fz)
        partial[0, thread], partial[7, thread] = energy, largest
        partial[1, thread], partial[2, thread], partial[3, thread] = 0.5 * xx, 0.5 * yy, 0.5 * zz
        partial[4, thread], partial[5, thread], partial[6, thread] = 0.5 * yz, 0.5 * xz, 0.5 * xy
        gather(thread, n_threads, 7, 8, partial, work.total)

    return machine.jit(measure)


def strainer(machine: w.Machine) -> Any:
    """`strain(n, volume, plan, cell0, gradient, work)`: the gradient along the coordinates of the cell.

    One thread does it, from `work.total`. Returns the largest component of σ + P in eV/Å³.
    """

    def loads(d, e, volume, plan, total):
        """V (σ + P)."""
        push = plan[w.PRESSURE] * volume if d == e else 0.0
        return total[1 + (d if d == e else 6 - d - e)] + push

    loads = machine.jit(loads)

    def slope(d, e, volume, plan, cell0, work):
        """F⁻¹ (σ + P) V, with F⁻¹ = cell⁻¹ cell₀."""
        value = 0.0
        for k in range(3):
            unstretch = 0.0
            for m in range(3):
                unstretch += work.frames[w.INVERSE, d, m] * cell0[m, k]
            value += unstretch * loads(k, e, volume, plan, work.total)
        return value

    slope = machine.jit(slope)

    def strain(n, volume, plan, cell0, gradient, work):
        rows, scale, largest = n + w.STRAIN_ROWS, 1.0 / math.sqrt(float(n)), 0.0
        if plan[w.FREE_CELL] == 0.0:
            scale = 0.0
        for d in range(3):
            e, g = (d + 1) % 3, (d + 2) % 3
            sheared = slope(e, g, volume, plan, cell0, work) + slope(g, e, volume, plan, cell0, work)
            gradient[d * rows + n] = scale * slope(d, d, volume, plan, cell0, work)
            gradient[d * rows + n + 1] = scale / _ROOT2 * sheared
            for k in range(3):
                largest = max(largest, abs(loads(d, k, volume, plan, work.total)) / volume)
        return largest

    return machine.jit(strain)
