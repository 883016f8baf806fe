"""The energy model: a noise energy of each system, and the noise as its gradient (eq. 18-22).

Eq. 21 divides the energy by σ(t), and the score is its gradient. With U = Σ_i (½ |x_i - x_i^(L)|² + γ e_i) the network
computes the gradient of U; only the energy itself and the elements' noise need to know the schedules:

    E = U/σ_X,    ε_X = σ_X ∂E/∂X = ∂U/∂X,    ε_E = σ_E ∂E/∂E = (σ_E/σ_X) ∂U/∂E

On a GPU the products over edges, nearly all of the work, are in bfloat16; distances, node features, products over atoms
and sums are not. A Metropolis test then compares energies that are wrong by so much (standard deviation in k_B T over
noised cells of 256 atoms, six layers trained on annealed silicon, on a CPU, against float64):

===== ======== =============== ========================
t     float32  as it is here   all products in bfloat16
===== ======== =============== ========================
0.02  9e-5     0.31            0.84
0.1   2e-5     0.06            0.45
0.3   5e-6     0.03            0.09
===== ======== =============== ========================

Between the ends of trajectories it was 0.5, 0.3 and 0.03 k_B T, which turned round 11, 9 and 1 % of the decisions
(`benchmarks/precision.py`). As the error is a function of the positions, the test is exact for an energy that far from
E, in a cell of 765 degrees of freedom; the price is acceptance at small t, to which dt₀ is steered. On a
CPU, where bfloat16 saves an eighth of the time, all is in float32.

Training differentiates the gradient once more. `torch.compile` cannot do that through its own backward, so the gradient
is first traced into a graph of plain operations, which is compiled like any other.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.schedule import Diffusion
from amden.neighbors import NeighborPlan
from amden.nn.classes import class_energy, scales
from amden.nn.egnn import EGNN, PreciseLinear
from amden.nn.embedding import NodeFeatures
from amden.nn.score import Inputs, Room, ScoreConfig, ScoreModel
from amden.segment import centred, segment_sum


class AtomicEnergies(nn.Module):
    """The share of each atom in U."""

    def __init__(self, config: ScoreConfig, diffusion: Diffusion) -> None:
        super().__init__()
        self.diffusion = diffusion
        width = config.vocabulary.width
        self.features = NodeFeatures(config.properties, element_width=width, property_width=config.property_width)
        self.egnn = EGNN(config.egnn, features=self.features.width, precise=True)
        self.head = PreciseLinear(config.egnn.hidden, 1)
        self.head.bias.requires_grad_(False)  # the same for every configuration: no gradient depends on it
        self.elements = PreciseLinear(config.egnn.hidden, width) if width else None
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Inputs, chunk: int | None = None) -> Float[Tensor, " atoms"]:
        """½ |x - x^(L)|² of the first channel + γ e (eq. 21), and σ_X times the energy of the elements."""
        t, positions, elements, conditions, system, target, offset = inputs
        features = self.features(t, elements, conditions, system)
        h, u = self.egnn(features, positions, target, offset, chunk=chunk)
        each = 0.5 * u[:, 0].square().sum(-1) + self.scale * self.head(h)[:, 0].to(positions.dtype)
        if self.elements is None:
            return each
        scale = scales(self.diffusion.elements, t, system)
        energy = class_energy(self.elements(h).to(positions.dtype), elements, scale)
        return each + self.diffusion.positions.sigma(t)[system] * energy


class EnergyNetwork(nn.Module):
    """Energies of atoms on bare tensors with their gradient, in one forward and one backward pass."""

    def __init__(self, config: ScoreConfig, diffusion: Diffusion | None = None) -> None:
        super().__init__()
        self.energies = AtomicEnergies(config, diffusion or Diffusion())
        self._options: dict[str, Any] | None = None
        self._compiled: dict[Any, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {}

    @property
    def egnn(self) -> EGNN:
        """The layers."""
        return self.energies.egnn

    def compile(self, *_: Any, **options: Any) -> None:
        """Compile at the next call, and again for other shapes; `options` are those of `torch.compile`."""
        if options != self._options:
            self._options, self._compiled = options, {}

    def forward(
        self, inputs: Inputs, chunk: int | None = None
    ) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"], Float[Tensor, "atoms classes"]]:
        """The share of each atom in U, ∂U/∂X and ∂U/∂E; all have gradients by the weights where autograd is on."""
        t, positions, elements, conditions, system, target, offset = inputs
        names = sorted(conditions)
        tensors = [t, positions.detach(), elements.detach(), *(conditions[n] for n in names), system, target, offset]
        parameters = list(self.energies.state_dict(keep_vars=True).values())
        differentiable = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)

        def evaluate(parameters: list[Tensor], given: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            parameters = parameters if differentiable else [p.detach() for p in parameters]
            own = dict(zip(self.energies.state_dict(), parameters, strict=True))
            return _with_gradient(self.energies, own, names, given, chunk=chunk, differentiable=differentiable)

        if self._options is None:
            return evaluate(parameters, tensors)
        how = differentiable, torch.is_autocast_enabled(positions.device.type), chunk, *names
        key = how, *((x.shape, x.dtype, x.device) for x in tensors)
        if key not in self._compiled:
            self._compiled[key] = torch.compile(_traced(evaluate, parameters, tensors), **self._options)
        return self._compiled[key](parameters, tensors)


def _traced(function: Callable, *arguments: list[Tensor]) -> nn.Module:
    """The plain operations of a function that differentiates, as a graph that can be differentiated once more.

    Autograd detaches results that it keeps for its backward, such as that of tanh; in a trace this would cut the second
    derivative, so the detachments are taken out.
    """
    with torch.enable_grad():
        graph = make_fx(function)(*arguments)
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


class EnergyModel(ScoreModel):
    """A score model whose noise is the gradient of an energy: an `EnergyDenoiser`."""

    def _network(self) -> nn.Module:
        return EnergyNetwork(self.config, self.diffusion)

    def forward(
        self,
        sample: Sample,
        t: Float[Tensor, " systems"],
        *,
        plan: NeighborPlan | None = None,
        chunk: int | None = None,
        room: Room | None = None,
    ) -> Noise:
        """The noise alone; see `energy_and_noise`."""
        return self.energy_and_noise(sample, t, plan=plan, chunk=chunk, room=room)[1]

    def energy_and_noise(
        self,
        sample: Sample,
        t: Float[Tensor, " systems"],
        *,
        plan: NeighborPlan | None = None,
        chunk: int | None = None,
        room: Room | None = None,
    ) -> tuple[Float[Tensor, " systems"], Noise]:
        """E of each system in float64 and ε = σ ∇E; arguments as for `ScoreModel`."""
        each, positions, elements = self._seen(sample, t, plan, chunk, room)
        sigma = self.diffusion.positions.sigma(t)
        ratio = (self.diffusion.elements.sigma(t) / sigma)[sample.system, None]
        energy = segment_sum(each.double(), sample.system, n_systems=len(sample)) / sigma
        return energy, Noise(centred(positions, sample.system, n_systems=len(sample)), ratio * elements)


def _with_gradient(
    energies: AtomicEnergies,
    parameters: dict[str, Tensor],
    names: list[str],
    given: list[Tensor],
    *,
    chunk: int | None,
    differentiable: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    t, positions, elements, *conditions, system, target, offset = given
    with torch.enable_grad():
        x, e = positions.detach().requires_grad_(), elements.detach().requires_grad_()
        inputs = Inputs(t, x, e, dict(zip(names, conditions, strict=True)), system, target, offset)
        each = torch.func.functional_call(energies, parameters, (inputs, chunk))
        found = torch.autograd.grad(each.sum(), [x, e] if e.shape[1] else [x], create_graph=differentiable)
    by_elements = found[1] if e.shape[1] else torch.zeros_like(e)
    return (each if differentiable else each.detach()), found[0], by_elements
