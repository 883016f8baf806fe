"""S(q) against what is known without a computer: gases, crystals, pairs, sums, and the definition spelled out."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from amden.analysis.reciprocal import vectors
from amden.analysis.scattering import structure_factor, structure_factor_from_rdf
from amden.elements import form_factor, scattering_length
from amden.structure import Structures, concatenate
from amden.testing import diamond, random_structures

SKEWED = torch.tensor([[11.0, 0.0, 0.0], [7.0, 9.0, 0.0], [-5.0, 6.0, 8.0]], dtype=torch.float64)
ALL = 10**9


def gas(n: int, cell: torch.Tensor, *, seed: int = 0, species: tuple[int, ...] = (14,)) -> Structures:
    s = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    numbers = torch.tensor(species).repeat(n // len(species))
    return Structures(s @ cell, numbers, cell[None], torch.tensor([n]))


@pytest.mark.parametrize("cell", [10.0 * torch.eye(3, dtype=torch.float64), SKEWED], ids=["cube", "skewed"])
def test_an_ideal_gas_scatters_like_its_atoms(cell):
    many = concatenate([gas(40, cell, seed=seed, species=(8, 14)) for seed in range(150)])
    found = structure_factor(many, q_max=6.0, bin_width=1.0)
    for values in found.partials.values():
        deviation = values[:, 1:].std(axis=0, ddof=1) / np.sqrt(len(many))
        assert (np.abs(values[:, 1:].mean(axis=0) - 1.0) < 4.0 * deviation).all()
        assert deviation[-1] < 0.02


def test_diamond_has_its_bragg_peaks_and_its_extinctions():
    a = 5.431
    found = structure_factor(diamond(a=a), q_max=5.0, bin_width=0.02)
    s = found.total("atoms")[0]

    def at(h, k, l):
        return s[int(2 * np.pi / a * np.sqrt(h * h + k * k + l * l) / 0.02)]

    # |F|²/N of 8 atoms: 8 for h + k + l = 4n, 4 for odd ones, else 0
    assert [round(at(*hkl), 9) for hkl in ((1, 1, 1), (2, 2, 0), (3, 1, 1), (4, 0, 0))] == [4, 8, 4, 8]
    assert [round(at(*hkl), 9) for hkl in ((1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0), (2, 2, 2))] == [0] * 5
    assert found.peak("neutron", between=(1.5, 2.5)) == pytest.approx(2 * np.pi * np.sqrt(3) / a, abs=0.01)


def test_fcc_scatters_only_where_hkl_are_all_even_or_all_odd():
    a = 4.05
    cube = a * torch.eye(3, dtype=torch.float64)
    sites = a / 2 * torch.tensor([[0.0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    found = structure_factor(
        Structures(sites, torch.full((4,), 13), cube[None], torch.tensor([4])), q_max=8.0, bin_width=0.01
    )
    s = found.total("atoms")[0]
    expected = {}
    for h, k, l in product(range(-6, 7), repeat=3):
        bin_ = int(2 * np.pi / a * np.sqrt(h * h + k * k + l * l) / 0.01)
        if 0 < bin_ < len(s):
            expected.setdefault(bin_, []).append(4.0 * (h % 2 == k % 2 == l % 2))
    assert set(np.flatnonzero(np.isfinite(s))) == set(expected)
    np.testing.assert_allclose([s[b] for b in expected], [np.mean(v) for v in expected.values()], atol=1e-9)


def test_a_pair_in_a_wide_cell_is_debyes_formula():
    r = torch.tensor([1.1, -0.7, 1.6], dtype=torch.float64)
    cell = 31.0 * torch.eye(3, dtype=torch.float64)
    pair = Structures(torch.stack([0 * r, r]), torch.tensor([8, 14]), cell[None], torch.tensor([2]))
    found = structure_factor(pair, q_max=9.0, bin_width=0.1, most=ALL)
    q = found.q[20:]
    debye = np.sinc(q * float(r.norm()) / np.pi)
    np.testing.assert_allclose(found.partials["O-Si"][0, 20:], 1 + 2 * debye, atol=0.06)
    np.testing.assert_allclose(found.partials["O-O"][0, 20:], np.ones(len(q)), atol=1e-9)
    b, s = [scattering_length(z) for z in (8, 14)], found.total("neutron")[0, 20:]
    intensity = (b[0] ** 2 + b[1] ** 2 + 2 * b[0] * b[1] * debye) / 2  # an atom
    mean, square = float(np.mean(b)), float(np.mean(np.square(b)))
    np.testing.assert_allclose(s * mean**2 + square - mean**2, intensity, atol=0.04 * mean**2)


def test_all_is_the_definition_spelled_out():
    glass = random_structures([23], species=(8, 8, 14), seed=4, skew=0.3)
    found = structure_factor(glass, q_max=4.0, bin_width=0.5, most=ALL)
    positions, cell, z = glass.positions.numpy(), glass.cell[0].numpy(), glass.species.numpy()
    hkl = np.array([v for v in product(range(-12, 13), repeat=3) if any(v)])
    q = 2 * np.pi * hkl @ np.linalg.inv(cell).T
    length = np.linalg.norm(q, axis=1)
    bins = (length / 0.5).astype(int)
    waves = np.exp(1j * q @ positions.T)
    for pair, (a, b) in {"O-O": (8, 8), "O-Si": (8, 14), "Si-Si": (14, 14)}.items():
        c = (z == a).mean(), (z == b).mean()
        product_ = (waves[:, z == a].sum(1) * waves[:, z == b].sum(1).conj()).real / len(z)
        means = [product_[bins == k].mean() if (bins == k).any() else np.nan for k in range(8)]
        expected = 1 + (np.array(means) - c[0] * (a == b)) / (c[0] * c[1])
        np.testing.assert_allclose(found.partials[pair][0], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(2 * found.n_vectors[0], np.bincount(bins, minlength=8)[:8])
    f = np.stack([form_factor(int(n), found.q[bins[bins < 8]]) for n in z], axis=1)
    c8 = (z == 8).mean()
    intensity = np.abs((waves[bins < 8] * f).sum(1)) ** 2 / len(z)
    mean, square = f.mean(1), (f**2).mean(1)
    expected = (intensity - square + mean**2) / mean**2
    means = [expected[bins[bins < 8] == k].mean() if (bins == k).any() else np.nan for k in range(8)]
    np.testing.assert_allclose(found.total("x-ray")[0], means, rtol=1e-9)
    assert found.concentrations["O"][0] == c8


def test_partials_add_up_whatever_the_elements():
    glass = random_structures([50, 31], species=(8, 14, 15), seed=2)
    found = structure_factor(glass, q_max=6.0)
    alike = structure_factor(Structures(glass.positions, torch.full((81,), 14), glass.cell, glass.n_atoms), q_max=6.0)
    np.testing.assert_allclose(found.total("atoms"), alike.total("neutron"), rtol=1e-9, atol=1e-9)
    c = found.concentrations
    both = sum(
        (1 + (a != b)) * np.sqrt(c[a] * c[b])[:, None] * s
        for (a, b), s in ((p.split("-"), s) for p, s in found.ashcroft_langreth().items())
    )
    np.testing.assert_allclose(both, alike.total("atoms"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("radiation", ["neutron", "x-ray", "atoms"])
def test_weights_add_up_to_one(radiation):
    found = structure_factor(random_structures([12, 20], species=(3, 8, 14, 22), seed=2), q_max=5.0)
    np.testing.assert_allclose(np.sum(list(found.weights(radiation).values()), axis=0), 1.0)


def test_systems_are_what_they_are_alone():
    a, b = random_structures([20], species=(8, 14), seed=1), random_structures([33], species=(14,), seed=2)
    both = structure_factor(concatenate([a, b]), q_max=5.0)
    alone = structure_factor(a, q_max=5.0), structure_factor(b, q_max=5.0)
    for radiation in ("neutron", "x-ray"):
        np.testing.assert_array_equal(both.total(radiation), np.concatenate([f.total(radiation) for f in alone]))
    assert np.isnan(both.partials["O-Si"][1]).all()
    np.testing.assert_array_equal(both.partial_means()["O-Si"], alone[0].partials["O-Si"][0])
    assert set(structure_factor(concatenate([b, random_structures([9], species=(8,))]), q_max=3.0).partials) == {
        "O-O",
        "Si-Si",
    }


def test_vectors_are_drawn_without_bias_where_there_are_many():
    glass = random_structures([60] * 6, seed=3)
    every = structure_factor(glass, q_max=8.0, bin_width=0.5, most=ALL)
    some = structure_factor(glass, q_max=8.0, bin_width=0.5, most=200)
    np.testing.assert_array_equal(some.n_vectors, np.minimum(every.n_vectors, 200))
    few = every.n_vectors <= 200
    np.testing.assert_allclose(some.total()[few], every.total()[few], rtol=1e-12)
    off = (some.total() - every.total())[~few] * np.sqrt(200.0) / every.total()[~few]
    assert 0.4 < np.std(off) < 1.2  # less than 1 where a good part of all is drawn
    assert abs(off.mean()) < 4.0 / np.sqrt(off.size)
    assert "at most 200 a bin of 0.5 1/Å" in some.method


def test_vectors_are_half_of_the_lattice_each_once():
    cell = SKEWED.numpy()
    hkl, bins, counts = vectors(cell, n_bins=10, bin_width=0.5, most=ALL)
    grid = np.array(list(product(range(-25, 26), repeat=3)))
    length = np.linalg.norm(2 * np.pi * grid @ np.linalg.inv(cell).T, axis=1)
    expected = {tuple(v) for v in grid[(length > 0) & (length < 5.0)].tolist()}
    half = {tuple(v) for v in hkl.tolist()}
    assert len(half) == len(hkl) == counts.sum()
    opposite = {tuple(-x for x in v) for v in half}
    assert half | opposite == expected
    assert not half & opposite
    np.testing.assert_array_equal(np.bincount(bins, minlength=10), counts)


def test_smoothing_fills_gaps_and_leaves_a_constant_alone():
    one = Structures(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([14]), SKEWED[None], torch.tensor([1]))
    found = structure_factor(one, q_max=4.0)
    assert np.isnan(found.total()).any()
    smooth = found.smoothed(0.2)
    first = np.isfinite(found.total()[0]).argmax()
    np.testing.assert_allclose(smooth.total()[0, first:], 1.0)
    assert smooth.method.endswith("smoothed over 0.2 1/Å")
    q, values = structure_factor(random_structures([20, 40], seed=1), q_max=4.0).complete()
    assert np.isfinite(values).all()
    assert values.shape == (2, len(q))
    assert q[0] > 0.2


def test_the_transform_of_g_of_r_agrees_with_the_exact_sum():
    glass = random_structures([500] * 4, species=(8, 14), seed=7)
    exact = structure_factor(glass, q_max=10.0).smoothed(0.25)
    transform = structure_factor_from_rdf(glass, q_max=10.0, r_max=12.0)
    for pair, s in exact.partial_means().items():
        late = exact.q > 2.0
        assert np.sqrt(np.mean((s - transform.partial_means()[pair])[late] ** 2)) < 0.05
        assert np.ptp(s[late]) > 0.5
    assert (transform.n_vectors == 0).all()
    assert transform.method == "transform of g(r) to 12 Å, window of Lorch"


def test_without_a_window_the_transform_of_a_shell_is_debyes_formula():
    r = torch.tensor([2.013, 0.0, 0.0], dtype=torch.float64)
    pair = Structures(
        torch.stack([0 * r, r]), torch.full((2,), 14), 900.0 * torch.eye(3).double()[None], torch.tensor([2])
    )
    found = structure_factor_from_rdf(pair, q_max=6.0, r_max=4.0, window="none")
    np.testing.assert_allclose(found.mean(), 1 + np.sinc(found.q * 2.013 / np.pi), atol=0.01)


def test_rows_are_plain_numbers():
    found = structure_factor(random_structures([20], species=(8, 14)), q_max=3.0)
    rows = found.rows()
    assert len(rows) == len(found.q)
    assert list(rows[-1]) == ["q", "neutron", "x-ray", "O-O", "O-Si", "Si-Si"]
    assert rows[0]["neutron"] is None
    assert rows[-1]["x-ray"] == found.mean("x-ray")[-1]


def test_a_peak_is_found_between_bins():
    found = structure_factor(diamond(), q_max=3.0)
    bell = replace(found, partials={"Si-Si": np.exp(-10.0 * (found.q[None] - 1.534) ** 2)})
    assert bell.peak() == pytest.approx(1.534, abs=0.001)
    gap = replace(
        bell, partials={"Si-Si": np.where(np.abs(found.q[None] - 1.575) < 0.01, np.nan, bell.partials["Si-Si"])}
    )
    assert gap.peak() == pytest.approx(1.525)  # the highest bin, as a neighbour is not known
    with pytest.raises(ValueError, match=r"`between` has no known S\(q\) from 0.1 to 0.2 1/Å"):
        found.peak(between=(0.1, 0.2))


def test_bad_input():
    glass = random_structures([8])
    with pytest.raises(ValueError, match=r"`q_max` and `bin_width` must be positive, got -1.0 and 0.05"):
        structure_factor(glass, q_max=-1.0)
    with pytest.raises(ValueError, match=r"`q_max` must be a whole number of bins, got 1.0 with `bin_width` 0.3"):
        structure_factor(glass, q_max=1.0, bin_width=0.3)
    with pytest.raises(ValueError, match=r"`most` must be positive, got 0"):
        structure_factor(glass, most=0)
    with pytest.raises(ValueError, match=r"unknown `window` 'hann': expected one of lorch, none"):
        structure_factor_from_rdf(glass, window="hann")
    with pytest.raises(ValueError, match=r"unknown `radiation` 'light': expected one of neutron, x-ray, atoms"):
        structure_factor(glass, q_max=2.0).total("light")
    with pytest.raises(ValueError, match=r"`width` must be positive, got 0.0"):
        structure_factor(glass, q_max=2.0).smoothed(0.0)
    with pytest.raises(ValueError, match=r"no neutron scattering length is tabulated for 'Po'"):
        structure_factor(random_structures([3], species=(84,)), q_max=2.0).total()
