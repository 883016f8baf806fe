"""Multi-channel equivariant graph network on bare tensors (eq. 8-11): the one file to optimise.

Neighbours come as a matrix: row i of `target` [atoms, neighbors] holds the neighbours of atom i and `offset` the
lattice vector to add, so that r_ij = x[target] - x[i] + offset. Padding entries point to the atom itself with an offset
longer than the cutoff, where the cutoff function vanishes, so sums over neighbours are plain sums over a row: no mask
and no scatter.

The first linear layer of an edge MLP acts on [h_i, h_j, e_ij]; it is split into W_i h_i + W_j h_j + W_e e_ij, so that
the large products run over atoms, not edges. Distances and the product with W_e stay in float32: at small noise the
signal is a change of 0.01 Å, which bfloat16 features would round away. So do the node features between layers and, in
an energy model, all products over atoms, which are few: else most of the energy's error is theirs (`amden.nn.energy`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from amden.nn import fused, fused_cpu


@dataclass(frozen=True)
class EGNNConfig:
    """Size and range of the network."""

    __pydantic_config__ = {"extra": "forbid"}

    layers: int = 4
    """Message-passing layers L."""
    hidden: int = 128
    """Width of node features and messages."""
    channels: int = 8
    """Vector channels k."""
    cutoff: float = 6.5
    """Range of the edges in Å."""
    n_norm: float = 40.0
    """Divisor of sums over neighbours, about their mean number."""
    embedding_range: float | None = None
    """Length in Å that divides distances in eq. 8; None: the cutoff, as in the paper. A shorter one tells bond lengths
    apart more finely."""

    @property
    def embedding_scale(self) -> float:
        """The length in eq. 8."""
        return self.cutoff if self.embedding_range is None else self.embedding_range

    def __post_init__(self) -> None:
        if self.embedding_range is not None and not self.embedding_range > 0:
            raise ValueError(f"`embedding_range` must be positive, got {self.embedding_range}")
        for name in ("layers", "hidden", "channels", "cutoff", "n_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")


class Edges(NamedTuple):
    """What an atom sees of its neighbours: a row an atom."""

    target: Int[Tensor, "atoms neighbors"]
    vectors: Float[Tensor, "atoms neighbors 3"]
    """r_ij in Å at the input positions."""
    embedding: Float[Tensor, "atoms neighbors 1"]
    """Eq. 8 of the input distance."""
    weight: Float[Tensor, "atoms neighbors"]
    """f_cut / n_norm."""

    def rows(self, rows: slice) -> "Edges":
        """The edges of some atoms."""
        return Edges(*(values[rows] for values in self))


def smooth_cutoff(distance: Float[Tensor, "*edges"], cutoff: float) -> Float[Tensor, "*edges"]:
    """f_cut(r) = 2 tanh(1 - min(r, r_cut)/r_cut)² (eq. 10): value and slope vanish at the cutoff.

    >>> smooth_cutoff(torch.tensor([6.5, 9.0]), 6.5).tolist()
    [0.0, 0.0]
    """
    return 2.0 * torch.tanh(1.0 - (distance / cutoff).clamp(max=1.0)).square()


def distance_embedding(squared: Float[Tensor, "*edges"], scale: float) -> Float[Tensor, "*edges"]:
    """e = 2 tanh(d²/scale²) - 1 (eq. 8, where the scale is the cutoff), in [-1, 1).

    >>> distance_embedding(torch.tensor([0.0]), 6.5).tolist()
    [-1.0]
    """
    return 2.0 * torch.tanh(squared / scale**2) - 1.0


def project_edges(
    features: Float[Tensor, "atoms neighbors features"], weight: Float[Tensor, "features hidden"]
) -> Float[Tensor, "atoms neighbors hidden"]:
    """features · weight in float32; written out when compiled, so that it fuses and is never stored.

    >>> project_edges(torch.ones(1, 2, 3), torch.ones(3, 1)).flatten().tolist()
    [3.0, 3.0]
    """
    with torch.autocast(features.device.type, enabled=False):
        if torch.compiler.is_compiling():
            return _UnrolledProduct.apply(features, weight)  # type: ignore[return-value]
        return features @ weight


def mixed(
    mixing: Float[Tensor, "rows neighbors channels channels"], vectors: Float[Tensor, "rows neighbors channels 3"]
) -> Float[Tensor, "rows channels 3"]:
    """Σ_jc mixing[j, b, c] · vectors[j, c]: a matrix product on a CPU, written out elsewhere, where compilers fuse it.

    >>> mixed(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3)).tolist()
    [[[6.0, 6.0, 6.0], [6.0, 6.0, 6.0], [6.0, 6.0, 6.0]]]
    """
    if vectors.device.type != "cpu":
        return (mixing[..., None] * vectors[:, :, None]).sum((1, 3))
    with torch.autocast("cpu", enabled=False):
        return mixing.transpose(1, 2).flatten(2) @ vectors.flatten(1, 2)


class _UnrolledProduct(torch.autograd.Function):
    """A thin matrix product as a sum of outer products: pointwise forward, matrix products backward."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        total = features[..., 0:1] * weight[0]
        for f in range(1, weight.shape[0]):
            total = total + features[..., f : f + 1] * weight[f]
        return total

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grad_outputs
        features, weight = ctx.saved_tensors
        low = grad.to(torch.bfloat16) if torch.is_autocast_enabled(grad.device.type) else grad
        grad_features = (low @ weight.to(low.dtype).T).to(features.dtype)
        grad_weight = features.to(low.dtype).flatten(0, -2).T @ low.flatten(0, -2)
        return grad_features, grad_weight.to(weight.dtype)


class PreciseLinear(nn.Linear):
    """A linear layer in the precision of its weights, whatever autocast asks for.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     print(PreciseLinear(2, 2)(torch.ones(1, 2)).dtype)
    torch.float32
    """

    def forward(self, input: Float[Tensor, "*n features"]) -> Float[Tensor, "*n out"]:
        """As `nn.Linear`."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class EdgeMLP(nn.Module):
    """Two-layer perceptron on [h_i, h_j, e_ij]: linear, layer norm, SiLU, linear."""

    def __init__(self, hidden: int, n_edge_features: int, out: int, *, linear: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.source = linear(hidden, hidden)
        self.target = linear(hidden, hidden, bias=False)
        self.edge = nn.Parameter(torch.randn(n_edge_features, hidden) * n_edge_features**-0.5)
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, out)

    def forward(
        self,
        nodes: tuple[Float[Tensor, "rows hidden"], Float[Tensor, "atoms hidden"]],
        target: Int[Tensor, "rows neighbors"],
        features: Float[Tensor, "rows neighbors features"],
    ) -> Float[Tensor, "rows neighbors out"]:
        """Output of the perceptron for every edge, before any last activation.

        `nodes` are the projections `(self.source(h)[rows], self.target(h))`.
        """
        source, targets = nodes
        x = project_edges(features, self.edge) + source[:, None] + targets[target]
        return self.out(silu(self.norm(x)))

    @property
    def behind_nodes(self) -> fused.Mlp:
        """What follows the projections of the nodes."""
        return fused.Mlp(self.edge, self.norm.weight, self.norm.bias, self.out.weight, self.out.bias)


class EGNNLayer(nn.Module):
    """One update of node features and vector channels (eq. 9)."""

    fused: bool = False
    """Whether to take `amden.nn.fused` where it applies; see `EGNN.fuse`."""

    def __init__(self, config: EGNNConfig, *, precise: bool = False) -> None:
        super().__init__()
        self.config = config
        hidden, k = config.hidden, config.channels
        linear = PreciseLinear if precise else nn.Linear
        self.edge = EdgeMLP(hidden, k + 1, hidden, linear=linear)
        self.gate = nn.Linear(hidden, 1)
        self.node = nn.Sequential(linear(2 * hidden, hidden), nn.LayerNorm(hidden), nn.SiLU(), linear(hidden, hidden))
        self.coordinate = EdgeMLP(hidden, k + 1, k * k, linear=linear)
        nn.init.normal_(self.coordinate.out.weight, std=1e-3)
        nn.init.zeros_(self.coordinate.out.bias)

    def forward(
        self,
        h: Float[Tensor, "atoms hidden"],
        u: Float[Tensor, "atoms channels 3"],
        edges: Edges,
        *,
        chunk: int | None = None,
    ) -> tuple[Float[Tensor, "atoms hidden"], Float[Tensor, "atoms channels 3"]]:
        """New features and channel displacements; `chunk` atoms at a time where memory matters."""
        geometry = [self._geometry(u, edges, rows) for rows in _slices(len(h), chunk)]
        source, target = self.edge.source(h), self.edge.target(h)
        message = [
            self._message((source[rows], target), edges.rows(rows), features)
            for rows, (features, _) in zip(_slices(len(h), chunk), geometry, strict=True)
        ]
        h = h + self.node(torch.cat([h, _joined(message).to(h.dtype)], -1))
        source, target = self.coordinate.source(h), self.coordinate.target(h)
        shift = [
            self._displacement((source[rows], target), edges.rows(rows), features, vectors)
            for rows, (features, vectors) in zip(_slices(len(h), chunk), geometry, strict=True)
        ]
        return h, u + _joined(shift)

    def _geometry(
        self, u: Float[Tensor, "atoms channels 3"], edges: Edges, rows: slice
    ) -> tuple[Float[Tensor, "rows neighbors features"], Float[Tensor, "rows neighbors channels 3"]]:
        """Edge features of the input and of each channel, and the channels' normalised difference vectors."""
        edges = edges.rows(rows)
        d = edges.vectors[:, :, None] + u[edges.target] - u[rows][:, None]
        squared = d.square().sum(-1)
        features = torch.cat([edges.embedding, distance_embedding(squared, self.config.embedding_scale)], -1)
        return features, d / (torch.sqrt(squared + 1.0) + 1.0)[..., None]

    def _message(
        self, nodes: tuple[Tensor, Tensor], edges: Edges, features: Float[Tensor, "rows neighbors features"]
    ) -> Float[Tensor, "rows hidden"]:
        if self._fuses(nodes, edges):
            seen = fused.FusedEdges(edges.target, edges.weight, features)
            return fused.message(nodes, seen, self.edge.behind_nodes, (self.gate.weight, self.gate.bias))
        m = silu(self.edge(nodes, edges.target, features))
        weight = torch.sigmoid(self.gate(m)) * edges.weight[..., None]
        return (weight * m).sum(1)

    def _displacement(
        self,
        nodes: tuple[Tensor, Tensor],
        edges: Edges,
        features: Float[Tensor, "rows neighbors features"],
        vectors: Float[Tensor, "rows neighbors channels 3"],
    ) -> Float[Tensor, "rows channels 3"]:
        if self._fuses(nodes, edges):
            seen = fused.FusedEdges(edges.target, edges.weight, features)
            return fused.displacement(nodes, seen, self.coordinate.behind_nodes, vectors)
        k = self.config.channels
        mixing = self.coordinate(nodes, edges.target, features).to(vectors.dtype) * edges.weight[..., None]
        return mixed(mixing.unflatten(-1, (k, k)), vectors)

    def _fuses(self, nodes: tuple[Tensor, Tensor], edges: Edges) -> bool:
        if not (self.fused and nodes[0].is_cuda and torch.is_autocast_enabled("cuda")):
            return False
        return not edges.weight.requires_grad or not any(p.requires_grad for p in self.parameters())


class EGNN(nn.Module):
    """The stack of layers: node features in, node features and channel displacements out."""

    def __init__(self, config: EGNNConfig, *, features: int, precise: bool = False) -> None:
        """`precise`: products over atoms in float32 under autocast too."""
        super().__init__()
        self.config = config
        self._tiled = False
        self.embed = PreciseLinear(features, config.hidden)
        self.layers = nn.ModuleList(EGNNLayer(config, precise=precise) for _ in range(config.layers))

    def forward(
        self,
        features: Float[Tensor, "atoms features"],
        positions: Float[Tensor, "atoms 3"],
        target: Int[Tensor, "atoms neighbors"],
        offset: Float[Tensor, "atoms neighbors 3"],
        *,
        chunk: int | None = None,
    ) -> tuple[Float[Tensor, "atoms hidden"], Float[Tensor, "atoms channels 3"]]:
        """Final features H and displacements X^(L) - X^(0) of each channel in Å."""
        with torch.autocast(positions.device.type, enabled=False):
            edges = self._edges(positions, target, offset)
        h = self.embed(features)
        u = positions.new_zeros((len(positions), self.config.channels, 3))
        if self._tiled and not torch.compiler.is_compiling() and fused_cpu.applies(positions):
            compact = fused_cpu.compact(edges)
            for layer in self.layers:
                h, u = fused_cpu.layer_forward(cast("EGNNLayer", layer), h, u, compact)
            return h, u
        for layer in self.layers:
            h, u = layer(h, u, edges, chunk=chunk)
        return h, u

    def fuse(self, device: torch.device, *, fused_kernels: bool = True) -> bool:
        """Take fused kernels on `device` where it has them; returns whether it has.

        On a GPU they are for bfloat16 autocast, and not where both positions and weights need gradients; on a CPU for
        float32 without gradients. Elsewhere the plain network is used all the same.
        """
        size = self.config
        if device.type == "cpu":
            self._tiled = fused_kernels
            return True
        available = fused.fused_available(hidden=size.hidden, channels=size.channels, device=device)
        for layer in self.modules():
            if isinstance(layer, EGNNLayer):
                layer.fused = fused_kernels and available
        return available

    def _edges(self, positions: Tensor, target: Tensor, offset: Tensor) -> Edges:
        r = positions[target] - positions[:, None] + offset
        squared = r.square().sum(-1)
        cutoff = self.config.cutoff
        distance = torch.sqrt(squared + 1e-12)
        weight = smooth_cutoff(distance, cutoff) / self.config.n_norm
        return Edges(target, r, distance_embedding(squared, self.config.embedding_scale)[..., None], weight)


def _slices(n: int, chunk: int | None) -> Iterator[slice]:
    step = n if chunk is None else chunk
    return (slice(start, start + step) for start in range(0, n, max(step, 1)))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
