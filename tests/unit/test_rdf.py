"""g(r) against what is known without a computer: the ideal gas, crystal shells, sums over partials."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import iread

from amden.analysis.rdf import RDF, first_minima, partial_rdf, rdf
from amden.io import from_ase
from amden.structure import Structures, concatenate
from amden.testing import diamond, random_structures

DATA = Path(__file__).parents[1] / "data"


def gas(n: int, cell: torch.Tensor, *, seed: int = 0, species: int = 14) -> Structures:
    s = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Structures(s @ cell, torch.full((n,), species), cell[None], torch.tensor([n]))


SKEWED = torch.tensor([[9.0, 0.0, 0.0], [7.0, 8.0, 0.0], [-5.0, 6.0, 7.0]], dtype=torch.float64)


@pytest.mark.parametrize("cell", [9.7 * torch.eye(3, dtype=torch.float64), SKEWED], ids=["cube", "skewed"])
def test_an_ideal_gas_has_no_structure(cell):
    many = concatenate([gas(50, cell, seed=seed) for seed in range(200)])
    found = rdf(many, r_max=12.0, bin_width=1.0)
    # An atom's own images sit at fixed distances, 1/N of all pairs; the gas of the others is without structure.
    others = (found.per_system - rdf(gas(1, cell), r_max=12.0, bin_width=1.0).g / 50) * 50 / 49
    deviation = others.std(axis=0, ddof=1) / np.sqrt(len(many))
    assert (np.abs(others.mean(axis=0) - 1.0) < 4.0 * deviation).all()
    assert deviation[-1] < 0.01


def test_diamond_has_its_shells():
    a = 5.431
    found = rdf(diamond((2, 2, 2), a=a), r_max=6.0, bin_width=0.01)
    radii = a * np.array([np.sqrt(3) / 4, np.sqrt(2) / 2, np.sqrt(11) / 4, 1.0, np.sqrt(19) / 4])
    counts = np.array([4, 12, 12, 6, 12])
    assert found.peak == pytest.approx(radii[0], abs=0.005)  # 2.35 Å, though 12 atoms at √2 a/2 outweigh 4 at √3 a/4
    assert rdf(diamond((2, 2, 2), a=a)).peak == pytest.approx(radii[0], abs=0.025)
    between = np.searchsorted(found.edges, radii + 0.02) - 1
    np.testing.assert_allclose(found.running_coordination[between], np.cumsum(counts), rtol=1e-12)


def test_the_first_peak_is_no_rare_pair_and_no_part_of_a_peak():
    """One in a hundred structures has a pair at 1.3 Å; three bins of 0.05 Å share the first shell."""
    edges = np.linspace(0.0, 5.0, 101)
    g = np.ones((100, 100))
    g[:, :40], g[:, 52:58] = 0.0, 0.2
    g[0, 26], g[:, 45:48], g[:, 66] = 20.0, (3.0, 2.9, 3.1), 4.0
    assert RDF(edges, g, np.ones(100)).peak == pytest.approx(2.375)
    assert RDF(edges, np.full((1, 100), 0.5), np.ones(1)).peak == pytest.approx(0.025)


def test_the_shells_of_fcc_integrate_exactly():
    a = 4.05
    primitive = a / 2 * torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    one = Structures(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([13]), primitive[None], torch.tensor([1]))
    found = rdf(one, r_max=6.0, bin_width=0.05)
    shells = 4 * np.pi / 3 * np.diff(found.edges**3) * found.g * 4 / a**3
    occupied = np.flatnonzero(shells > 1e-12)
    np.testing.assert_allclose(shells[occupied], [12, 6, 24, 12], rtol=1e-12)
    np.testing.assert_allclose(found.r[occupied], a * np.sqrt([0.5, 1.0, 1.5, 2.0]), atol=0.025)


def test_each_system_is_normalised_by_its_own_density_and_weighs_the_same():
    dense, sparse = diamond(a=5.0), diamond((2, 1, 1), a=6.0)
    both = rdf(concatenate([dense, sparse]))
    np.testing.assert_array_equal(both.per_system, [rdf(dense).g, rdf(sparse).g])
    np.testing.assert_allclose(both.g, (rdf(dense).g + rdf(sparse).g) / 2)
    np.testing.assert_allclose(both.number_density, [8 / 125, 8 / 216])


def test_partials_weighted_by_concentrations_are_the_total():
    silica = random_structures([90], species=(8, 8, 14), seed=3)
    partials, total = partial_rdf(silica, r_max=5.0), rdf(silica, r_max=5.0)
    fraction = {s: float((silica.species == z).double().mean()) for s, z in (("O", 8), ("Si", 14))}
    weighted = sum(fraction[a] * fraction[b] * partials[f"{a}-{b}"].g for a in fraction for b in fraction)
    np.testing.assert_allclose(weighted, total.g, atol=1e-12)
    np.testing.assert_allclose(partials["O-Si"].g, partials["Si-O"].g, atol=1e-12)
    # As many bonds leave the oxygens as reach the silicons.
    bonds = [fraction[a] * partials[f"{a}-{b}"].running_coordination for a, b in (("O", "Si"), ("Si", "O"))]
    np.testing.assert_allclose(bonds[0], bonds[1], atol=1e-12)


def test_a_pair_that_no_system_has_is_left_out_and_one_that_some_lack_is_their_mean():
    cell = 8.0 * torch.eye(3, dtype=torch.float64)
    silicon, oxygen = gas(20, cell), gas(20, cell, species=8)
    assert set(partial_rdf(concatenate([silicon, oxygen]))) == {"Si-Si", "O-O"}
    pairs = partial_rdf(concatenate([silicon, oxygen]))["Si-Si"]
    assert np.isnan(pairs.per_system[1]).all()
    np.testing.assert_array_equal(pairs.g, rdf(silicon).g)


def test_atoms_on_top_of_each_other_are_counted():
    two = Structures(torch.zeros(2, 3), torch.tensor([14, 14]), 9.0 * torch.eye(3)[None], torch.tensor([2]))
    assert rdf(two, r_max=5.0).running_coordination[0] == pytest.approx(1.0)


def test_single_precision_is_enough():
    glass = random_structures([64], seed=5)
    exact, rounded = rdf(glass), rdf(glass.to(dtype=torch.float32))
    assert np.abs(np.cumsum(exact.g - rounded.g)).max() < 0.2  # a pair or two change their bin


def test_bad_input():
    with pytest.raises(ValueError, match=r"`r_max` and `bin_width` must be positive, got -1.0 and 0.05"):
        rdf(diamond(), r_max=-1.0)
    with pytest.raises(ValueError, match=r"`r_max` must be a whole number of bins, got 1.0 with `bin_width` 0.3"):
        rdf(diamond(), r_max=1.0, bin_width=0.3)
    flat = Structures(torch.zeros(1, 3), torch.tensor([14]), torch.zeros(1, 3, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="structure 0 has a cell with vanishing volume"):
        rdf(flat)


def test_the_first_minimum_is_between_the_first_shells():
    crystal = diamond((3, 3, 3))
    generator = torch.Generator().manual_seed(0)
    warm = replace(crystal, positions=crystal.positions + 0.05 * torch.randn(216, 3, generator=generator).double())
    assert rdf(warm).first_minimum() == pytest.approx((2.35 + 3.84) / 2, abs=0.15)  # g is 0 between
    assert first_minima(warm) == {"Si-Si": rdf(warm, r_max=6.0).first_minimum()}


def test_first_minima_of_silica_by_pair():
    silica = from_ase([a for a in iread(DATA / "tersoff_sio2.extxyz", "1:3") if isinstance(a, Atoms)])
    found = first_minima(silica)
    assert list(found) == ["O-O", "O-Si", "Si-Si"]
    assert 1.9 < found["O-Si"] < 2.6  # Si-O 1.62, then nothing until O-O of 2.6 has another pair
    assert found["O-O"] > 3.0
    assert first_minima(silica, pairs=["Si-O"]) == {"O-Si": found["O-Si"]}


def test_no_minimum_without_order():
    alone = gas(1, 9.0 * torch.eye(3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"Si-Si: `rdf` has no first peak below 6 Å"):
        first_minima(alone)
    with pytest.raises(ValueError, match=r"`rdf` has no minimum between two shells below 3 Å: take a longer range"):
        rdf(diamond((3, 3, 3)), r_max=3.0).first_minimum()
