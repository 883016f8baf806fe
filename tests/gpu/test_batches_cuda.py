from itertools import islice

import pytest
import torch

from amden.dataset import Batches
from amden.testing import random_structures

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_batches_on_the_gpu_are_those_of_the_cpu_and_wait_for_nothing():
    whole = random_structures([3, 5, 2, 7, 4, 4, 6], species=(8, 14))
    here = list(islice(Batches(whole, batch_size=3, seed=2).starting_at(4), 5))
    batches = Batches(whole.to("cuda"), batch_size=3, seed=2).starting_at(4)
    there = [next(batches)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        there += islice(batches, 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.positions, b.positions.cpu())
        assert torch.equal(a.species, b.species.cpu())
        assert torch.equal(a.n_atoms, b.n_atoms.cpu())
