"""The layers on a processor, tile by tile, against the plain network."""

import pytest
import torch

from amden.nn import fused_cpu
from amden.nn.egnn import EGNN, EGNNConfig, EGNNLayer

CPU = torch.device("cpu")
ATOMS, NEIGHBORS = 70, 9


def network(channels: int) -> EGNN:
    """With weights large enough that no part of a layer is negligible."""
    torch.manual_seed(0)
    net = EGNN(EGNNConfig(layers=2, hidden=24, channels=channels, cutoff=4.0, n_norm=3.0), features=2)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return net


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Atoms of a line with neighbours on both sides, some beyond the cutoff, and one that has none at all."""
    g = torch.Generator().manual_seed(1)
    positions = torch.rand(ATOMS, 3, generator=g) * 3.0
    target = torch.randint(0, ATOMS, (ATOMS, NEIGHBORS), generator=g)
    offset = torch.zeros(ATOMS, NEIGHBORS, 3)
    offset[:, 5:, 0] = 3.0
    offset[7] = 9.0
    return torch.rand(ATOMS, 2, generator=g).to(dtype), positions.to(dtype), target, offset.to(dtype)


@pytest.fixture
def threads():
    """Puts PyTorch's number of threads back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("channels", [4, 6])
def test_tiles_agree_with_the_plain_network(channels):
    net, given = network(channels), inputs()
    with torch.no_grad():
        plain = net(*given)
        assert net.fuse(CPU)
        tiled = net(*given)
    for found, expected in zip(tiled, plain, strict=True):
        assert expected.abs().max() > 0.5
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)
    assert not torch.equal(tiled[1], plain[1])  # else the plain network was taken


def test_an_atom_without_neighbours_gets_no_message():
    net, given = network(4), inputs()
    net.fuse(CPU)
    with torch.no_grad():
        u = net(*given)[1]
    assert u[7].abs().max() == 0
    assert u[8].abs().max() > 0


def test_threads_and_tiles_change_nothing(threads):
    net, given = network(4), inputs()
    net.fuse(CPU)
    threads(1)
    with torch.no_grad():
        alone = net(*given)
        threads(2)
        shared = net(*given)
        layer = net.layers[0]
        assert isinstance(layer, EGNNLayer)
        edges = fused_cpu.compact(net._edges(*given[1:]))
        h, u = net.embed(given[0]), torch.zeros(ATOMS, 4, 3)
        whole, parts = (fused_cpu.layer_forward(layer, h, u, edges, tile=n)[1] for n in (ATOMS, 3))
    assert torch.get_num_threads() == 2
    for one, other in zip(alone, shared, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)


def test_gradients_and_float64_keep_to_the_plain_network():
    net, given = network(4), inputs()
    plain = net(*given)[1]
    net.fuse(CPU)
    assert torch.equal(net(*given)[1], plain)
    assert plain.requires_grad
    net.double()
    with torch.no_grad():
        double = net(*inputs(torch.float64))[1]
    assert double.dtype == torch.float64
    net.fuse(CPU, fused_kernels=False)
    net.float()
    with torch.no_grad():
        assert torch.equal(net(*given)[1], plain)
