"""Triton kernels of the edge work in eq. 9: no edge-wide tensor of width `hidden` ever reaches global memory.

A program walks over tiles and keeps the weights in shared memory. Tiles beyond a row's last slot of non-zero weight are
left out, so padding costs little. Letters: n the normalised input of the first activation, y what the second linear
layer sees, z what it gives; `d` in front of a name is its gradient.

Sums over edges run as matrix products too: `sums` [hidden, 16] gathers valueᵀ · side, where `side` [edges, 16] holds
the features or ones in a single column. Its columns are F features (the gradient of W_e), `ROWS` rows (of s), then
beta, gamma, the output's bias and the gate.

A backward has two halves, `INNER` (all gradients but that of the second linear layer's matrix, which takes many
registers) and `OUTER` (that one), in one launch or two. Without `PARAMETERS` it is the inner half alone, with the
gradients of what positions change, the edge weights too, and of no parameter: that is what an energy needs.

`zero` is 0: added to the address of a small vector it keeps the compiler from loading it early and holding it in
registers, which are what these kernels are short of.

What they do with a tile is in `amden.nn.fused_tiles`; what calls them, allocates and reduces is `amden.nn.fused`.
"""

from typing import no_type_check

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from amden.nn.fused_tiles import (
    count_slots,
    load_edge_weight,
    load_features,
    load_matrix,
    load_rows,
    load_tile,
    load_vector,
    normalised,
    sigmoid,
    silu,
    silu_slope,
)


@triton.jit(do_not_specialize=["atoms", "neighbors"])
@no_type_check
def message_forward(
    source, targets, target, features, weight, edge_weight, gamma, beta, out_weight, out_bias, gate_weight, gate_bias,
    result, atoms, neighbors, zero,
    H: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
    LOW: tl.constexpr, FAST: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Σ_j sigmoid(m · g + b) w m for each row, m = silu(W silu(norm(x)) + b)."""
    column = tl.arange(0, H)
    we = load_edge_weight(edge_weight, F, H)
    out = tl.trans(load_matrix(out_weight, H, H, LOW))
    gate_shift = tl.load(gate_bias)
    for row in range(tl.program_id(0), atoms, tl.num_programs(0)):
        total = tl.zeros((H,), tl.float32)
        for start in range(0, count_slots(row, 0, weight, atoms, neighbors, 1, SLOTS), BLOCK):
            edge, inside, neighbor, w = load_tile(row, start, target, weight, atoms, neighbors, 1, BLOCK)
            late = zero * start
            s = tl.load(source + row * H + column + late).to(tl.float32)[None, :]
            e = load_features(features, edge, inside, F)
            n, _ = normalised(e, we, s, neighbor, targets, H, EPS, LOW, EXACT)
            y = silu(n * load_vector(gamma + late, H) + load_vector(beta + late, H), FAST).to(LOW)
            z = tl.dot(y, out, input_precision=EXACT) + load_vector(out_bias + late, H)
            m = silu(z, FAST)
            gate = load_vector(gate_weight + late, H)
            a = sigmoid(tl.sum(m * gate, 1) + gate_shift, FAST) * w
            total += tl.sum(m * a[:, None], 0)
        tl.store(result + row * H + column, total)


@triton.jit(do_not_specialize=["atoms", "neighbors"])
@no_type_check
def displacement_forward(
    source, targets, target, features, vectors, weight, edge_weight, gamma, beta, out_weight, out_bias,
    result, atoms, neighbors, zero,
    H: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
    LOW: tl.constexpr, FAST: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Σ_j Σ_c' Φ[c, c'] v_j[c'] for each row and channel c, Φ = w (W silu(norm(x)) + b)."""
    C: tl.constexpr = F - 1
    column = tl.arange(0, H)
    channel = tl.arange(0, C)
    we = load_edge_weight(edge_weight, F, H)
    out = tl.trans(load_matrix(out_weight, C * C, H, LOW))
    for row in range(tl.program_id(0), atoms, tl.num_programs(0)):
        ux = tl.zeros((C,), tl.float32)
        uy = tl.zeros((C,), tl.float32)
        uz = tl.zeros((C,), tl.float32)
        for start in range(0, count_slots(row, 0, weight, atoms, neighbors, 1, SLOTS), BLOCK):
            edge, inside, neighbor, w = load_tile(row, start, target, weight, atoms, neighbors, 1, BLOCK)
            late = zero * start
            s = tl.load(source + row * H + column + late).to(tl.float32)[None, :]
            e = load_features(features, edge, inside, F)
            n, _ = normalised(e, we, s, neighbor, targets, H, EPS, LOW, EXACT)
            y = silu(n * load_vector(gamma + late, H) + load_vector(beta + late, H), FAST).to(LOW)
            z = tl.dot(y, out, input_precision=EXACT) + load_vector(out_bias + late, C * C)
            mixing = tl.reshape(z * w[:, None], (BLOCK, C, C))
            v = vectors + edge[:, None] * (3 * C) + channel[None, :] * 3
            ux += _mixed(mixing, v, inside)
            uy += _mixed(mixing, v + 1, inside)
            uz += _mixed(mixing, v + 2, inside)
        to = result + row * (3 * C) + channel * 3
        tl.store(to, ux)
        tl.store(to + 1, uy)
        tl.store(to + 2, uz)


@triton.jit
@no_type_check
def _mixed(mixing, v, inside):
    values = tl.load(v, mask=inside[:, None], other=0.0)
    return tl.sum(tl.sum(mixing * values[:, None, :], 2), 0)


@triton.jit
@no_type_check
def _indicator(column, M: tl.constexpr, LOW: tl.constexpr):
    """[M, 16] with ones in one column: valueᵀ · indicator sums the values over the edges."""
    f = tl.arange(0, 16)[None, :]
    return tl.broadcast_to(tl.where(f == column, 1.0, 0.0), (M, 16)).to(LOW)


@triton.jit
@no_type_check
def _input_gradient(
    dz, n, rstd, zero, gamma, beta, e, edge, inside, target, weight, we, out, sums, dtargets, dfeatures,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, H: tl.constexpr, F: tl.constexpr,
    LOW: tl.constexpr, FAST: tl.constexpr, EXACT: tl.constexpr, PARAMETERS: tl.constexpr,
):  # fmt: skip
    """From dz back to x: writes the gradients of q and e, adds to the column sums."""
    M: tl.constexpr = ROWS * BLOCK
    f = tl.arange(0, 16)[None, :]
    n = n.to(tl.float32)
    d = tl.dot(dz, out, input_precision=EXACT) * silu_slope(n * load_vector(gamma, H) + load_vector(beta, H), FAST)
    if PARAMETERS:
        sums = tl.dot(tl.trans(d.to(LOW)), _indicator(F + ROWS, M, LOW), sums, input_precision=EXACT)
        sums = tl.dot(tl.trans((d * n).to(LOW)), _indicator(F + ROWS + 1, M, LOW), sums, input_precision=EXACT)
    d = d * load_vector(gamma + zero, H)
    d = d - (tl.sum(d, 1) / H)[:, None] - n * (tl.sum(d * n, 1) / H)[:, None]
    d = d * rstd[:, None]
    low = d.to(LOW)
    side = tl.where(f == F + (tl.arange(0, M) // BLOCK)[:, None], 1.0, e).to(LOW)
    sums = tl.dot(tl.trans(low), side, sums, input_precision=EXACT)
    de = tl.dot(low, tl.trans(we.to(LOW)), input_precision=EXACT)
    tl.store(dfeatures + edge[:, None] * F + f, de, mask=inside[:, None] & (f < F))
    neighbor = tl.load(target + edge, mask=inside, other=0).to(tl.int32)
    some = inside & (tl.load(weight + edge, mask=inside, other=0.0) != 0.0)
    to = dtargets + neighbor[:, None] * H + tl.arange(0, H)[None, :]
    tl.atomic_add(to, d, mask=some[:, None], sem="relaxed")
    return sums


@triton.jit
@no_type_check
def _take_sources(sums, group, dsource, atoms, ROWS: tl.constexpr, H: tl.constexpr, F: tl.constexpr):
    """Writes the rows' own column sums (the gradient of s) and clears them for the next group."""
    f = tl.arange(0, 16)[None, :]
    for r in tl.static_range(ROWS):
        ds = tl.sum(tl.where(f == F + r, sums, 0.0), 1)
        row = group * ROWS + r
        if row < atoms:
            tl.atomic_add(dsource + row * H + tl.arange(0, H), ds, sem="relaxed")
    return tl.where((f >= F) & (f < F + ROWS), 0.0, sums)


@triton.jit
@no_type_check
def _share(pointer, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where a program keeps its share of a [ROWS, COLUMNS] gradient, and what follows it."""
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return pointer + at, pointer + ROWS * COLUMNS


@triton.jit(do_not_specialize=["atoms", "neighbors"])
@no_type_check
def message_backward(
    grad, source, targets, target, features, weight, edge_weight, gamma, beta, out_weight, out_bias, gate_weight,
    gate_bias, dsource, dtargets, dfeatures, dweight, outer, inner, atoms, neighbors, zero,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
    LOW: tl.constexpr, FAST: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, INNER: tl.constexpr, OUTER: tl.constexpr, PARAMETERS: tl.constexpr,
):  # fmt: skip
    """Gradients of `message_forward`, which is done again tile by tile."""
    M: tl.constexpr = ROWS * BLOCK
    f = tl.arange(0, 16)[None, :]
    we = load_edge_weight(edge_weight, F, H)
    out = load_matrix(out_weight, H, H, LOW)
    gate_shift = tl.load(gate_bias)
    dout = tl.zeros((H, H), tl.float32)
    sums = tl.zeros((H, 16), tl.float32)
    dgate = tl.zeros((M,), tl.float32)
    groups = (atoms + ROWS - 1) // ROWS
    for tile in range(tl.program_id(0), groups * ((neighbors + BLOCK - 1) // BLOCK), tl.num_programs(0)):
        group = tile % groups
        start = tile // groups * BLOCK
        if count_slots(group, start, weight, atoms, neighbors, ROWS, BLOCK) > 0:
            edge, inside, neighbor, w = load_tile(group, start, target, weight, atoms, neighbors, ROWS, BLOCK)
            late = zero * tile
            s = load_rows(source + late, group, atoms, ROWS, BLOCK, H)
            e = load_features(features, edge, inside, F)
            n, rstd = normalised(e, we, s, neighbor, targets, H, EPS, LOW, EXACT)
            y = silu(n * load_vector(gamma + late, H) + load_vector(beta + late, H), FAST).to(LOW)
            n = n.to(LOW)
            z = tl.dot(y, tl.trans(out), input_precision=EXACT) + load_vector(out_bias + late, H)
            slope = silu_slope(z, FAST).to(LOW)
            m = silu(z, FAST)
            a = sigmoid(tl.sum(m * load_vector(gate_weight + late, H), 1) + gate_shift, FAST)
            dm = load_rows(grad + late, group, atoms, ROWS, BLOCK, H)
            along = tl.sum(m * dm, 1)
            dlogit = along * w * a * (1.0 - a)
            if not PARAMETERS:
                tl.store(dweight + edge, along * a, mask=inside)
            if INNER and PARAMETERS:
                dgate += dlogit
                side = tl.where(f == F + ROWS + 3, dlogit[:, None], 0.0).to(LOW)
                sums = tl.dot(tl.trans(m.to(LOW)), side, sums, input_precision=EXACT)
            late += zero
            dm = load_rows(grad + late, group, atoms, ROWS, BLOCK, H)
            dz = ((a * w)[:, None] * dm + dlogit[:, None] * load_vector(gate_weight + late, H)) * slope.to(tl.float32)
            dz = dz.to(LOW)
            if OUTER:
                dout = tl.dot(tl.trans(dz), y, dout, input_precision=EXACT)
            if INNER:
                if PARAMETERS:
                    sums = tl.dot(tl.trans(dz), _indicator(F + ROWS + 2, M, LOW), sums, input_precision=EXACT)
                sums = _input_gradient(
                    dz, n, rstd, zero, gamma + late + zero, beta + late + zero, e, edge, inside, target, weight, we,
                    out, sums, dtargets, dfeatures, ROWS, BLOCK, H, F, LOW, FAST, EXACT, PARAMETERS,
                )  # fmt: skip
                sums = _take_sources(sums, group, dsource, atoms, ROWS, H, F)
    if OUTER:
        to, _ = _share(outer + tl.program_id(0) * (H * H), H, H)
        tl.store(to, dout)
    if INNER and PARAMETERS:
        to, last = _share(inner + tl.program_id(0) * (H * 16 + 1), H, 16)
        tl.store(to, sums)
        tl.store(last, tl.sum(dgate, 0))


@triton.jit(do_not_specialize=["atoms", "neighbors"])
@no_type_check
def displacement_backward(
    grad, source, targets, target, features, vectors, weight, edge_weight, gamma, beta, out_weight, out_bias,
    dsource, dtargets, dfeatures, dvectors, dweight, outer, inner, atoms, neighbors, zero,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
    LOW: tl.constexpr, FAST: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, INNER: tl.constexpr, OUTER: tl.constexpr, PARAMETERS: tl.constexpr,
):  # fmt: skip
    """Gradients of `displacement_forward`, which is done again tile by tile."""
    M: tl.constexpr = ROWS * BLOCK
    C: tl.constexpr = F - 1
    KK: tl.constexpr = C * C
    f = tl.arange(0, 16)[None, :]
    channel = tl.arange(0, C)
    we = load_edge_weight(edge_weight, F, H)
    out = load_matrix(out_weight, KK, H, LOW)
    dout = tl.zeros((KK, H), tl.float32)
    sums = tl.zeros((H, 16), tl.float32)
    dbias = tl.zeros((KK, 16), tl.float32)
    groups = (atoms + ROWS - 1) // ROWS
    for tile in range(tl.program_id(0), groups * ((neighbors + BLOCK - 1) // BLOCK), tl.num_programs(0)):
        group = tile % groups
        start = tile // groups * BLOCK
        if count_slots(group, start, weight, atoms, neighbors, ROWS, BLOCK) > 0:
            edge, inside, neighbor, w = load_tile(group, start, target, weight, atoms, neighbors, ROWS, BLOCK)
            late = zero * tile
            s = load_rows(source + late, group, atoms, ROWS, BLOCK, H)
            e = load_features(features, edge, inside, F)
            n, rstd = normalised(e, we, s, neighbor, targets, H, EPS, LOW, EXACT)
            y = silu(n * load_vector(gamma + late, H) + load_vector(beta + late, H), FAST).to(LOW)
            n = n.to(LOW)
            z = tl.dot(y, tl.trans(out), input_precision=EXACT) + load_vector(out_bias + late, KK)
            mixing = tl.reshape(z * w[:, None], (M, C, C))
            row = group * ROWS + tl.arange(0, M) // BLOCK
            du = grad + row[:, None] * (3 * C) + channel[None, :] * 3
            at = edge[:, None] * (3 * C) + channel[None, :] * 3
            dz = tl.zeros((M, C, C), tl.float32)
            for x in tl.static_range(3):
                u = tl.load(du + x, mask=inside[:, None], other=0.0)[:, :, None]
                v = tl.load(vectors + at + x, mask=inside[:, None], other=0.0)[:, None, :]
                if INNER:
                    tl.store(dvectors + at + x, tl.sum(mixing * u, 1), mask=inside[:, None])
                dz += u * v
            if not PARAMETERS:
                tl.store(dweight + edge, tl.sum(tl.reshape(dz, (M, KK)) * z, 1), mask=inside)
            dz = (tl.reshape(dz, (M, KK)) * w[:, None]).to(LOW)
            if OUTER:
                dout = tl.dot(tl.trans(dz), y, dout, input_precision=EXACT)
            if INNER:
                if PARAMETERS:
                    dbias = tl.dot(tl.trans(dz), _indicator(0, M, LOW), dbias, input_precision=EXACT)
                sums = _input_gradient(
                    dz, n, rstd, zero, gamma + late + zero, beta + late + zero, e, edge, inside, target, weight, we,
                    out, sums, dtargets, dfeatures, ROWS, BLOCK, H, F, LOW, FAST, EXACT, PARAMETERS,
                )  # fmt: skip
                sums = _take_sources(sums, group, dsource, atoms, ROWS, H, F)
    if OUTER:
        to, _ = _share(outer + tl.program_id(0) * (KK * H), KK, H)
        tl.store(to, dout)
    if INNER and PARAMETERS:
        to, last = _share(inner + tl.program_id(0) * (H * 16 + KK), H, 16)
        tl.store(to, sums)
        tl.store(last + tl.arange(0, KK), tl.sum(tl.where(f == 0, dbias, 0.0), 1))
