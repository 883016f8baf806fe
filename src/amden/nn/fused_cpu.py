"""The layers of eq. 9 on a processor without gradients: a tile of atoms at a time, padding left out, in float32.

The plain network makes a pass over memory for each operation on edges. Here the edges of a few atoms go through a whole
perceptron while they are in the cache: one compiled loop makes the input of its layer norm and the norm itself, PyTorch
does the SiLU and the matrix product, another compiled loop sums over neighbours. Tiles are shared among as many threads
as PyTorch has been given.
"""

import math
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, no_type_check

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import silu

from amden.compiler import kept

if TYPE_CHECKING:
    from amden.nn.egnn import EdgeMLP, Edges, EGNNLayer

TILE = 32
"""Atoms of a tile: the hidden features of their edges, 1 MB of some 2,000 at width 128, fit a core's own cache."""


class CompactEdges(NamedTuple):
    """Edges within the cutoff, those of an atom one after another."""

    start: np.ndarray
    """[atoms + 1], int64: where each atom's begin."""
    column: np.ndarray
    """[edges], int64: the neighbours."""
    vectors: np.ndarray
    """[edges, 3], r_ij in Å."""
    embedding: np.ndarray
    """[edges], eq. 8."""
    weight: np.ndarray
    """[edges], f_cut / n_norm."""


def applies(values: Tensor) -> bool:
    """Whether this can stand in for the plain layers: float32 on a CPU without autocast, no gradient.

    >>> with torch.no_grad():
    ...     applies(torch.zeros(3)), applies(torch.zeros(3, dtype=torch.float64))
    (True, False)
    """
    plain = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    return values.device.type == "cpu" and values.dtype == torch.float32 and not plain


def compact(edges: "Edges") -> CompactEdges:
    """The edges without padding."""
    kept = edges.weight > 0
    start = torch.zeros(len(kept) + 1, dtype=torch.int64)
    torch.cumsum(kept.sum(1), 0, out=start[1:])
    values = (edges.target, edges.vectors, edges.embedding[..., 0], edges.weight)
    return CompactEdges(start.numpy(), *(v[kept].numpy() for v in values))


def layer_forward(
    layer: "EGNNLayer", h: Tensor, u: Tensor, edges: CompactEdges, *, tile: int = TILE
) -> tuple[Tensor, Tensor]:
    """What `EGNNLayer` makes of features h [atoms, hidden] and displacements u [atoms, channels, 3]."""
    tiles = [(first, min(first + tile, len(h))) for first in range(0, len(h), tile)]
    displaced, channels = u.contiguous().numpy(), u.shape[1]
    embedded = torch.empty(len(edges.column), channels)
    message, moved = torch.empty_like(h), torch.empty_like(u)
    gate, shift = _array(layer.gate.weight)[0], np.float32(layer.gate.bias.item())
    scale = np.float32(1.0 / layer.config.embedding_scale**2)

    def embed(first: int, last: int) -> np.ndarray:
        mine = embedded[edges.start[first] : edges.start[last]]
        _squares(first, last, edges.start, edges.column, edges.vectors, displaced, scale, mine.numpy())
        return torch.tanh(mine, out=mine).numpy()

    def known(first: int, last: int) -> np.ndarray:
        return embedded[edges.start[first] : edges.start[last]].numpy()

    def take_message(first: int, last: int, z: Tensor) -> None:
        m = silu(z.add_(layer.edge.out.bias), inplace=True).numpy()
        _weighted_sum(first, last, edges.start, edges.weight, m, gate, shift, message.numpy())

    def take_move(first: int, last: int, z: Tensor) -> None:
        given = (edges.start, edges.column, edges.vectors, edges.weight, displaced)
        _mixed_sum(first, last, *given, z.numpy(), _array(layer.coordinate.out.bias), moved.numpy())

    _perceptron(layer.edge, h, edges, tiles, embed, take_message)
    h = h + layer.node(torch.cat([h, message], -1))
    _perceptron(layer.coordinate, h, edges, tiles, known, take_move)
    return h, moved


def _perceptron(
    mlp: "EdgeMLP",
    h: Tensor,
    edges: CompactEdges,
    tiles: list[tuple[int, int]],
    embedding: Callable[[int, int], np.ndarray],
    take: Callable[[int, int, Tensor], None],
) -> None:
    """Hands `take` each tile's edges behind the perceptron, all but the bias of its last layer."""
    source, target = mlp.source(h).numpy(), mlp.target(h).numpy()
    first_layer = [_array(values) for values in (mlp.edge, mlp.norm.weight, mlp.norm.bias)]
    last_layer, eps = mlp.out.weight.T, np.float32(mlp.norm.eps)

    def work(tile: tuple[int, int]) -> None:
        first, last = tile
        n = int(edges.start[last] - edges.start[first])
        x = torch.empty(n, source.shape[1])
        given = (edges.start, edges.column, edges.embedding, embedding(first, last), source, target)
        _normalised(first, last, *given, *first_layer, eps, x.numpy())
        take(first, last, silu(x, inplace=True) @ last_layer)

    _share(work, tiles)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().numpy()


def _share(work: Callable[[tuple[int, int]], None], parts: Iterable[tuple[int, int]]) -> None:
    """Does all parts, on as many threads as PyTorch has."""
    threads = torch.get_num_threads()
    if threads == 1:
        for part in parts:
            work(part)
        return
    for _ in _pool(threads, os.getpid()).map(work, parts):
        pass


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads each of which has PyTorch work alone and without gradients; `process` as a fork has none of them."""
    ready = threading.Barrier(threads)

    def prepare() -> None:
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)

    pool = ThreadPoolExecutor(threads, "amden", initializer=prepare)
    for done in [pool.submit(ready.wait) for _ in range(threads)]:  # each keeps a thread until all are there
        done.result()
    torch.set_num_threads(threads)  # the threads' own choice is the default of the process, too
    return pool


@kept(fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _squares(first, last, start, column, vectors, u, scale, found):
    """|r + u_j - u_i|² · scale of each edge and channel."""
    for i in range(first, last):
        for e in range(start[i], start[i + 1]):
            j = column[e]
            for c in range(u.shape[1]):
                dx = vectors[e, 0] + u[j, c, 0] - u[i, c, 0]
                dy = vectors[e, 1] + u[j, c, 1] - u[i, c, 1]
                dz = vectors[e, 2] + u[j, c, 2] - u[i, c, 2]
                found[e - start[first], c] = (dx * dx + dy * dy + dz * dz) * scale


@kept(fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _normalised(first, last, start, column, embedding, tanhs, source, target, edge, gamma, beta, eps, found):
    """Layer norm of source_i + target_j + features · edge; the features are the embedding and 2 tanhs - 1."""
    width, channels = source.shape[1], tanhs.shape[1]
    one, two, n = np.float32(1.0), np.float32(2.0), np.float32(width)
    for i in range(first, last):
        own = source[i]
        for e in range(start[i], start[i + 1]):
            k = e - start[first]
            x, other, a = found[k], target[column[e]], embedding[e]
            for h in range(width):
                x[h] = own[h] + other[h] + a * edge[0, h]
            c = 0
            while c + 4 <= channels:  # four at a time: each pass over x is a load and a store
                a0, a1 = two * tanhs[k, c] - one, two * tanhs[k, c + 1] - one
                a2, a3 = two * tanhs[k, c + 2] - one, two * tanhs[k, c + 3] - one
                for h in range(width):
                    x[h] += a0 * edge[c + 1, h] + a1 * edge[c + 2, h] + a2 * edge[c + 3, h] + a3 * edge[c + 4, h]
                c += 4
            while c < channels:
                a = two * tanhs[k, c] - one
                for h in range(width):
                    x[h] += a * edge[c + 1, h]
                c += 1
            total = np.float32(0.0)
            for h in range(width):
                total += x[h]
            mean = total / n
            square = np.float32(0.0)
            for h in range(width):
                square += (x[h] - mean) * (x[h] - mean)
            inverse = one / np.sqrt(square / n + eps)
            for h in range(width):
                x[h] = (x[h] - mean) * inverse * gamma[h] + beta[h]


@kept(fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _weighted_sum(first, last, start, weight, m, gate, shift, found):
    """Σ_j sigmoid(m · gate + shift) w m of each atom."""
    width, one = m.shape[1], np.float32(1.0)
    for i in range(first, last):
        total = found[i]
        total[:] = 0.0
        for e in range(start[i], start[i + 1]):
            row = m[e - start[first]]
            logit = shift
            for h in range(width):
                logit += row[h] * gate[h]
            a = weight[e] / (one + np.float32(math.exp(-logit)))
            for h in range(width):
                total[h] += a * row[h]


@kept(fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _mixed_sum(first, last, start, column, vectors, weight, u, z, bias, found):
    """u_i + Σ_j w (z + bias)[b, c] v_j[c] of each atom and channel b; v = d / (sqrt(d² + 1) + 1), d = r + u_j - u_i."""
    channels, one = u.shape[1], np.float32(1.0)
    v = np.empty((3, channels), np.float32)
    for i in range(first, last):
        found[i] = u[i]
        for e in range(start[i], start[i + 1]):
            j, row = column[e], z[e - start[first]]
            for c in range(channels):
                dx = vectors[e, 0] + u[j, c, 0] - u[i, c, 0]
                dy = vectors[e, 1] + u[j, c, 1] - u[i, c, 1]
                dz = vectors[e, 2] + u[j, c, 2] - u[i, c, 2]
                factor = weight[e] / (np.sqrt(dx * dx + dy * dy + dz * dz + one) + one)
                v[0, c], v[1, c], v[2, c] = dx * factor, dy * factor, dz * factor
            for b in range(channels):
                x, y, w = np.float32(0.0), np.float32(0.0), np.float32(0.0)
                for c in range(channels):
                    phi = row[b * channels + c] + bias[b * channels + c]
                    x += phi * v[0, c]
                    y += phi * v[1, c]
                    w += phi * v[2, c]
                found[i, b, 0] += x
                found[i, b, 1] += y
                found[i, b, 2] += w
