"""Fused operations on the GPU against the plain network in float64: about as near as plain bfloat16 autocast."""

import pytest
import torch

from amden.diffusion.vocabulary import Vocabulary
from amden.neighbors import neighbor_matrix
from amden.nn.egnn import EGNN, Edges, EGNNConfig, EGNNLayer
from amden.nn.energy import EnergyNetwork
from amden.nn.fused import FusedEdges, displacement, fused_available, message
from amden.nn.score import Inputs, ScoreConfig

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUDA = torch.device("cuda")
CONFIG = EGNNConfig()
ATOMS, NEIGHBORS = 301, 88


@pytest.fixture(autouse=True)
def _hopper():
    if not fused_available(hidden=CONFIG.hidden, channels=CONFIG.channels, device=CUDA):
        pytest.skip("no fused kernels for this device")


def relative(found: torch.Tensor, want: torch.Tensor) -> float:
    found, want = found.detach().double(), want.detach().double()
    return float((found - want).norm() / want.norm())


def one_layer() -> EGNNLayer:
    torch.manual_seed(0)
    layer = EGNNLayer(CONFIG).to(CUDA)
    for p in layer.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return layer


def inputs(dtype: torch.dtype, nodes: torch.dtype) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    x = {
        "s": torch.randn(ATOMS, CONFIG.hidden, device=CUDA).bfloat16().to(nodes),
        "q": torch.randn(ATOMS, CONFIG.hidden, device=CUDA).bfloat16().to(nodes),
        "e": (2 * torch.rand(ATOMS, NEIGHBORS, CONFIG.channels + 1, device=CUDA) - 1).to(dtype),
        "v": torch.randn(ATOMS, NEIGHBORS, CONFIG.channels, 3, device=CUDA).to(dtype),
    }
    return {k: t.requires_grad_() for k, t in x.items()}


def graph(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    target = torch.randint(0, ATOMS, (ATOMS, NEIGHBORS), device=CUDA)
    count = torch.randint(40, NEIGHBORS + 1, (ATOMS, 1), device=CUDA)
    count[7] = 0
    count[ATOMS - 1] = NEIGHBORS
    weight = torch.rand(ATOMS, NEIGHBORS, device=CUDA) / 40
    return target, torch.where(torch.arange(NEIGHBORS, device=CUDA) < count, weight, 0.0).to(dtype)


def one(kind: str, layer: EGNNLayer, x: dict[str, torch.Tensor], *, fused: bool) -> torch.Tensor:
    target, weight = graph(x["e"].dtype)
    nodes = (x["s"], x["q"])
    if fused:
        edges = FusedEdges(target, weight, x["e"])
        if kind == "message":
            return message(nodes, edges, layer.edge.behind_nodes, (layer.gate.weight, layer.gate.bias))
        return displacement(nodes, edges, layer.coordinate.behind_nodes, x["v"])
    edges = Edges(target, x["v"][:, :, 0], x["e"][..., :1], weight)
    return (
        layer._message(nodes, edges, x["e"]) if kind == "message" else layer._displacement(nodes, edges, x["e"], x["v"])
    )


def outcome(kind: str, layer: EGNNLayer, x: dict[str, torch.Tensor], *, fused: bool) -> dict[str, torch.Tensor]:
    out = one(kind, layer, x, fused=fused)
    torch.manual_seed(3)
    probe = torch.randn(out.shape, device=CUDA).to(out.dtype)
    given = {**x, **dict(layer.named_parameters())}
    found = torch.autograd.grad((out * probe).sum(), list(given.values()), allow_unused=True)
    return {"out": out, **{k: g for k, g in zip(given, found, strict=True) if g is not None}}


@pytest.mark.parametrize("kind", ["message", "displacement"])
def test_values_and_gradients_of_one_operation(kind):
    layer = one_layer()
    fused = outcome(kind, layer, inputs(torch.float32, torch.bfloat16), fused=True)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        plain = outcome(kind, layer, inputs(torch.float32, torch.bfloat16), fused=False)
    exact = outcome(kind, layer.double(), inputs(torch.float64, torch.float64), fused=False)
    assert fused.keys() == exact.keys()
    errors = {k: (relative(fused[k], exact[k]), relative(plain[k], exact[k])) for k in exact}
    print(kind, {k: f"{a:.1e} ({b:.1e})" for k, (a, b) in errors.items()})
    for name, (ours, theirs) in errors.items():
        assert ours < max(3 * theirs, 1e-2), (name, ours, theirs)


def crystal_like() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    cell = 17.25 * torch.eye(3, device=CUDA).repeat(3, 1, 1)
    positions = 17.25 * torch.rand(3 * 256, 3, device=CUDA)
    found = neighbor_matrix(positions, cell, torch.full((3,), 256, device=CUDA), cutoff=CONFIG.cutoff)
    return positions, found.target, found.offset


def network_outcome(net: EGNN, dtype: torch.dtype, call=None) -> dict[str, torch.Tensor]:
    positions, target, offset = crystal_like()
    features = torch.ones(len(positions), 1, device=CUDA, dtype=dtype)
    h, u = (net if call is None else call)(features, positions.to(dtype), target, offset.to(dtype))
    torch.manual_seed(5)
    loss = (u * torch.randn(u.shape, device=CUDA)).sum() + (h * torch.randn(h.shape, device=CUDA)).sum()
    given = dict(net.named_parameters())
    return {"h": h, "u": u, **dict(zip(given, torch.autograd.grad(loss, list(given.values())), strict=True))}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("compiled", [False, True])
def test_values_and_gradients_of_the_network(compiled):
    torch.manual_seed(0)
    net = EGNN(CONFIG, features=1).to(CUDA)
    call = torch.compile(net, fullgraph=True) if compiled else net
    with torch.autocast("cuda", dtype=torch.bfloat16):
        plain = network_outcome(net, torch.float32)
        assert net.fuse(CUDA)
        fused = network_outcome(net, torch.float32, call)
    net.fuse(CUDA, fused_kernels=False)
    exact = network_outcome(net.double(), torch.float64)
    errors = {k: (relative(fused[k], exact[k]), relative(plain[k], exact[k])) for k in exact}
    print({k: f"{a:.1e} ({b:.1e})" for k, (a, b) in errors.items()})
    for name, (ours, theirs) in errors.items():
        assert ours < max(3 * theirs, 2e-2), (name, ours, theirs)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("compiled", [False, True])
def test_energies_and_their_gradients(compiled):
    torch.manual_seed(0)
    net = EnergyNetwork(ScoreConfig(Vocabulary((14,)), egnn=CONFIG, energy=True)).to(CUDA)
    for p in net.parameters():
        p.data += 0.02 * torch.randn_like(p)
    positions, target, offset = crystal_like()
    system = torch.arange(3, device=CUDA).repeat_interleave(256)
    t, none = torch.full((3,), 0.2, device=CUDA), positions.new_zeros(len(positions), 0)

    def outcome(dtype: torch.dtype) -> list[torch.Tensor]:
        with torch.no_grad():
            x, e = positions.to(dtype), none.to(dtype)
            return list(net(Inputs(t.to(dtype), x, e, {}, system, target, offset.to(dtype))))[:2]

    with torch.autocast("cuda", dtype=torch.bfloat16):
        plain = outcome(torch.float32)
        assert net.egnn.fuse(CUDA)
        if compiled:
            net.compile(dynamic=False)
        fused = outcome(torch.float32)
    net = net.double()
    net.compile(disable=True)
    net.egnn.fuse(CUDA, fused_kernels=False)
    exact = outcome(torch.float64)
    for name, ours, theirs, true in zip(("energy", "gradient"), fused, plain, exact, strict=True):
        print(name, f"{relative(ours, true):.1e} ({relative(theirs, true):.1e})")
        assert relative(ours, true) < max(2 * relative(theirs, true), 5e-3), name


def test_where_positions_and_weights_need_gradients_the_plain_network_runs():
    torch.manual_seed(0)
    net = EGNN(CONFIG, features=1).to(CUDA)
    assert net.fuse(CUDA)
    positions, target, offset = crystal_like()
    features = torch.ones(len(positions), 1, device=CUDA)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        x = positions.requires_grad_()
        (force,) = torch.autograd.grad(net(features, x, target, offset)[0].sum(), x, create_graph=True)
        force.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_no_atoms():
    layer = one_layer()
    s = torch.zeros(0, CONFIG.hidden, device=CUDA, dtype=torch.bfloat16)
    edges = FusedEdges(
        torch.zeros(0, 8, dtype=torch.int64, device=CUDA),
        torch.zeros(0, 8, device=CUDA),
        torch.zeros(0, 8, 9, device=CUDA),
    )
    assert message((s, s), edges, layer.edge.behind_nodes, (layer.gate.weight, layer.gate.bias)).shape == (
        0,
        CONFIG.hidden,
    )
