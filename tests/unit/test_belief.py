from dataclasses import replace

import torch

from amden.diffusion.belief import beliefs
from amden.diffusion.composition import Formula, log_probabilities
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.nn.classes import class_noise, scales
from amden.random import Streams

DIFFUSION, SILICA = Diffusion(), Vocabulary((8, 14))
LABELS = torch.tensor([0, 0, 1, 0, 0, 0, 0, 0, 1])
"""SiO₂ with one silicon too few; the odds of the neighbourhood say that it is atom 6."""


def neighbourhood(sample: Sample, t: torch.Tensor) -> Noise:
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]], dtype=torch.float64)[LABELS]
    logits[6] = torch.tensor([0.0, 25.0])
    logits = logits.repeat(len(sample), 1)
    noise = class_noise(logits, sample.elements, scales(DIFFUSION.elements, t, sample.system))
    return Noise(torch.zeros_like(sample.positions), noise)


def finished(seeds: list[int]) -> tuple[Sample, Streams]:
    n_atoms = torch.full((len(seeds),), 9)
    one_hot = torch.eye(2, dtype=torch.float64)[LABELS].repeat(len(seeds), 1)
    cell = 9.0 * torch.eye(3, dtype=torch.float64).repeat(len(seeds), 1, 1)
    sample = Sample(torch.zeros(9 * len(seeds), 3, dtype=torch.float64), one_hot, cell, n_atoms)
    return sample, Streams.of(torch.tensor(seeds), n_atoms)


def test_the_atom_that_is_out_of_place_is_the_one_to_change():
    sample, streams = finished([3])
    alone = Formula({14: 1, 8: 2}).assigned(log_probabilities(sample.elements).numpy(), SILICA)
    found = beliefs(neighbourhood, sample, diffusion=DIFFUSION, streams=streams)
    assert torch.equal(found.argmax(1), LABELS), "the likeliest class stays"
    chosen = Formula({14: 1, 8: 2}).assigned(log_probabilities(found).numpy(), SILICA)
    assert (torch.from_numpy(chosen) != LABELS).nonzero().flatten().tolist() == [6]
    assert (alone != LABELS.numpy()).sum() == 1, "without, any oxygen is as good"


def test_beliefs_do_not_depend_on_the_batch():
    (one, own), (both, streams) = finished([4]), finished([3, 4])
    alone = beliefs(neighbourhood, one, diffusion=DIFFUSION, streams=own)
    together = beliefs(neighbourhood, replace(both), diffusion=DIFFUSION, streams=streams)
    torch.testing.assert_close(together[9:], alone)
