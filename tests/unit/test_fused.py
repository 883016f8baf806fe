"""The fused operations without a GPU: shapes, errors, the way around them, and Triton's interpreter where it is."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torch._subclasses import FakeTensorMode

from amden.nn.egnn import EdgeMLP, Edges, EGNNConfig, EGNNLayer
from amden.nn.fused import FusedEdges, Mlp, Pass, displacement, fused_available, message

HIDDEN, CHANNELS, ATOMS, NEIGHBORS = 32, 4, 5, 70


def layer_with_weights() -> EGNNLayer:
    torch.manual_seed(0)
    layer = EGNNLayer(EGNNConfig(hidden=HIDDEN, channels=CHANNELS))
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return layer


def leaves(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    shapes = {
        "s": (ATOMS, HIDDEN),
        "q": (ATOMS, HIDDEN),
        "e": (ATOMS, NEIGHBORS, CHANNELS + 1),
        "v": (ATOMS, NEIGHBORS, CHANNELS, 3),
    }
    return {k: torch.randn(s, generator=g).to(dtype).requires_grad_() for k, s in shapes.items()}


def graph() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of 70, 3, 20, 66 and 0 neighbours, the second with a gap."""
    g = torch.Generator().manual_seed(2)
    target = torch.randint(0, ATOMS, (ATOMS, NEIGHBORS), generator=g)
    weight = torch.rand(ATOMS, NEIGHBORS, generator=g)
    weight[torch.arange(NEIGHBORS) >= torch.tensor([70, 3, 20, 66, 0])[:, None]] = 0.0
    weight[1, 1] = 0.0
    return target, weight


def run(
    kind: str, layer: EGNNLayer, x: dict[str, torch.Tensor], *, fused: bool, weight: torch.Tensor | None = None
) -> torch.Tensor:
    target, given = graph()
    weight = given.to(x["e"].dtype) if weight is None else weight
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


def test_available_needs_a_gpu_and_a_width_the_kernels_know():
    assert not fused_available(hidden=128, channels=8, device=torch.device("cpu"))
    assert not fused_available(hidden=48, channels=8, device=torch.device("cuda"))
    assert not fused_available(hidden=128, channels=3, device=torch.device("cuda"))


def test_without_triton_it_imports_and_says_what_to_install():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from amden.nn import fused\n"
        "from amden.nn.egnn import EdgeMLP\n"
        "mlp = EdgeMLP(32, 5, 16).behind_nodes\n"
        "s = torch.zeros(1, 32)\n"
        "edges = fused.FusedEdges(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1), torch.ones(1, 1, 5))\n"
        "try: fused.displacement((s, s), edges, mlp, torch.ones(1, 1, 4, 3))\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "fused kernels need Triton: pip install triton"


@pytest.mark.parametrize(
    ("hidden", "channels", "said"),
    [(48, 4, "`hidden` must be one of .* got 48"), (32, 3, "`channels` must be one of .* got 3")],
)
def test_sizes_the_kernels_do_not_know(hidden, channels, said):
    mlp = EdgeMLP(hidden, channels + 1, channels**2).behind_nodes
    s = torch.zeros(1, hidden)
    edges = FusedEdges(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1), torch.ones(1, 1, channels + 1))
    with pytest.raises(ValueError, match=said):
        displacement((s, s), edges, mlp, torch.ones(1, 1, channels, 3))


def test_more_edges_than_offsets():
    mlp = EdgeMLP(32, 5, 16).behind_nodes
    s = torch.zeros(1, 32).expand(2**20, 32)
    target = torch.zeros(1, 1, dtype=torch.int64).expand(2**20, 256)
    edges = FusedEdges(target, torch.ones(1, 1).expand(2**20, 256), torch.ones(1, 1, 1).expand(2**20, 256, 5))
    with pytest.raises(ValueError, match="`chunk` must be smaller: 268435456 edges"):
        displacement((s, s), edges, mlp, torch.ones(1, 1, 1, 1).expand(2**20, 256, 4, 3))


@pytest.mark.parametrize("kind", ["message", "displacement"])
def test_a_compiler_sees_the_shapes_of_the_plain_network(kind):
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer, x = layer_with_weights(), leaves(torch.float32)
        plain, fused = (run(kind, layer, x, fused=f) for f in (False, True))
        assert (plain.shape, plain.dtype) == (fused.shape, fused.dtype)
        inputs = [*x.values(), *layer.parameters()]
        found = torch.autograd.grad(fused.sum(), inputs, allow_unused=True)
        for a, given in zip(found, inputs, strict=True):
            assert a is None or (a.shape, a.dtype) == (given.shape, given.dtype)
        assert sum(a is not None for a in found) == (10 if kind == "message" else 9)


def frozen(dtype: torch.dtype) -> tuple[EGNNLayer, dict[str, torch.Tensor], torch.Tensor]:
    """A layer whose parameters want no gradient, with inputs and edge weights that do."""
    weight = graph()[1].to(dtype).requires_grad_()
    layer = layer_with_weights().requires_grad_(False)
    return layer if dtype == torch.float32 else layer.to(dtype), leaves(dtype), weight


@pytest.mark.parametrize("kind", ["message", "displacement"])
def test_a_compiler_sees_the_gradients_of_inputs_alone(kind):
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer, x, weight = frozen(torch.float32)
        inputs = [weight, x["s"], x["q"], x["e"], *([x["v"]] if kind == "displacement" else [])]
        found = torch.autograd.grad(run(kind, layer, x, fused=True, weight=weight).sum(), inputs)
        assert [(a.shape, a.dtype) for a in found] == [(given.shape, given.dtype) for given in inputs]


@pytest.mark.parametrize("kind", ["message", "displacement"])
def test_gradients_of_parameters_and_edge_weights_together_are_refused(kind):
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer, x, weight = frozen(torch.float32)
        out = run(kind, layer.requires_grad_(True), x, fused=True, weight=weight)
        with pytest.raises(RuntimeError, match="not both: switch `fused` off"):
            out.sum().backward()


@pytest.mark.parametrize("kind", ["message", "displacement"])
def test_differentiating_twice_is_refused(kind):
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = leaves(torch.float32)
        out = run(kind, layer_with_weights(), x, fused=True)
        (slope,) = torch.autograd.grad(out.sum(), x["e"], create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivative: switch `fused` off"):
            slope.sum().backward()


INTERPRETED = pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs Triton, TRITON_INTERPRET=1 and, with Triton 3.6, numpy < 2.4",
)


@INTERPRETED
@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
@pytest.mark.parametrize("one_launch", [False, True])
@pytest.mark.parametrize("kind", ["message", "displacement"])
def test_interpreted_kernels_equal_the_plain_network(kind, one_launch, monkeypatch):
    if one_launch:
        monkeypatch.setattr("amden.nn.fused.PASSES", (Pass(True, True, 2, 1, 8),))
    layer = layer_with_weights()
    grads = []
    for dtype, fused in ((torch.float64, False), (torch.float32, True)):
        layer, x = layer.to(dtype), leaves(dtype)
        out = run(kind, layer, x, fused=fused)
        inputs = [*x.values(), *layer.parameters()]
        weights = torch.cos(torch.arange(out.numel())).view_as(out).to(dtype)
        grads.append([out, *torch.autograd.grad((out * weights).sum(), inputs, allow_unused=True)])
    for want, found in zip(*grads, strict=True):
        assert (want is None) == (found is None)
        if want is not None:
            torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5 * want.abs().max().item())


@INTERPRETED
@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
@pytest.mark.parametrize("kind", ["message", "displacement"])
def test_interpreted_gradients_of_inputs_and_edge_weights_equal_the_plain_network(kind):
    grads = []
    for dtype, fused in ((torch.float64, False), (torch.float32, True)):
        layer, x, weight = frozen(dtype)
        out = run(kind, layer, x, fused=fused, weight=weight)
        inputs = [x["s"], x["q"], x["e"], *([x["v"]] if kind == "displacement" else [])]
        probe = torch.cos(torch.arange(out.numel())).view_as(out).to(dtype)
        *found, slope = torch.autograd.grad((out * probe).sum(), [*inputs, weight])
        grads.append([*found, torch.where(weight != 0, slope, 0.0)])
    for want, found in zip(*grads, strict=True):
        torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5 * want.abs().max().item())


def test_parameters_are_those_of_the_perceptron():
    mlp = EdgeMLP(32, 5, 16)
    assert isinstance(mlp.behind_nodes, Mlp)
    assert mlp.behind_nodes.out_bias is mlp.out.bias
