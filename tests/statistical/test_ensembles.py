"""The engine's ensembles against what statistical mechanics says, not against another thermostat."""

import numpy as np
import pytest
from scipy.stats import gamma, kstest

from amden.simulate.engine import Segment, run, thermal_state
from amden.simulate.packing import random_packing
from amden.simulate.potentials import StillingerWeber
from amden.units import AMU_A2_PER_PS2, EV_PER_A3_IN_GPA, KB

SW = StillingerWeber()
MASS = 28.085 * AMU_A2_PER_PS2


def packed(n_systems, n, *, volume, temperature, min_distance=2.2):
    starts = [random_packing(n, volume=volume, min_distance=min_distance, seed=seed) for seed in range(n_systems)]
    return thermal_state(
        SW,
        np.concatenate([positions for positions, _ in starts]),
        cell=np.stack([cell for _, cell in starts]),
        n_atoms=np.full(n_systems, n),
        seed=np.arange(n_systems),
        temperature=temperature,
    )


def sample(state, segment, *, every, skip=0):
    """Final values of launches of `every` steps: temperatures and volumes [launches, systems]."""
    if skip:
        state, _ = run(state, SW, segment, n_steps=skip)
    temperatures, volumes = [], []
    for first in range(skip, segment.n_steps, every):
        state, record = run(state, SW, segment, first_step=first, n_steps=every)
        assert not record.failed.any()
        temperatures.append(record.final.temperature)
        volumes.append(record.final.volume)
    return np.array(temperatures), np.array(volumes)


def kinetic_law(n, temperature):
    """Temperatures of 3n - 3 degrees of freedom: K is kT times a gamma variable of half as many."""
    degrees = 3 * n - 3
    return gamma(0.5 * degrees, scale=2.0 * temperature / degrees)


def test_thermal_velocities_are_maxwell_boltzmann():
    state = packed(400, 16, volume=1000.0, temperature=1000.0, min_distance=0.0)
    velocities = state.velocities.reshape(400, 16, 3).astype(float)
    np.testing.assert_allclose(velocities.sum(axis=1), 0.0, atol=1e-4)
    kinetic = 0.5 * MASS * (velocities**2).sum(axis=(1, 2))
    assert kstest(2.0 * kinetic / (45 * KB), kinetic_law(16, 1000.0).cdf).pvalue > 1e-3
    components = velocities.ravel() / np.sqrt(KB * 1000.0 / MASS * 15 / 16)
    assert kstest(components, "norm").pvalue > 1e-3


def test_thermostat_gives_the_canonical_kinetic_energy():
    """The samples end each launch, so they come from the thermostat at work, not from its target."""
    segment = Segment(7000, temperature=(2000.0, 2000.0), tau_T=0.02)
    temperatures, _ = sample(packed(24, 24, volume=620.0, temperature=2000.0), segment, every=101, skip=940)
    law = kinetic_law(24, 2000.0)
    assert temperatures.mean() == pytest.approx(law.mean(), rel=0.01)
    assert temperatures.var() == pytest.approx(law.var(), rel=0.15)
    assert kstest(temperatures[::3].ravel(), law.cdf).pvalue > 1e-3


def test_ideal_gas_has_the_exact_volumes():
    """p(V) ~ V^n exp(-PV/kT): a gamma law of n + 1. Silicon at 10⁵ K and 10⁻⁵ Å⁻³ is an ideal gas within 0.1 %."""
    n, volume, temperature = 4, 4.0e5, 1.0e5
    pressure = (n + 1) * KB * temperature / volume * EV_PER_A3_IN_GPA
    segment = Segment(
        24_000,
        temperature=(temperature, temperature),
        pressure=pressure,
        tau_T=0.05,
        tau_P=0.5,
        compressibility=1.0 / pressure,
    )
    _, volumes = sample(packed(48, n, volume=volume, temperature=temperature), segment, every=2000, skip=4000)
    law = gamma(n + 1, scale=volume / (n + 1))
    assert volumes.mean() == pytest.approx(law.mean(), rel=0.05)
    assert volumes.std() == pytest.approx(law.std(), rel=0.08)
    assert kstest(volumes[::2].ravel(), law.cdf).pvalue > 1e-3


def test_volumes_at_two_pressures_have_the_boltzmann_ratio():
    """p1(V)/p2(V) ~ exp(-(P1 - P2)V/kT) for liquid silicon (Shirts, J. Chem. Theory Comput. 9, 909 (2013)).

    The logistic regression of the pressure on the volume has the slope (P1 - P2)/kT.
    """
    temperature, difference = 3000.0, 3.0
    state = packed(16, 32, volume=700.0, temperature=temperature)
    low, high = (
        sample(state, Segment(8000, temperature=(temperature,) * 2, pressure=p, tau_P=0.5), every=250, skip=2000)[1]
        for p in (2.0, 2.0 + difference)
    )
    expected = difference / EV_PER_A3_IN_GPA / (KB * temperature)
    assert slope(low.ravel(), high.ravel()) == pytest.approx(expected, rel=0.2)


def slope(low, high):
    """Maximum likelihood of p(low | V) = 1 / (1 + exp(-(a + b V))), by Newton's method."""
    volume = np.concatenate([low, high])
    is_low = np.concatenate([np.ones(len(low)), np.zeros(len(high))])
    design = np.stack([np.ones_like(volume), (volume - volume.mean()) / volume.std()], axis=1)
    weights = np.zeros(2)
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-design @ weights))
        curvature = design.T @ (design * (p * (1.0 - p))[:, None])
        weights += np.linalg.solve(curvature, design.T @ (is_low - p))
    return weights[1] / volume.std()


def test_mean_pressure_is_the_pressure_asked_for():
    segment = Segment(8000, temperature=(2500.0, 2500.0), pressure=2.0, tau_P=0.5)
    state, _ = run(packed(8, 40, volume=830.0, temperature=2500.0), SW, segment, n_steps=2000)
    _, record = run(state, SW, segment, first_step=2000)
    assert record.mean.pressure.mean() == pytest.approx(2.0, abs=0.25)
    assert record.mean.temperature.mean() == pytest.approx(2500.0, rel=0.01)
