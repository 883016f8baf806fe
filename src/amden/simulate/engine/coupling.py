"""Thermostat, barostat and samples: what one thread of a system does every few steps with the sums over its atoms.

Thermostat: stochastic velocity rescaling (Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007)).
Barostat: isotropic stochastic cell rescaling (Bernetti, Bussi, J. Chem. Phys. 153, 114107 (2020)), in λ = √V:

    dλ = -(β λ / 2τ) (P0 - P - kT/2V) dt + √(kT β / 2τ) dW,    P = (2K/3 + kT - W/3) / V

with K the kinetic energy and W = Σ r ∂E/∂r. Positions scale with L = V^⅓, velocities with 1/L. The term kT in P stands
for the centre of mass, whose momentum is fixed at zero: with it the volumes are those of the full NPT ensemble.

Both act between the kick and the drift, on the velocities half a step after the positions: there the canonical K is
that of the thermostat, and the error of the configurations in the time step is smallest (the "middle" scheme, Zhang
et al., J. Chem. Phys. 147, 034109 (2017)).
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from amden.simulate.engine.stream import BAROSTAT, FIRST, THERMOSTAT, stream
from amden.units import EV_PER_A3_IN_GPA, KB

KINETIC, KINETIC_ON_STEP, ENERGY, VIRIAL, OVERFLOW, MASS, PX, PY, PZ = range(9)
"""Sums over the atoms of a system: `total[...]`."""
N_SUMS = 9

TEMPERATURE, TEMPERATURE_END, PRESSURE, TIMESTEP, TAU_T, TAU_P, COMPRESSIBILITY, MAX_DISPLACEMENT = range(8)
"""The segment in numbers: `plan[...]`; eV/Å³ for GPa, 0 temperature for NVE, nan pressure for constant volume."""

LIMIT2, STRETCH, SCALE, DRIFT_X, DRIFT_Y, DRIFT_Z = range(6)
"""What all threads of a system read: `control[...]`."""
N_CONTROLS = 6

N_OBSERVABLES = 5
N_SAMPLES = 4 * N_OBSERVABLES
RECORD = N_SAMPLES + 1
"""A record: sums less the first sample, sums of squares of that, last sample, first sample, number of samples."""

_HOTTEST = 1e6
"""K; a system hotter than this has blown up."""
_FRACTION = 2.0**-32


@lru_cache(maxsize=4)
def attendant(jit: Callable[[Callable], Any]) -> Any:
    """`attend(n, seed, when, last, reaches, plan, cell, record, work)`.

    Takes a sample, looks for failures and, unless this is the `last` step, moves thermostat and barostat. Returns the
    number of a failure or 0. `when` is the step, the progress along the ramp from 0 to 1 and the time in ps since the
    last visit; `reaches` the shortest and the longest cutoff, the skin of the lists and the image cutoff; `work` the
    `Workspace`.
    """
    update, sample, check, couple = metrics(jit), _sampler(jit), _checker(jit), _coupler(jit)

    def attend(n, seed, when, last, reaches, plan, cell, record, work):
        shortest, longest, skin, image_cutoff = reaches
        total, control = work.total, work.control
        volume = update(cell, plan[TIMESTEP], work.metric, work.drift)
        soft = plan[MAX_DISPLACEMENT] < math.inf
        failure = check(n, total, cell, volume, image_cutoff, soft)
        if failure != 0:
            return failure
        sample(n, volume, total, record)
        if last:
            return 0
        control[DRIFT_X] = total[PX] / total[MASS] if soft else 0.0
        control[DRIFT_Y] = total[PY] / total[MASS] if soft else 0.0
        control[DRIFT_Z] = total[PZ] / total[MASS] if soft else 0.0
        if couple(n, seed, when, total, plan, volume, cell, control):
            update(cell, plan[TIMESTEP], work.metric, work.drift)
            growth = control[STRETCH] - 1.0
            spare = max(control[STRETCH] * skin + min(growth * shortest, growth * longest), 0.0) * 0.5
            control[LIMIT2] = spare * spare
        return 0

    return jit(attend)


@lru_cache(maxsize=4)
def metrics(jit: Callable[[Callable], Any]) -> Any:
    """`update(cell, timestep, metric, drift)`: the float32 matrices for displacements and drifts; returns the volume.

    `metric` takes integer fractions to Å, `drift` takes Å/ps to integer fractions a step.
    """

    def update(cell, timestep, metric, drift):
        volume = 0.0
        for d in range(3):
            p, q = (d + 1) % 3, (d + 2) % 3
            volume += cell[0, d] * (cell[1, p] * cell[2, q] - cell[1, q] * cell[2, p])
        factor = timestep / (volume * _FRACTION)
        for d in range(3):
            p, q = (d + 1) % 3, (d + 2) % 3
            for e in range(3):
                r, s = (e + 1) % 3, (e + 2) % 3
                metric[3 * e + d] = cell[e, d] * _FRACTION
                drift[3 * d + e] = (cell[r, p] * cell[s, q] - cell[r, q] * cell[s, p]) * factor
        return abs(volume)

    return jit(update)


def _sampler(jit: Callable[[Callable], Any]) -> Any:
    """`sample(n, volume, total, record)`: adds one sample to a record."""

    def sample(n, volume, total, record):
        values = (
            2.0 * total[KINETIC] / ((3 * n - 3) * KB),
            total[ENERGY] / n,
            (total[ENERGY] + total[KINETIC_ON_STEP]) / n,
            (2.0 * total[KINETIC] - total[VIRIAL]) / (3.0 * volume) * EV_PER_A3_IN_GPA,
            volume,
        )
        for q in range(N_OBSERVABLES):
            if record[N_SAMPLES] == 0:
                record[3 * N_OBSERVABLES + q] = values[q]
            change = values[q] - record[3 * N_OBSERVABLES + q]
            record[q] += change
            record[N_OBSERVABLES + q] += change * change
            record[2 * N_OBSERVABLES + q] = values[q]
        record[N_SAMPLES] += 1

    return jit(sample)


def _checker(jit: Callable[[Callable], Any]) -> Any:
    """`check(n, total, cell, volume, cutoff, soft)`: 0 or the number of a failure (`FAILURES`)."""

    def check(n, total, cell, volume, cutoff, soft):
        hottest = math.inf if soft else _HOTTEST
        if total[OVERFLOW] > 0:
            return 2
        if not total[KINETIC] < 1.5 * n * KB * hottest or not abs(total[ENERGY]) < math.inf:
            return 1
        for d in range(3):
            e, f = (d + 1) % 3, (d + 2) % 3
            area2 = 0.0
            for p in range(3):
                q, r = (p + 1) % 3, (p + 2) % 3
                area2 += (cell[e, q] * cell[f, r] - cell[e, r] * cell[f, q]) ** 2
            if volume * volume < 4.0 * cutoff * cutoff * area2:
                return 3
        return 0

    return jit(check)


def _coupler(jit: Callable[[Callable], Any]) -> Any:
    """`couple(n, seed, when, total, plan, volume, cell, control)`: a move of both; returns whether the cell changed."""
    normals, chi_squared = stream(jit)

    def rescaling(kinetic, kT, n, seed, step, decay):
        degrees = 3 * n - 3
        share = 0.5 * kT / kinetic
        r, _, _ = normals(seed, step, FIRST, THERMOSTAT)
        others = chi_squared(degrees - 1, seed, step, THERMOSTAT)
        new = decay + share * (1.0 - decay) * (r * r + others) + 2.0 * r * math.sqrt(decay * (1.0 - decay) * share)
        return math.sqrt(max(new, 0.0))

    rescaling = jit(rescaling)

    def stretch(kinetic, virial, volume, kT, plan, seed, step, elapsed):
        speed = 0.5 * plan[COMPRESSIBILITY] / plan[TAU_P] * elapsed
        pressure = (2.0 * kinetic / 3.0 + kT - virial / 3.0) / volume
        r, _, _ = normals(seed, step, FIRST, BAROSTAT)
        change = -speed * (plan[PRESSURE] - pressure - 0.5 * kT / volume) + r * math.sqrt(kT * speed / volume)
        return max(1.0 + change, 0.1) ** (2.0 / 3.0)

    stretch = jit(stretch)

    def couple(n, seed, when, total, plan, volume, cell, control):
        step, progress, elapsed = when
        kT = KB * (plan[TEMPERATURE] + (plan[TEMPERATURE_END] - plan[TEMPERATURE]) * progress)
        if kT <= 0.0:
            control[SCALE] = 1.0
            return False
        scale = 1.0
        if total[KINETIC] > 0.0:
            scale = rescaling(total[KINETIC], kT, n, seed, step, math.exp(-elapsed / plan[TAU_T]))
        if math.isnan(plan[PRESSURE]):
            control[SCALE] = scale
            return False
        grown = stretch(total[KINETIC] * scale * scale, total[VIRIAL], volume, kT, plan, seed, step, elapsed)
        for d in range(3):
            for e in range(3):
                cell[d, e] *= grown
        control[SCALE] = scale / grown
        control[STRETCH] *= grown
        return True

    return jit(couple)
