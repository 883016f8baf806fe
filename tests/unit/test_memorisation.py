"""Copies planted among independent samples are found, and no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from amden.analysis.memorisation import Closest, Copies, novelty
from amden.analysis.similarity import distances, fingerprints
from amden.structure import Structures, concatenate
from amden.testing import diamond, random_structures
from amden.testing.builders import rotation

GENERATOR = torch.Generator().manual_seed(0)


def glasses(n: int, *, seed: int, species: tuple[int, ...] = (14,)) -> Structures:
    return random_structures([48] * n, seed=seed, species=species, skew=0.0)


TRAINING = glasses(40, seed=1)
UNSEEN = glasses(30, seed=2)
NEW = glasses(30, seed=3)


def displaced(structures: Structures, by: float) -> Structures:
    noise = torch.randn(structures.positions.shape, dtype=torch.float64, generator=GENERATOR)
    return replace(structures, positions=structures.positions + by * noise)


def turned_moved_and_renumbered(structures: Structures) -> Structures:
    turn = rotation(GENERATOR).double()
    positions = (structures.positions @ turn + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).reshape(-1, 48, 3)
    flipped = positions.flip(1).reshape(-1, 3)
    return replace(structures, positions=flipped, cell=structures.cell @ turn)


@pytest.mark.parametrize("by", [0.0, 0.05, 0.1])
def test_turned_moved_renumbered_and_displaced_copies_are_found_and_named(by):
    copies = displaced(turned_moved_and_renumbered(TRAINING.select(range(10, 15))), by)
    found = novelty(concatenate([NEW, copies]), reference=UNSEEN, training=TRAINING).copies
    assert found is not None
    assert np.flatnonzero(found.flagged).tolist() == list(range(30, 35))
    assert found.closest.index[30:].tolist() == list(range(10, 15))
    assert found.same.any() == (by == 0.0)
    assert found.verdict == "5 of 35"
    assert found.closest.local[30:].max() < found.closest.local[:30].min()


def test_mirror_images_are_copies():
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    copy = TRAINING.select([7])
    copy = replace(copy, positions=copy.positions @ mirror, cell=(copy.cell @ mirror)[:, [1, 0, 2]])
    found = novelty(copy, training=TRAINING).copies
    assert found is not None
    assert found.same.all()
    assert found.closest.index.tolist() == [7]


def test_independent_samples_are_not_flagged():
    """Nor are they repeats of each other, and they are as diverse as the reference."""
    flagged = 0
    for seed in range(10, 20):
        found = novelty(glasses(20, seed=seed), reference=UNSEEN, training=TRAINING)
        assert found.copies is not None
        assert found.repeats is not None
        flagged += bool(found.copies.flagged.any()) + bool(found.repeats.flagged.any())
    assert flagged <= 3  # 20 sets, each with a chance of 1 in 20


def test_a_collapsed_set_repeats_itself_and_is_less_diverse():
    collapsed = displaced(NEW.select([0, 1, 2] * 7), 0.02)
    found = novelty(collapsed, reference=UNSEEN)
    assert found.copies is None
    assert found.repeats is not None
    assert found.repeats.flagged.all()
    assert found.diversity is not None
    assert found.diversity.generated < found.diversity.reference - 3.0 * found.diversity.floor.limit
    alike = novelty(NEW, reference=UNSEEN).diversity
    assert alike is not None
    assert abs(alike.generated - alike.reference) < 2.0 * alike.floor.limit


def test_a_reference_that_is_the_training_set_tells_nothing_new():
    by_itself = novelty(NEW, training=TRAINING).copies
    with_it = novelty(NEW, reference=TRAINING, training=TRAINING).copies
    assert by_itself is not None
    assert with_it is not None
    assert with_it.unseen_are == by_itself.unseen_are == "structures of the training set among themselves"
    assert with_it.limit == pytest.approx(by_itself.limit)


def test_what_reference_and_training_set_share_is_left_out():
    found = novelty(NEW, reference=concatenate([UNSEEN, TRAINING.select([0, 1])]), training=TRAINING).copies
    assert found is not None
    assert len(found.unseen) == 30
    assert found.unseen_are == "structures of the reference that are not of the training set"


def test_elements_tell_structures_apart():
    silica = glasses(12, seed=4, species=(8, 8, 14))
    swapped = replace(silica, species=torch.where(silica.species == 8, 14, 8))
    known, same, other = fingerprints(silica, silica, swapped)
    assert np.diag(distances(same, known).pairs).max() < 0.05
    assert np.diag(distances(other, known).pairs).min() > 1.0


def test_crystals_are_copies_of_each_other():
    crystal = diamond().to(dtype=torch.float64)
    found = novelty(concatenate([crystal] * 3), training=concatenate([crystal] * 12)).copies
    assert found is not None
    assert found.same.all()


def test_the_limit_is_the_quantile_of_gumbels_law():
    """Novelty drawn from the law itself: one set of 50 in twenty has a value below the limit."""
    random = np.random.default_rng(0)

    def drawn(n: int) -> Closest:
        return Closest(np.zeros(n, int), 0.9 - 0.01 * random.gumbel(size=n), np.zeros(n))

    alarms = sum(Copies(drawn(50), drawn(200), "unseen").flagged.any() for _ in range(400))
    assert 8 <= alarms <= 40  # 20 ± 4, and the unseen are few


def test_too_few_unseen_structures_do_not_tell():
    found = novelty(NEW, reference=UNSEEN.select(range(5))).repeats
    assert found is not None
    assert found.verdict == "no floor: fewer than 10 unseen structures"


def test_bad_input():
    with pytest.raises(ValueError, match="`reference` or `training` must be given"):
        novelty(NEW)
    with pytest.raises(ValueError, match="`training` must have 10 structures or more to be looked for, got 3"):
        novelty(NEW, training=TRAINING.select([0, 1, 2]))
