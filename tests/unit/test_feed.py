from dataclasses import replace

import pytest
import torch

from amden.diffusion.corruption import add_ghosts, corrupt, gaussian_noise
from amden.diffusion.loss import score_matching
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.feed import Feed, Shapes
from amden.model import denoiser_of
from amden.neighbors import neighbor_matrix
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import Room, ScoreConfig
from amden.random import Streams
from amden.recipe import GhostConfig
from amden.testing import random_structures

CPU, DENSITY = torch.device("cpu"), 0.1
KNOWN = Vocabulary((8, 14), ghosts=True)


@pytest.fixture
def mixed():
    made = random_structures([5, 11, 8, 6, 9, 7], species=(8, 14), seed=3, dtype=torch.float32)
    return replace(made, properties={"x": torch.arange(6.0), "curve": torch.arange(12.0).reshape(6, 2)})


def feed(structures, **options) -> Feed:
    given = {"device": CPU, "batch_size": 3, "ghost_density": DENSITY, "properties": ("x", "curve"), **options}
    return Feed(structures, KNOWN, **given)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_ghosts_fill_up_to_the_density_real_atoms_first_and_are_fresh(mixed):
    chosen = torch.tensor([4, 1, 0])
    sample, plan = feed(mixed).sample(chosen, generator())
    again, _ = feed(mixed).sample(chosen, generator(1))
    real = mixed.select(chosen)
    filled = add_ghosts(real, DENSITY, Streams.of(torch.tensor([1, 2, 3]), real.n_atoms))
    assert plan is None
    assert sample.n_atoms.tolist() == filled.n_atoms.tolist()
    assert KNOWN.decode(sample.elements).tolist() == filled.species.tolist()
    ghosts = filled.species == 0
    assert ghosts.sum() > 10
    torch.testing.assert_close(sample.positions[~ghosts], real.positions, rtol=0, atol=0)
    assert (sample.positions - again.positions)[ghosts].abs().amin(0).max() > 0
    s = torch.einsum("ai,aij->aj", sample.positions, torch.linalg.inv(sample.cell)[sample.system])[ghosts]
    assert s.min() > 0
    assert s.max() < 1
    assert sample.conditions["x"].tolist() == [4.0, 1.0, 0.0]
    assert sample.conditions["curve"][0].tolist() == [8.0, 9.0]


def test_without_ghosts_the_structures_are_as_they_are(mixed):
    sample, _ = feed(mixed, ghost_density=None).sample(torch.tensor([2]), generator())
    assert torch.equal(sample.positions, mixed.select([2]).positions)
    assert torch.equal(KNOWN.decode(sample.elements), mixed.select([2]).species)


def test_batches_count_ghosts_and_cover_an_epoch(mixed):
    sizes = feed(mixed).sample(torch.arange(6), generator())[0].n_atoms
    limited = feed(mixed, max_atoms=int(sizes.max()) + int(sizes.min()))
    found = [sample.n_atoms for sample, _ in limited.in_order(generator())]
    assert all(int(n.sum()) <= int(sizes.max()) + int(sizes.min()) for n in found)
    assert torch.cat(found).tolist() == sizes[: len(torch.cat(found))].tolist()
    with pytest.raises(ValueError, match=rf"must hold the largest structure with its ghosts, {int(sizes.max())} atoms"):
        feed(mixed, max_atoms=int(sizes.max()) - 1)


def test_density_is_checked_before_training():
    with pytest.raises(ValueError, match=r"must lie in \(0, 0\.5\) atoms/Å³, got 2\.2"):
        GhostConfig(density=2.2)


@pytest.mark.parametrize("energy", [False, True])
def test_a_padded_network_says_the_same_and_sees_one_shape(mixed, energy):
    shapes = Shapes.of(mixed, cutoff=4.0, batch_size=3, ghost_density=DENSITY)
    scales = {"x": PropertyScale(0.0, 1.0), "curve": PropertyScale(0.0, 1.0, size=2)}
    config = ScoreConfig(KNOWN, scales, EGNNConfig(layers=2, hidden=16, channels=2, cutoff=4.0), energy=energy)
    model = denoiser_of(config, Diffusion())
    seen = []

    def note(_, given):
        values = given[0]._asdict()
        seen.append([tuple(v.shape) for v in [*values.pop("conditions").values(), *values.values()]])

    model.network.register_forward_pre_hook(note)
    supply = feed(mixed, shapes=shapes)
    for chosen in (torch.tensor([4, 1, 0]), torch.tensor([2, 3])):
        sample, plan = supply.sample(chosen, generator())
        t = torch.linspace(0.2, 0.6, len(sample))
        noise = gaussian_noise(sample, generator())
        noisy = corrupt(sample, t, noise, Diffusion())
        weights = [p for p in model.parameters() if p.requires_grad]
        outcomes = []
        for room in (shapes.room, None):
            found = model(noisy, t, plan=plan, room=room)
            loss = score_matching(lambda *_, found=found: found, sample, t=t, noise=noise, diffusion=Diffusion())
            total = loss.positions.sum() + loss.elements.sum()
            slopes = torch.autograd.grad(total, weights, allow_unused=True)
            outcomes.append([found.positions, found.elements, *(s for s in slopes if s is not None)])
        for ours, plain in zip(*outcomes, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)
    assert seen[0] == seen[2] != seen[1]
    sample, plan = supply.sample(torch.tensor([4, 1, 0]), generator())
    with pytest.raises(ValueError, match=r"3 systems of \d+ atoms do not fit into Room\(systems=2"):
        model(sample, torch.full((3,), 0.5), plan=plan, room=Room(2, 1000))


def test_a_step_never_asks_the_device_for_a_number(mixed):
    """Meta tensors have no values: whatever the host would wait for fails on them."""
    meta = torch.device("meta")
    shapes = Shapes.of(mixed, cutoff=4.0, batch_size=3, ghost_density=DENSITY)
    sample, plan = feed(mixed, device=meta, shapes=shapes).sample(torch.tensor([4, 1, 0]), generator())
    assert plan is not None
    noisy = corrupt(sample, torch.rand(3, device=meta), gaussian_noise(sample, generator()), Diffusion())
    found = neighbor_matrix(noisy.positions, noisy.cell, noisy.n_atoms, cutoff=4.0, plan=plan)
    assert found.target.device == meta
    assert found.target.shape[1] == plan.capacity
