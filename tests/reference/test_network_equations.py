"""The network against the equations of the paper (Methods B.2 and B.3), written out in loops over atoms, neighbours and
channels, with what `docs/architecture.md` says is different.

Nothing here calls a function of amden's network: weights are read from the state by their names.
"""

from dataclasses import replace
from itertools import product
from math import ceil, cos, exp, pi, sin, sqrt, tanh
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from amden.diffusion.denoiser import Sample
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.nn.egnn import EGNN, EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig, ScoreModel

SIZE = EGNNConfig(layers=3, hidden=6, channels=3, cutoff=4.0, n_norm=3.0)
SCALES = {"density": PropertyScale(2.2, 0.4), "modulus": PropertyScale(70.0, 12.0), "unasked": PropertyScale(1.0, 2.0)}
T = 0.3

Weights = dict[str, Tensor]


class Edge(NamedTuple):
    """A neighbour within the cutoff: atom and lattice vector."""

    j: int
    offset: Tensor


def sample() -> Sample:
    """Five atoms in a skewed cell with an edge below the cutoff: atoms see images of themselves and of others twice."""
    fractions = [(0.05, 0.1, 0.2), (0.45, 0.15, 0.6), (0.8, 0.55, 0.05), (0.3, 0.7, 0.85), (0.65, 0.9, 0.4)]
    cell = torch.tensor([[3.7, 0.2, -0.3], [0.6, 4.6, 0.1], [-0.4, 0.5, 5.2]], dtype=torch.float64)
    elements = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    asked = {"density": 2.5, "modulus": 55.0}
    conditions = {name: torch.tensor([value], dtype=torch.float64) for name, value in asked.items()}
    positions = torch.tensor(fractions, dtype=torch.float64) @ cell
    return Sample(positions, elements, cell[None], torch.tensor([5]), conditions)


def model(size: EGNNConfig = SIZE, species: tuple[int, ...] = (8, 14)) -> ScoreModel:
    """Random weights, none of them small."""
    torch.manual_seed(0)
    made = ScoreModel(ScoreConfig(Vocabulary(species), SCALES, size, property_width=4)).double()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=1.0)
    return made.requires_grad_(False)


def neighbours(x: Tensor, cell: Tensor, cutoff: float) -> list[list[Edge]]:
    """N(i) with the offsets: atoms j at x_j + o nearer than the cutoff, but not the atom itself."""
    heights = 1.0 / torch.linalg.inv(cell).norm(dim=0)
    repeats = [range(-ceil(cutoff / h) - 1, ceil(cutoff / h) + 2) for h in heights.tolist()]
    found = []
    for i in range(len(x)):
        mine = []
        for j, (a, b, c) in product(range(len(x)), product(*repeats)):
            offset = a * cell[0] + b * cell[1] + c * cell[2]
            if (i, a, b, c) != (j, 0, 0, 0) and float((x[j] + offset - x[i]).norm()) < cutoff:
                mine.append(Edge(j, offset))
        found.append(mine)
    return found


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0.0)


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean()
    return w[f"{name}.weight"] * centred / ((centred**2).mean() + 1e-5).sqrt() + w[f"{name}.bias"]


def sigmoid(x: Tensor) -> Tensor:
    return 1.0 / (1.0 + torch.exp(-x))


def silu(x: Tensor) -> Tensor:
    return x * sigmoid(x)


def edge_mlp(w: Weights, name: str, h_i: Tensor, h_j: Tensor, e_ij: Tensor) -> Tensor:
    """MLP([H_i, H_j, e_ij]) of eq. 11: the first layer is one matrix, stored in three parts."""
    matrix = torch.cat([w[f"{name}.source.weight"], w[f"{name}.target.weight"], w[f"{name}.edge"].T], 1)
    first = matrix @ torch.cat([h_i, h_j, e_ij]) + w[f"{name}.source.bias"]
    return linear(w, f"{name}.out", silu(layer_norm(w, f"{name}.norm", first)))


def f_cut(r: float, cutoff: float) -> float:
    """Eq. 10."""
    return 2.0 * tanh(1.0 - min(r, cutoff) / cutoff) ** 2


def embedding(d: Tensor, size: EGNNConfig) -> float:
    """Eq. 8; a length of its own may stand for r_cut."""
    return 2.0 * tanh(float(d @ d) / (size.embedding_range or size.cutoff) ** 2) - 1.0


def layer(
    w: Weights, size: EGNNConfig, h: list[Tensor], channels: list[list[Tensor]], edges: list[list[Edge]], x: Tensor
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Eq. 9 for every atom. Differences point from i to j; which way is a matter of the sign of Φ."""
    k, n_atoms = size.channels, len(x)
    features: dict[tuple[int, int], Tensor] = {}
    new_h = []
    for i in range(n_atoms):
        total = torch.zeros(size.hidden, dtype=torch.float64)
        for n, (j, offset) in enumerate(edges[i]):
            d0 = x[j] + offset - x[i]
            each = [channels[j][c] + offset - channels[i][c] for c in range(k)]
            e_ij = torch.tensor([embedding(d, size) for d in (d0, *each)], dtype=torch.float64)
            features[i, n] = e_ij
            m = silu(edge_mlp(w, "edge", h[i], h[j], e_ij))
            alpha = sigmoid(linear(w, "gate", m))
            total = total + f_cut(float(d0.norm()), size.cutoff) * alpha * m / size.n_norm
        hidden = silu(layer_norm(w, "node.1", linear(w, "node.0", torch.cat([h[i], total]))))
        new_h.append(h[i] + linear(w, "node.3", hidden))
    new_channels = []
    for i in range(n_atoms):
        moved = [channels[i][c].clone() for c in range(k)]
        for n, (j, offset) in enumerate(edges[i]):
            weight = f_cut(float((x[j] + offset - x[i]).norm()), size.cutoff) / size.n_norm
            phi = edge_mlp(w, "coordinate", new_h[i], new_h[j], features[i, n]).reshape(k, k)
            for b in range(k):
                for c in range(k):
                    d = channels[j][c] + offset - channels[i][c]
                    moved[b] = moved[b] + weight * phi[b, c] * d / (sqrt(float(d @ d) + 1.0) + 1.0)
        new_channels.append(moved)
    return new_h, new_channels


def within(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): values for name, values in w.items() if name.startswith(prefix)}


def egnn(
    w: Weights, size: EGNNConfig, h0: list[Tensor], x: Tensor, cell: Tensor
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """H^(L) and X^(L): all channels start at the positions, features at a linear image of eq. 14."""
    edges = neighbours(x, cell, size.cutoff)
    h, channels = [linear(w, "embed", row) for row in h0], [[x[i]] * size.channels for i in range(len(x))]
    for number in range(size.layers):
        h, channels = layer(within(w, f"layers.{number}."), size, h, channels, edges, x)
    return h, channels


def node_features(w: Weights, given: Sample, t: float) -> list[Tensor]:
    """H^(0) of eq. 13 and 14: time, properties with their learned null, elements."""
    rows = [torch.tensor([t], dtype=torch.float64)]
    for name in sorted(SCALES):
        mine = within(w, f"properties.{name}.")
        if name in given.conditions:
            y = (given.conditions[name] - mine["mean"]) / mine["std"]
            rows.append(layer_norm(mine, "norm", linear(mine, "linear", y)))
        else:
            rows.append(mine["null"])
    return [torch.cat([*rows, e]) for e in given.elements]


def noise(w: Weights, size: EGNNConfig, given: Sample, t: float) -> tuple[Tensor, Tensor]:
    """Eq. 12 and 15: positions from the first channel, without drift; elements from the odds of the classes."""
    network, x = within(w, "network."), given.positions
    h0 = node_features(within(network, "features."), given, t)
    h, channels = egnn(within(network, "egnn."), size, h0, x, given.cell[0])
    drifting = torch.stack([x[i] - channels[i][0] for i in range(len(x))])
    alpha, sigma = cos(pi * t / 2), 1.5 * sin(pi * t / 2)
    elements = []
    for i, e in enumerate(given.elements):
        logits = linear(network, "elements", h[i])
        odds = []
        for c in range(len(e)):
            off = [float(e[b]) - (alpha if b == c else 0.0) for b in range(len(e))]
            odds.append(exp(float(logits[c]) - sum(o * o for o in off) / (2 * sigma**2)))
        elements.append([(float(e[c]) - alpha * odds[c] / sum(odds)) / sigma for c in range(len(e))])
    return drifting - drifting.mean(0), torch.tensor(elements, dtype=torch.float64)


def test_the_graph_has_images():
    given = sample()
    found = neighbours(given.positions, given.cell[0], SIZE.cutoff)
    assert any(edge.j == i for i, mine in enumerate(found) for edge in mine)
    assert 8 < sum(len(mine) for mine in found) / 5 < 25


@pytest.mark.parametrize("embedding_range", [None, 2.5])
def test_the_score_model_is_what_the_equations_say(embedding_range):
    size, given = replace(SIZE, embedding_range=embedding_range), sample()
    made = model(size)
    found = made(given, torch.tensor([T], dtype=torch.float64))
    positions, elements = noise(made.state_dict(), size, given, T)
    assert positions.abs().max() > 0.1
    torch.testing.assert_close(found.positions, positions, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.elements, elements, rtol=1e-10, atol=1e-10)


def test_every_channel_and_feature_of_the_network_is_what_the_equations_say():
    """The layers alone, whose last features and channels the noise does not show one by one."""
    torch.manual_seed(2)
    made, given = EGNN(SIZE, features=3).double().requires_grad_(False), sample()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=1.0)
    h0, edges = torch.randn(5, 3, dtype=torch.float64), neighbours(given.positions, given.cell[0], SIZE.cutoff)
    most = max(len(mine) for mine in edges)
    target, offset = torch.zeros(5, most, dtype=torch.long), torch.full((5, most, 3), 100.0, dtype=torch.float64)
    for i, mine in enumerate(edges):
        target[i] = i
        for n, edge in enumerate(mine):
            target[i, n], offset[i, n] = edge.j, edge.offset
    h, displacements = made(h0, given.positions, target, offset)
    expected, channels = egnn(made.state_dict(), SIZE, list(h0), given.positions, given.cell[0])
    moved = torch.stack([torch.stack(mine) for mine in channels]) - given.positions[:, None]
    assert moved.abs().amax((0, 2)).min() > 0.1
    torch.testing.assert_close(h, torch.stack(expected), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(displacements, moved, rtol=1e-10, atol=1e-10)


def test_the_time_and_each_property_matter():
    """Positions of silicon alone, which no schedule enters: what changes them is told to the network."""
    given = replace(sample(), elements=torch.zeros(5, 0, dtype=torch.float64))
    made, t = model(species=(14,)), torch.tensor([T], dtype=torch.float64)
    plain = made(given, t).positions
    others = {name: {**given.conditions, name: torch.tensor([SCALES[name].mean]).double()} for name in SCALES}
    found = {name: made(replace(given, conditions=asked), t).positions for name, asked in others.items()}
    found["t"] = made(given, t + 0.1).positions
    assert all((positions - plain).abs().max() > 1e-3 for positions in found.values())


def test_schedules_of_the_noise_are_those_of_the_paper():
    """Eq. 5 with σ_max = 1.5, as written out in `noise`."""
    elements, t = Diffusion().elements, torch.tensor([T], dtype=torch.float64)
    assert float(elements.alpha(t)) == pytest.approx(cos(pi * T / 2), rel=1e-12)
    assert float(elements.sigma(t)) == pytest.approx(1.5 * sin(pi * T / 2), rel=1e-12)
