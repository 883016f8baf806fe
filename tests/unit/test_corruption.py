from math import cos, pi, sin, sqrt

import pytest
import torch

from amden.cell import fractional
from amden.diffusion.corruption import add_ghosts, corrupt, decode, encode, gaussian_noise, prior
from amden.diffusion.denoiser import Noise
from amden.diffusion.schedule import Diffusion, VarianceExploding, VariancePreserving
from amden.diffusion.vocabulary import Vocabulary
from amden.random import Streams, spawn_seeds
from amden.segment import segment_mean
from amden.structure import Structures
from amden.testing import random_sample, random_structures

OXIDE = Vocabulary((8, 14), ghosts=True)


def streams_of(n_atoms: torch.Tensor, seed: int = 0) -> Streams:
    return Streams.of(spawn_seeds(seed, len(n_atoms)), n_atoms)


def test_noise_of_a_known_time_is_added_to_the_data():
    sample = random_sample([3, 4], width=2)
    diffusion = Diffusion(positions=VarianceExploding(sigma_max=1.7), elements=VariancePreserving(sigma_max=1.5))
    noise = Noise(torch.full_like(sample.positions, 2.0), torch.full_like(sample.elements, -1.0))
    noisy = corrupt(sample, torch.tensor([0.5, 0.1], dtype=torch.float64), noise, diffusion)
    for system, t in ((0, 0.5), (1, 0.1)):
        atoms = sample.system == system
        assert torch.allclose(noisy.positions[atoms], sample.positions[atoms] + 2.0 * 1.7 * t)
        expected = cos(pi / 2 * t) * sample.elements[atoms] - 1.5 * sin(pi / 2 * t)
        assert torch.allclose(noisy.elements[atoms], expected)
    assert noisy.cell is sample.cell


def test_noise_is_standard_normal_but_for_the_drift():
    n = 5
    sample = random_sample([n] * 1500, width=2)
    noise = gaussian_noise(sample, streams_of(sample.n_atoms))
    count = noise.positions.numel()
    drift = segment_mean(noise.positions, sample.system, n_systems=len(sample))
    assert drift.abs().max() < 1e-6
    # Of n coordinates only n - 1 are free.
    assert noise.positions.square().mean().item() == pytest.approx(1 - 1 / n, abs=5 * sqrt(2 / count))
    assert noise.elements.mean().item() == pytest.approx(0.0, abs=5 / sqrt(noise.elements.numel()))
    assert noise.elements.var().item() == pytest.approx(1.0, abs=5 * sqrt(2 / noise.elements.numel()))
    both = torch.cat([noise.positions, noise.elements], 1)
    assert (torch.corrcoef(both.T) - torch.eye(5)).abs().max() < 5 / sqrt(len(both))


def test_draws_differ_and_repeat():
    sample = random_sample([6])
    streams = streams_of(sample.n_atoms)
    first, again, other = (gaussian_noise(sample, streams, draw=d).positions for d in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.1


def test_noise_from_a_generator_has_no_drift_either():
    sample = random_sample([6, 3], width=1, dtype=torch.float32)
    one, other = (gaussian_noise(sample, torch.Generator().manual_seed(s)) for s in (0, 0))
    assert torch.equal(one.positions, other.positions)
    assert one.positions.dtype == one.elements.dtype == torch.float32
    assert segment_mean(one.positions, sample.system, n_systems=2).abs().max() < 1e-6


@pytest.mark.parametrize(("unit_elements", "scale"), [(False, 1.5), (True, 1.0)])
def test_the_prior_is_uniform_in_the_cell_and_normal_in_the_elements(unit_elements, scale):
    structures = random_structures([3000, 1000])
    sample = prior(
        structures.cell,
        structures.n_atoms,
        width=2,
        diffusion=Diffusion(),
        streams=streams_of(structures.n_atoms),
        conditions={"modulus": torch.tensor([1.0, 2.0])},
        unit_elements=unit_elements,
    )
    s = fractional(sample.positions, sample.cell[sample.system])
    assert s.min() > 0
    assert s.max() < 1
    assert s.mean(0).tolist() == pytest.approx([0.5] * 3, abs=5 * sqrt(1 / 12 / 4000))
    assert s.var(0).tolist() == pytest.approx([1 / 12] * 3, abs=5 * sqrt(1 / 180 / 4000))
    assert sample.elements.mean().item() == pytest.approx(0.0, abs=5 * scale / sqrt(8000))
    assert sample.elements.std().item() == pytest.approx(scale, abs=5 * scale / sqrt(2 * 8000))
    assert sample.conditions["modulus"].tolist() == [1.0, 2.0]
    assert torch.corrcoef(torch.cat([s, sample.elements], 1).T)[:3, 3:].abs().max() < 5 / sqrt(4000)


def test_the_prior_of_a_single_element_has_width_zero():
    structures = random_structures([4])
    sample = prior(
        structures.cell.float(),
        structures.n_atoms,
        width=0,
        diffusion=Diffusion(),
        streams=streams_of(structures.n_atoms),
    )
    assert sample.elements.shape == (4, 0)
    assert sample.positions.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoding_undoes_encoding(dtype):
    structures = random_structures([5, 2], species=(0, 8, 14), dtype=dtype)
    sample = encode(structures, OXIDE)
    assert sample.elements.dtype == dtype
    decoded = decode(sample, OXIDE)
    for name in ("positions", "species", "cell", "n_atoms"):
        assert torch.equal(getattr(decoded, name), getattr(structures, name))


def test_properties_become_conditions_but_conditions_no_properties():
    plain = random_structures([2])
    asked = Structures(
        plain.positions, plain.species, plain.cell, plain.n_atoms, {"modulus": torch.tensor([30.0]).double()}
    )
    sample = encode(asked, Vocabulary((14,)))
    assert sample.conditions["modulus"].tolist() == [30.0]
    assert dict(decode(sample, Vocabulary((14,))).properties) == {}


def test_an_unknown_element_is_named():
    with pytest.raises(ValueError, match="element Si is unknown to this model, which knows O"):
        encode(random_structures([2]), Vocabulary((8,)))


def test_ghosts_fill_up_to_the_density():
    structures = random_structures([5, 200, 10])
    volume = torch.linalg.det(structures.cell)
    filled = add_ghosts(structures, 0.1, streams_of(structures.n_atoms))
    expected = torch.maximum(structures.n_atoms, torch.floor(0.1 * volume).long())
    assert filled.n_atoms.tolist() == expected.tolist()
    assert filled.n_atoms[1] >= 200
    ghosts = filled.species == 0
    s = fractional(filled.positions[ghosts], filled.cell[filled.system[ghosts]])
    assert s.min() > 0
    assert s.max() < 1
    assert len(s) == int((filled.n_atoms - structures.n_atoms).sum())


def test_removing_ghosts_gives_the_structures_back():
    structures = random_structures([5, 20, 10], species=(8, 14))
    back = add_ghosts(structures, 0.1, streams_of(structures.n_atoms)).without_ghosts()
    for name in ("positions", "species", "cell", "n_atoms"):
        assert torch.equal(getattr(back, name), getattr(structures, name))


def test_a_density_can_be_given_for_each_system_and_met_exactly():
    structures = random_structures([5, 20], dtype=torch.float32)
    density = torch.tensor([30.0, 20.0], dtype=torch.float64) / torch.linalg.det(structures.cell).double()
    filled = add_ghosts(structures, density, streams_of(structures.n_atoms))
    assert filled.n_atoms.tolist() == [30, 20]


@pytest.mark.parametrize("density", [0.0, -0.1, float("nan")])
def test_a_density_must_be_positive(density):
    structures = random_structures([5])
    with pytest.raises(ValueError, match="`density` must be positive, got"):
        add_ghosts(structures, density, streams_of(structures.n_atoms))
