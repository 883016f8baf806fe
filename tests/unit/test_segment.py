import numpy as np
import pytest
import torch

from amden import segment

N_ATOMS = torch.tensor([3, 0, 1, 4])
SYSTEM = np.repeat([0, 1, 2, 3], [3, 0, 1, 4])


def values(*shape: int) -> torch.Tensor:
    return torch.randn(8, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("total", [None, 8])
def test_system_index(total):
    assert segment.system_index(N_ATOMS, total=total).tolist() == SYSTEM.tolist()


def test_first_atom():
    assert segment.first_atom(N_ATOMS).tolist() == [0, 3, 3, 4]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_sums_and_means_over_each_system(shape):
    x = values(*shape)
    system = torch.from_numpy(SYSTEM)
    total = segment.segment_sum(x, system, n_systems=4)
    mean = segment.segment_mean(x, system, n_systems=4)
    for i, n in enumerate(N_ATOMS.tolist()):
        expected = x.numpy()[i == SYSTEM].sum(0)
        assert total[i].numpy() == pytest.approx(expected)
        assert mean[i].numpy() == pytest.approx(expected / max(n, 1))


def test_centred_systems_have_no_mean():
    x, system = values(3), torch.from_numpy(SYSTEM)
    centred = segment.centred(x, system, n_systems=4)
    assert segment.segment_mean(centred, system, n_systems=4).abs().max() < 1e-15
    assert torch.allclose((x - centred)[:3], (x - centred)[0].expand(3, 3))


def test_gradients_flow():
    x = values(3).requires_grad_()
    segment.segment_mean(x, torch.from_numpy(SYSTEM), n_systems=4).sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0].tolist() == pytest.approx([1 / 3] * 3 + [1.0] + [0.25] * 4)
