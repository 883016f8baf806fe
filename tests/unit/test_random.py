import numpy as np
import pytest
import torch
from scipy import stats

from amden.random import Streams, philox, spawn_seeds

# Known answers of philox4x32-10: file `kat_vectors` of the Random123 distribution (Salmon et al., SC'11)
KNOWN = {
    "zeros": ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
}


def words(text: str) -> torch.Tensor:
    return torch.tensor([int(word, 16) for word in text.split()])


def streams(n_atoms: list[int], *, seed: int = 0) -> Streams:
    return Streams.of(spawn_seeds(seed, len(n_atoms)), torch.tensor(n_atoms))


@pytest.mark.parametrize("name", KNOWN)
def test_philox_gives_the_published_answers(name):
    counter, key, answer = map(words, KNOWN[name])
    assert torch.equal(philox(counter, key), answer)


def test_philox_of_many_counters_at_once():
    counter, key, answer = (
        torch.stack(w, 1) for w in zip(*(map(words, known) for known in KNOWN.values()), strict=True)
    )
    assert torch.equal(philox(counter, key), answer)


def test_uniform_numbers_are_uniform_and_never_0_or_1():
    x = streams([30_000]).uniform((3,), draw=0).double().numpy()
    assert x.min() > 0
    assert x.max() < 1
    assert stats.kstest(x.ravel(), "uniform").pvalue > 1e-3


def test_the_largest_uniform_number_is_below_1():
    """Atom 2,330,056 of seed 0 draws a word whose upper 25 bits are all ones."""
    atom = Streams(torch.tensor([0]), torch.tensor([0]), torch.tensor([2_330_056]))
    assert 1 - 2e-7 < atom.uniform((4,), draw=0).max() < 1


def test_normal_numbers_are_normal_and_independent():
    x = streams([30_000]).normal((3,), draw=0).double().numpy()
    assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
    n = len(x)
    assert abs(x.mean()) < 4 / np.sqrt(3 * n)
    assert abs(x.var() - 1) < 4 * np.sqrt(2 / (3 * n))
    assert abs(stats.kurtosis(x.ravel())) < 4 * np.sqrt(24 / (3 * n))
    assert np.abs(np.corrcoef(x.T) - np.eye(3)).max() < 4 / np.sqrt(n)
    assert abs(np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1]) < 4 / np.sqrt(n)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_numbers_of_a_system_do_not_depend_on_the_batch(kind):
    n_atoms, seeds = torch.tensor([4, 7, 2]), spawn_seeds(3, 3)
    together = getattr(Streams.of(seeds, n_atoms), kind)((5,), draw=9)
    for i, part in enumerate(together.split(n_atoms.tolist())):
        alone = getattr(Streams.of(seeds[[i]], n_atoms[[i]]), kind)((5,), draw=9)
        assert torch.equal(alone, part)


def test_shapes_and_the_first_numbers_do_not_depend_on_how_many_follow():
    batch = streams([4, 3])
    assert batch.normal((), draw=0).shape == (7,)
    assert batch.normal((2, 3), draw=0).shape == (7, 2, 3)
    assert torch.equal(batch.uniform((3,), draw=0), batch.uniform((9,), draw=0)[:, :3])


def test_draws_seeds_and_atoms_give_different_numbers():
    batch = streams([50, 50])
    x = torch.cat([batch.uniform((4,), draw=draw) for draw in (0, 1, 2**32, 2**32 + 1)])
    assert len(x.unique()) > 0.999 * x.numel()
    assert torch.equal(batch.uniform((4,), draw=5), batch.uniform((4,), draw=5))


def test_spawned_seeds_are_distinct_63_bit_and_independent_of_their_number():
    seeds = spawn_seeds(7, 1000)
    assert len(seeds.unique()) == 1000
    assert seeds.min() >= 0
    assert seeds.max() > 2**62
    assert torch.equal(seeds[600:], spawn_seeds(7, 400, first=600))
    assert not torch.isin(spawn_seeds(8, 1000), seeds).any()


def test_negative_seed():
    with pytest.raises(ValueError, match="`seed` must not be negative, got -1"):
        spawn_seeds(-1, 3)
