"""What holds for any batch, seed and time."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amden.cell import volume
from amden.diffusion.corruption import add_ghosts, corrupt, decode, encode, gaussian_noise, prior
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.random import Streams, spawn_seeds
from amden.segment import segment_mean
from amden.testing import random_sample, random_structures

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**32)
TIMES = st.floats(0.01, 0.99)
WIDTHS = st.integers(0, 3)

quick = settings(max_examples=25, deadline=None)


@quick
@given(sizes=SIZES, width=WIDTHS, seed=SEEDS, draw=st.integers(0, 2**40))
def test_noise_of_a_system_is_that_of_the_system_alone(sizes, width, seed, draw):
    sample, seeds = random_sample(sizes, width=width), spawn_seeds(seed, len(sizes))
    together = gaussian_noise(sample, Streams.of(seeds, sample.n_atoms), draw=draw)
    last = random_sample(sizes[-1:], width=width)
    alone = gaussian_noise(last, Streams.of(seeds[-1:], last.n_atoms), draw=draw)
    assert torch.equal(together.positions[-sizes[-1] :], alone.positions)
    assert torch.equal(together.elements[-sizes[-1] :], alone.elements)


@quick
@given(sizes=SIZES, width=WIDTHS, seed=SEEDS, t=TIMES)
def test_known_noise_can_be_taken_away_again(sizes, width, seed, t):
    sample, diffusion = random_sample(sizes, width=width), Diffusion()
    times = torch.full((len(sizes),), t, dtype=torch.float64)
    noise = gaussian_noise(sample, Streams.of(spawn_seeds(seed, len(sizes)), sample.n_atoms))
    noisy = corrupt(sample, times, noise, diffusion)
    sigma, alpha = diffusion.elements.sigma(times[0]), diffusion.elements.alpha(times[0])
    assert torch.allclose(noisy.positions - diffusion.positions.sigma(times[0]) * noise.positions, sample.positions)
    assert torch.allclose((noisy.elements - sigma * noise.elements) / alpha, sample.elements)


@quick
@given(sizes=SIZES, seed=SEEDS, t=TIMES)
def test_corruption_moves_no_centre_of_mass(sizes, seed, t):
    sample = random_sample(sizes)
    noise = gaussian_noise(sample, Streams.of(spawn_seeds(seed, len(sizes)), sample.n_atoms))
    noisy = corrupt(sample, torch.full((len(sizes),), t, dtype=torch.float64), noise, Diffusion())
    drift = segment_mean(noisy.positions - sample.positions, sample.system, n_systems=len(sample))
    assert drift.abs().max() < 1e-12


@quick
@given(sizes=SIZES, width=WIDTHS, seed=SEEDS)
def test_the_prior_of_a_system_is_that_of_the_system_alone(sizes, width, seed):
    cell, seeds = random_structures(sizes, seed=1).cell, spawn_seeds(seed, len(sizes))
    n_atoms = torch.tensor(sizes)

    def start(chosen: slice):
        streams = Streams.of(seeds[chosen], n_atoms[chosen])
        return prior(cell[chosen], n_atoms[chosen], width=width, diffusion=Diffusion(), streams=streams)

    together, alone = start(slice(None)), start(slice(-1, None))
    assert torch.equal(together.positions[-sizes[-1] :], alone.positions)
    assert torch.equal(together.elements[-sizes[-1] :], alone.elements)


@quick
@given(sizes=SIZES, seed=SEEDS, density=st.floats(0.01, 0.3))
def test_ghosts_fill_up_and_go_without_a_trace(sizes, seed, density):
    structures = random_structures(sizes, species=(8, 14))
    filled = add_ghosts(structures, density, Streams.of(spawn_seeds(seed, len(sizes)), structures.n_atoms))
    target = density * volume(structures.cell)
    assert (filled.n_atoms >= structures.n_atoms).all()
    assert (filled.n_atoms > target - 1).all()
    assert (filled.n_atoms <= torch.maximum(target * (1 + 1e-6), structures.n_atoms.double())).all()
    back = filled.without_ghosts()
    assert torch.equal(back.positions, structures.positions)
    assert torch.equal(back.species, structures.species)
    assert torch.equal(back.n_atoms, structures.n_atoms)


@quick
@given(sizes=SIZES, seed=st.integers(0, 1000), ghosts=st.booleans())
def test_decoding_undoes_encoding(sizes, seed, ghosts):
    vocabulary = Vocabulary((8, 14, 15), ghosts=ghosts)
    structures = random_structures(sizes, seed=seed, species=vocabulary.classes)
    decoded = decode(encode(structures, vocabulary), vocabulary)
    assert torch.equal(decoded.species, structures.species)
