"""Message and displacement of eq. 9 as single operations on the GPU, which never store an edge-wide hidden tensor.

`message` and `displacement` are what `EGNNLayer` computes with its edge perceptrons, in bfloat16 products with float32
sums. `torch.compile` sees them as opaque nodes. Their backward recomputes the forward tile by tile: for training it has
the gradients of all but the edge weight, for forces, where no parameter wants one, those of what positions change. They
have no second derivative, so training on forces needs the plain network.

The kernels are in `amden.nn.fused_kernels`, which needs Triton and is imported when first used.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

_SIDE = 16  # columns of the kernels' matrix of column sums
_WIDTHS = (32, 64, 128)
_CHANNELS = (4, 8)
_EPS = 1e-5  # of the layer norm


def fused_available(*, hidden: int, channels: int, device: torch.device) -> bool:
    """Whether the kernels run for this width, number of channels and device: Hopper GPUs with Triton.

    >>> fused_available(hidden=128, channels=8, device=torch.device("cpu"))
    False
    """
    if device.type != "cuda" or hidden not in _WIDTHS or channels not in _CHANNELS or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


class Mlp(NamedTuple):
    """Parameters of an edge perceptron behind its projections of the nodes."""

    edge: Tensor
    """[features, hidden]"""
    gamma: Tensor
    beta: Tensor
    out_weight: Tensor
    out_bias: Tensor


class FusedEdges(NamedTuple):
    """What both operations read of the edges."""

    target: Tensor
    """[atoms, neighbors], int64"""
    weight: Tensor
    """[atoms, neighbors], float32, zero for padding; has a gradient where it is not, if no parameter has one"""
    features: Tensor
    """[atoms, neighbors, channels + 1], float32"""


def message(nodes: tuple[Tensor, Tensor], edges: FusedEdges, mlp: Mlp, gate: tuple[Tensor, Tensor]) -> Tensor:
    """Σ_j sigmoid(m · g + b) w_ij m_ij for every atom, [atoms, hidden] in float32.

    m = silu(W silu(norm(e · W_e + s_i + q_j)) + b); `nodes` are s and q, `gate` is g [1, hidden] and its bias.
    """
    _check(nodes, edges, mlp)
    target, weight, features = edges
    return _message(*nodes, target, features, weight, *mlp, gate[0], gate[1])


def displacement(nodes: tuple[Tensor, Tensor], edges: FusedEdges, mlp: Mlp, vectors: Tensor) -> Tensor:
    """Σ_j Σ_c' Φ_ij[c, c'] v_ij[c'] for every atom, [atoms, channels, 3]; Φ = w_ij (W silu(norm(...)) + b)."""
    _check(nodes, edges, mlp)
    target, weight, features = edges
    return _displacement(*nodes, target, features, vectors, weight, *mlp)


def _check(nodes: tuple[Tensor, Tensor], edges: FusedEdges, mlp: Mlp) -> None:
    n_features, hidden = mlp.edge.shape
    if hidden not in _WIDTHS:
        raise ValueError(f"`hidden` must be one of {_WIDTHS} in fused kernels, got {hidden}")
    if n_features - 1 not in _CHANNELS:
        raise ValueError(f"`channels` must be one of {_CHANNELS} in fused kernels, got {n_features - 1}")
    if edges.target.numel() * 3 * (n_features - 1) >= 2**31 or nodes[1].numel() >= 2**31:
        raise ValueError(f"`chunk` must be smaller: {edges.target.numel()} edges overflow the kernels' 32-bit offsets")


def _kernels() -> ModuleType:
    try:
        return import_module("amden.nn.fused_kernels")
    except ImportError as error:
        raise ImportError("fused kernels need Triton: pip install triton") from error


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def _on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _programs(tiles: int, device: torch.device, each: int) -> int:
    return max(1, min(tiles, _processors(device) * each))


def _settings(source: Tensor, edge: Tensor, *, block: int) -> dict:
    """Compile-time arguments. Off the GPU (Triton's interpreter) all is float32, so that tests can be sharp."""
    k = _kernels()
    gpu = source.is_cuda
    return {
        "H": edge.shape[1],
        "F": edge.shape[0],
        "BLOCK": block,
        "EPS": _EPS,
        "LOW": k.tl.bfloat16 if gpu else k.tl.float32,
        "FAST": gpu,
        "EXACT": "ieee",
    }


BLOCK = 64
"""Neighbour slots of a tile."""


def _forward(kernel: str, tensors: Sequence[Tensor], result: Tensor, edge: Tensor) -> Tensor:
    source, target = tensors[0], tensors[2]
    atoms, neighbors = target.shape
    if atoms and neighbors:
        settings = _settings(source, edge, block=BLOCK)
        slots = 1 << (neighbors - 1).bit_length()
        grid = (_programs(atoms, source.device, 3),)
        with _on(source.device):
            getattr(_kernels(), kernel)[grid](
                *tensors, result, atoms, neighbors, 0, SLOTS=slots, **settings, num_warps=4, num_stages=1, maxnreg=168
            )
        return result
    return result.zero_()


class Pass(NamedTuple):
    """A launch of a backward."""

    inner: bool
    """Gradients of the inputs."""
    outer: bool
    """Gradient of the weight matrix."""
    rows: int
    """Atoms of a tile."""
    each: int
    """Programs a multiprocessor."""
    warps: int


PASSES: tuple[Pass, ...] = (Pass(True, False, 1, 2, 4), Pass(False, True, 2, 1, 8))
"""Launches for all gradients."""


FORCE_PASSES: tuple[Pass, ...] = (Pass(True, False, 1, 1, 8),)
"""Launches for gradients of the inputs alone: with eight warps a third of the registers spilt with four."""


def _backward(
    kernel: str, tensors: Sequence[Tensor], edge: Tensor, out_weight: Tensor, vectors: list[Tensor], *, parameters: bool
) -> list:
    """Gradients of s, q, e (and v) and w; with `parameters`, where w has none, then the column sums [hidden, 16], what
    comes last, and the weight matrix's."""
    source, targets, target, features = tensors[1:5]
    atoms, neighbors = target.shape
    last = 1 if kernel == "message_backward" else out_weight.shape[0]
    like = {"dtype": torch.float32, "device": source.device}
    found = [torch.zeros(source.shape, **like), torch.zeros(targets.shape, **like), torch.zeros_like(features)]
    found += [torch.zeros_like(v) for v in vectors]
    found += [torch.zeros(() if parameters else target.shape, **like)]
    n, hidden = out_weight.shape
    outer = inner = None
    for do_inner, do_outer, rows, each, warps in PASSES if parameters else FORCE_PASSES:
        programs = _programs(-(-atoms // rows) * -(-neighbors // BLOCK), source.device, each)
        mine = torch.zeros((programs, n * hidden), **like) if do_outer else source.new_empty(1)
        summed = do_inner and parameters
        sums = torch.zeros((programs, hidden * _SIDE + last), **like) if summed else source.new_empty(1)
        if atoms and neighbors:
            with _on(source.device):
                getattr(_kernels(), kernel)[(programs,)](
                    *tensors, *found, mine, sums, atoms, neighbors, 0, **_settings(source, edge, block=BLOCK),
                    ROWS=rows, INNER=do_inner, OUTER=do_outer, PARAMETERS=parameters, num_warps=warps, num_stages=1,
                )  # fmt: skip
        if not parameters:
            continue
        outer = mine.sum(0).view(n, hidden) if do_outer else outer
        inner = (sums.sum(0), rows) if do_inner else inner
    if not parameters:
        return found
    assert inner is not None
    assert outer is not None
    sums, rows = inner
    return [*found, sums[: hidden * _SIDE].view(hidden, _SIDE), sums[hidden * _SIDE :], outer, rows]


def _refuse_double(ctx, *grads):
    raise RuntimeError("fused kernels have no second derivative: switch `fused` off to differentiate twice")


@torch.library.custom_op("amden::message", mutates_args=())
def _message(
    source: Tensor, targets: Tensor, target: Tensor, features: Tensor, weight: Tensor, edge: Tensor, gamma: Tensor,
    beta: Tensor, out_weight: Tensor, out_bias: Tensor, gate_weight: Tensor, gate_bias: Tensor,
) -> Tensor:  # fmt: skip
    result = torch.empty(source.shape, dtype=torch.float32, device=source.device)
    given = (source, targets, target, features, weight, edge, gamma, beta, out_weight, out_bias, gate_weight, gate_bias)
    return _forward("message_forward", [t.contiguous() for t in given], result, edge)


@torch.library.register_fake("amden::message")
def _message_like(source, targets, target, features, weight, *parameters):
    return source.new_empty(source.shape, dtype=torch.float32)


@torch.library.custom_op("amden::message_backward", mutates_args=())
def _message_backward(
    grad: Tensor, source: Tensor, targets: Tensor, target: Tensor, features: Tensor, weight: Tensor, edge: Tensor,
    gamma: Tensor, beta: Tensor, out_weight: Tensor, out_bias: Tensor, gate_weight: Tensor, gate_bias: Tensor,
) -> list[Tensor]:  # fmt: skip
    given = (grad, source, targets, target, features, weight)
    given += (edge, gamma, beta, out_weight, out_bias, gate_weight, gate_bias)
    found = _backward("message_backward", [t.contiguous() for t in given], edge, out_weight, [], parameters=True)
    ds, dq, de, _, sums, last, out, rows = found
    f = edge.shape[0]
    beta_, gamma_, bias_, gate_ = sums[:, f + rows : f + rows + 4].T.contiguous()
    return [
        ds.to(source.dtype), dq.to(targets.dtype), de, sums[:, :f].T.contiguous(), gamma_.clone(), beta_.clone(), out,
        bias_.clone(), gate_.clone().view_as(gate_weight), last.clone().view_as(gate_bias),
    ]  # fmt: skip


@torch.library.register_fake("amden::message_backward")
def _message_backward_like(grad, source, targets, target, features, weight, *parameters):
    return [torch.empty_like(t) for t in (source, targets, features, *parameters)]


@torch.library.custom_op("amden::message_slopes", mutates_args=())
def _message_slopes(
    grad: Tensor, source: Tensor, targets: Tensor, target: Tensor, features: Tensor, weight: Tensor, edge: Tensor,
    gamma: Tensor, beta: Tensor, out_weight: Tensor, out_bias: Tensor, gate_weight: Tensor, gate_bias: Tensor,
) -> list[Tensor]:  # fmt: skip
    given = (grad, source, targets, target, features, weight)
    given += (edge, gamma, beta, out_weight, out_bias, gate_weight, gate_bias)
    found = _backward("message_backward", [t.contiguous() for t in given], edge, out_weight, [], parameters=False)
    ds, dq, de, dw = found
    return [ds.to(source.dtype), dq.to(targets.dtype), de, dw]


@torch.library.register_fake("amden::message_slopes")
def _message_slopes_like(grad, source, targets, target, features, weight, *parameters):
    return [torch.empty_like(t) for t in (source, targets, features, weight)]


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _parameters_want(ctx, first: int, weight: int) -> bool:
    """Whether the gradient of a parameter is asked for; the edge weight then has none."""
    wanted = any(ctx.needs_input_grad[first:])
    if wanted and ctx.needs_input_grad[weight]:
        raise RuntimeError(
            "fused kernels have gradients of parameters or of edge weights, not both: switch `fused` off"
        )
    return wanted


def _message_grad(ctx, grad):
    if not _parameters_want(ctx, first=5, weight=4):
        ds, dq, de, dw = _message_slopes(grad, *ctx.saved_tensors)
        return ds, dq, None, de, dw, *(None,) * 7
    ds, dq, de, *parameters = _message_backward(grad, *ctx.saved_tensors)
    return ds, dq, None, de, None, *parameters


torch.library.register_autograd("amden::message", _message_grad, setup_context=_setup)
torch.library.register_autograd("amden::message_backward", _refuse_double)
torch.library.register_autograd("amden::message_slopes", _refuse_double)


@torch.library.custom_op("amden::displacement", mutates_args=())
def _displacement(
    source: Tensor, targets: Tensor, target: Tensor, features: Tensor, vectors: Tensor, weight: Tensor, edge: Tensor,
    gamma: Tensor, beta: Tensor, out_weight: Tensor, out_bias: Tensor,
) -> Tensor:  # fmt: skip
    result = torch.empty((len(source), *vectors.shape[2:]), dtype=torch.float32, device=source.device)
    given = (source, targets, target, features, vectors, weight, edge, gamma, beta, out_weight, out_bias)
    return _forward("displacement_forward", [t.contiguous() for t in given], result, edge)


@torch.library.register_fake("amden::displacement")
def _displacement_like(source, targets, target, features, vectors, *rest):
    return source.new_empty((source.shape[0], *vectors.shape[2:]), dtype=torch.float32)


@torch.library.custom_op("amden::displacement_backward", mutates_args=())
def _displacement_backward(
    grad: Tensor, source: Tensor, targets: Tensor, target: Tensor, features: Tensor, vectors: Tensor, weight: Tensor,
    edge: Tensor, gamma: Tensor, beta: Tensor, out_weight: Tensor, out_bias: Tensor,
) -> list[Tensor]:  # fmt: skip
    given = (grad, source, targets, target, features, vectors, weight, edge, gamma, beta, out_weight, out_bias)
    given = [t.contiguous() for t in given]
    found = _backward("displacement_backward", given, edge, out_weight, [vectors], parameters=True)
    ds, dq, de, dv, _, sums, last, out, rows = found
    f = edge.shape[0]
    beta_, gamma_ = sums[:, f + rows : f + rows + 2].T.contiguous()
    return [
        ds.to(source.dtype), dq.to(targets.dtype), de, dv, sums[:, :f].T.contiguous(), gamma_.clone(), beta_.clone(),
        out, last.clone(),
    ]  # fmt: skip


@torch.library.register_fake("amden::displacement_backward")
def _displacement_backward_like(grad, source, targets, target, features, vectors, weight, *parameters):
    return [torch.empty_like(t) for t in (source, targets, features, vectors, *parameters)]


@torch.library.custom_op("amden::displacement_slopes", mutates_args=())
def _displacement_slopes(
    grad: Tensor, source: Tensor, targets: Tensor, target: Tensor, features: Tensor, vectors: Tensor, weight: Tensor,
    edge: Tensor, gamma: Tensor, beta: Tensor, out_weight: Tensor, out_bias: Tensor,
) -> list[Tensor]:  # fmt: skip
    given = (grad, source, targets, target, features, vectors, weight, edge, gamma, beta, out_weight, out_bias)
    given = [t.contiguous() for t in given]
    ds, dq, de, dv, dw = _backward("displacement_backward", given, edge, out_weight, [vectors], parameters=False)
    return [ds.to(source.dtype), dq.to(targets.dtype), de, dv, dw]


@torch.library.register_fake("amden::displacement_slopes")
def _displacement_slopes_like(grad, source, targets, target, features, vectors, weight, *parameters):
    return [torch.empty_like(t) for t in (source, targets, features, vectors, weight)]


def _displacement_grad(ctx, grad):
    if not _parameters_want(ctx, first=6, weight=5):
        ds, dq, de, dv, dw = _displacement_slopes(grad, *ctx.saved_tensors)
        return ds, dq, None, de, dv, dw, *(None,) * 5
    ds, dq, de, dv, *parameters = _displacement_backward(grad, *ctx.saved_tensors)
    return ds, dq, None, de, dv, None, *parameters


torch.library.register_autograd("amden::displacement", _displacement_grad, setup_context=_setup)
torch.library.register_autograd("amden::displacement_backward", _refuse_double)
torch.library.register_autograd("amden::displacement_slopes", _refuse_double)
