"""What the fused kernels do with a tile of edges, in Triton: its slots and inputs, the layer norm, activations.

A tile is `ROWS` atoms times `BLOCK` neighbour slots. Matrix products take operands of type `LOW` (bfloat16 on a GPU;
float32 in tests) and sum in float32; e · W_e is the sum of three such products of high and low parts, right to 2⁻¹⁶.
With `FAST`, tanh is the GPU's own approximation.

The kernels are in `amden.nn.fused_kernels`.
"""

from typing import no_type_check

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
@no_type_check
def count_slots(group, start, weight, atoms, neighbors, ROWS: tl.constexpr, SLOTS: tl.constexpr):
    """Slots from `start` to the last of non-zero weight in a group of rows."""
    row = group * ROWS + tl.arange(0, ROWS)[:, None]
    slot = tl.arange(0, SLOTS)[None, :]
    inside = (row < atoms) & (start + slot < neighbors)
    w = tl.load(weight + row * neighbors + start + slot, mask=inside, other=0.0)
    return tl.max(tl.reshape(tl.where(w != 0.0, slot + 1, 0), (ROWS * SLOTS,)), 0)


@triton.jit
@no_type_check
def load_tile(group, start, target, weight, atoms, neighbors, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Edge numbers of a tile, which of them exist, their neighbours and weights."""
    lane = tl.arange(0, ROWS * BLOCK)
    row = group * ROWS + lane // BLOCK
    slot = start + lane % BLOCK
    inside = (row < atoms) & (slot < neighbors)
    edge = row * neighbors + slot
    neighbor = tl.load(target + edge, mask=inside, other=0).to(tl.int32)
    return edge, inside, neighbor, tl.load(weight + edge, mask=inside, other=0.0)


@triton.jit
@no_type_check
def load_vector(pointer, WIDTH: tl.constexpr):
    """[1, WIDTH], the same for all edges."""
    return tl.load(pointer + tl.arange(0, WIDTH))[None, :]


@triton.jit
@no_type_check
def load_rows(pointer, group, atoms, ROWS: tl.constexpr, BLOCK: tl.constexpr, H: tl.constexpr):
    """A row's values [H] in float32 at each of its slots."""
    if ROWS == 1:
        return tl.load(pointer + group * H + tl.arange(0, H)).to(tl.float32)[None, :]
    else:
        row = group * ROWS + tl.arange(0, ROWS)[:, None]
        at = row * H + tl.arange(0, H)[None, :]
        values = tl.load(pointer + at, mask=row < atoms, other=0.0).to(tl.float32)
        return tl.reshape(tl.broadcast_to(values[:, None, :], (ROWS, BLOCK, H)), (ROWS * BLOCK, H))


@triton.jit
@no_type_check
def load_features(pointer, edge, inside, F: tl.constexpr):
    """[edges, 16], zero beyond the F features and for edges that do not exist."""
    f = tl.arange(0, 16)[None, :]
    return tl.load(pointer + edge[:, None] * F + f, mask=inside[:, None] & (f < F), other=0.0)


@triton.jit
@no_type_check
def load_edge_weight(pointer, F: tl.constexpr, H: tl.constexpr):
    """W_e as [16, H], zero beyond the F features."""
    f = tl.arange(0, 16)[:, None]
    return tl.load(pointer + f * H + tl.arange(0, H)[None, :], mask=f < F, other=0.0)


@triton.jit
@no_type_check
def load_matrix(pointer, OUT: tl.constexpr, H: tl.constexpr, LOW: tl.constexpr):
    """The second linear layer's [OUT, H], rounded to `LOW`."""
    return tl.load(pointer + tl.arange(0, OUT)[:, None] * H + tl.arange(0, H)[None, :]).to(LOW)


@triton.jit
@no_type_check
def _rest(values, LOW: tl.constexpr):
    """What rounding to `LOW` drops, rounded itself."""
    return (values - values.to(LOW).to(tl.float32)).to(LOW)


@triton.jit
@no_type_check
def normalised(e, we, s, neighbor, targets, H: tl.constexpr, EPS: tl.constexpr, LOW: tl.constexpr, EXACT: tl.constexpr):
    """Layer norm of x = e · W_e + s_i + q_j without its scale and shift, and 1/deviation."""
    x = s + tl.load(targets + neighbor[:, None] * H + tl.arange(0, H)[None, :]).to(tl.float32)
    x = tl.dot(e.to(LOW), we.to(LOW), x, input_precision=EXACT)
    x = tl.dot(_rest(e, LOW), we.to(LOW), x, input_precision=EXACT)
    x = tl.dot(e.to(LOW), _rest(we, LOW), x, input_precision=EXACT)
    x = x - (tl.sum(x, 1) / H)[:, None]
    rstd = tl.rsqrt(tl.sum(x * x, 1) / H + EPS)
    return x * rstd[:, None], rstd


@triton.jit
@no_type_check
def _half_tanh(x, FAST: tl.constexpr):
    """tanh(x/2), of which sigmoid(x) = (1 + tanh(x/2))/2 is made."""
    if FAST:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [0.5 * x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 2.0 * tl.sigmoid(x) - 1.0


@triton.jit
@no_type_check
def sigmoid(x, FAST: tl.constexpr):
    """1/(1 + exp(-x))."""
    return 0.5 * _half_tanh(x, FAST) + 0.5


@triton.jit
@no_type_check
def silu(x, FAST: tl.constexpr):
    """x · sigmoid(x)."""
    half = 0.5 * x
    return half * _half_tanh(x, FAST) + half


@triton.jit
@no_type_check
def silu_slope(x, FAST: tl.constexpr):
    """The derivative of `silu`."""
    s = sigmoid(x, FAST)
    return s + x * s * (1.0 - s)
