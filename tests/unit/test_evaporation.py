"""The onset of evaporation, from pressures made up and measured."""

import numpy as np
import pytest

from amden.simulate.evaporation import evaporation_onset

T = np.linspace(2200.0, 9000.0, 60)
LITHIUM_T = """
    2338 2521 2756 2976 3204 3374 3682 3901 4064 4341 4614 4774 4974 5120 5521 5747 5898 6167 6412 6545 6784 7062
    7192 7576 7746 7955 8163 8444 8812 8700
"""
LITHIUM_P = """
    -0.12 -0.066 -0.045 -0.046 -0.118 -0.06 -0.02 -0.082 0.017 0.005 0.193 0.293 0.244 0.311 0.537 0.623 0.593
    0.642 0.829 0.832 1.005 1.024 1.078 1.23 1.304 1.363 1.534 1.589 1.773 1.664
"""
SILICA_T = """
    2325 2527 2769 2978 3210 3357 3695 3886 4071 4342 4611 4770 4980 5134 5501 5734 5918 6146 6418 6528 6787 7063
    7173 7602 7735 7956 8184 8434 8815 8686
"""
SILICA_P = """
    -0.244 -0.377 0.039 0.058 0.242 0.023 -0.023 -0.172 -0.097 -0.083 -0.128 -0.069 -0.061 -0.11 0.058 0.029 0.034
    0.05 0.078 0.071 0.141 0.226 0.273 0.218 0.376 0.395 0.404 0.456 0.562 0.537
"""
MEASURED = {"0.6 SiO2 0.4 Li2O": (LITHIUM_T, LITHIUM_P, 4220.0, 6838.7), "SiO2": (SILICA_T, SILICA_P, 6030.0, 7631.2)}
"""K and GPa, means over 4 ps, of 255 atoms of BMP-shrm heated in 120 ps in twice the room; the onset that the means
over 1 ps have, and Å³."""


def series(onset, *, slope=4e-4, noise=0.05, pull=0.1, seed=0):
    """Below the onset the surface pulls, less the hotter it is."""
    rng = np.random.default_rng(seed)
    pressure = np.where(onset > T, -pull * (onset - T) / onset, slope * (T - onset))
    return T + 30.0 * rng.standard_normal(60), pressure + noise * rng.standard_normal(60)


@pytest.mark.parametrize("onset", [3000.0, 4200.0, 5500.0, 7000.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_onset_is_found_in_noise(onset, seed):
    found = evaporation_onset(*series(onset, seed=seed))
    assert found.temperature == pytest.approx(onset, abs=300.0)
    assert found.slope == pytest.approx(4e-4, rel=0.3)


def test_wild_samples_change_little():
    temperature, pressure = series(4200.0)
    pressure[[10, 25, 40, 50]] += [3.0, -2.0, 4.0, -3.0]
    assert evaporation_onset(temperature, pressure).temperature == pytest.approx(4200.0, abs=300.0)


def test_without_noise_it_is_exact_and_independent_of_order():
    pressure = np.maximum(0.0, 3e-4 * (T - 5000.0))
    order = np.random.default_rng(0).permutation(60)
    for chosen in (slice(None), order):
        found = evaporation_onset(T[chosen], pressure[chosen])
        assert (found.temperature, found.slope) == (5000.0, pytest.approx(3e-4))


@pytest.mark.parametrize("slope", [0.0, -2e-4])
def test_no_onset_is_told(slope):
    _, noise = series(1e9, pull=0.0)
    assert np.isnan(evaporation_onset(T, noise + slope * (T - 2200.0)).temperature)


def test_a_melt_that_evaporates_from_the_start_has_no_onset():
    assert np.isnan(evaporation_onset(T, 4e-4 * (T - 1500.0)).temperature)


def test_the_share_of_atoms_is_that_of_the_ideal_gas():
    """300 atoms, all of them a gas, in 6000 Å³: 300 · 1.380649e-23 J/K / 6e-27 m³."""
    slope = 300 * 1.380649e-23 / 6e-27 * 1e-9
    found = evaporation_onset(T, slope * np.maximum(0.0, T - 4000.0))
    assert found.share(n_atoms=300, volume=6000.0) == pytest.approx(1.0, rel=1e-6)


def test_few_samples_are_refused():
    with pytest.raises(ValueError, match="an onset needs at least 20 samples of both, got 19"):
        evaporation_onset(T[:19], T[:19])


@pytest.mark.parametrize("glass", MEASURED)
def test_onsets_of_real_melts(glass):
    """Whatever samples are left out."""
    *samples, onset, volume = MEASURED[glass]
    temperature, pressure = (np.array(text.split(), float) for text in samples)
    found = evaporation_onset(temperature, pressure)
    assert found.temperature == pytest.approx(onset, abs=200.0)
    assert 0.3 < found.share(n_atoms=255, volume=volume) < 1.0
    for k in range(3):
        fewer = np.arange(30) % 3 != k
        assert evaporation_onset(temperature[fewer], pressure[fewer]).temperature == pytest.approx(onset, abs=400.0)
