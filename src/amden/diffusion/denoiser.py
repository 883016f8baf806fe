"""The seam between samplers and networks: what a denoiser is given and what it returns.

A sampler sees only the protocol `Denoiser`; any callable with its signature, a network or an exact score, can be used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from amden.segment import centred, system_index


@dataclass(frozen=True, eq=False)
class Sample:
    """A batch of systems as the diffusion sees them: positions and elements as real numbers.

    `elements` is one-hot at t = 0. A vocabulary of a single class has nothing to diffuse: its `elements` has width 0.
    """

    positions: Float[Tensor, "atoms 3"]
    """Cartesian, in Å, unwrapped."""
    elements: Float[Tensor, "atoms classes"]
    cell: Float[Tensor, "systems 3 3"]
    n_atoms: Int[Tensor, " systems"]
    conditions: Mapping[str, Float[Tensor, "systems *shape"]] = field(default_factory=dict)
    """Target properties in their own units; NaN where none is asked for."""

    @cached_property
    def system(self) -> Int[Tensor, " atoms"]:
        """System of each atom."""
        return system_index(self.n_atoms, total=len(self.positions))

    def __len__(self) -> int:
        return len(self.n_atoms)


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise ε in positions and elements, in units of σ(t): x_t = α x_0 + σ ε."""

    positions: Float[Tensor, "atoms 3"]
    elements: Float[Tensor, "atoms classes"]


@runtime_checkable
class Denoiser(Protocol):
    """Predicts the noise in a sample at diffusion time `t` of each system; the score is s = -ε/σ(t) (eq. 12, 15)."""

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """Predicted noise, in the device and precision of `sample.positions`."""
        ...


@runtime_checkable
class EnergyDenoiser(Denoiser, Protocol):
    """A denoiser whose score is the gradient of a noise energy, p(x) ∝ exp(-E) (eq. 18-22)."""

    def energy_and_noise(self, sample: Sample, t: Float[Tensor, " systems"]) -> tuple[Float[Tensor, " systems"], Noise]:
        """Noise energy E of each system in float64, in units of k_B T = 1, and ε = σ ∇E of positions and elements."""
        ...


@runtime_checkable
class Timed(Denoiser, Protocol):
    """A denoiser for which a simpler one stands at some times."""

    def at(self, t: float) -> Denoiser:
        """The one at time `t` of all systems."""
        ...


def predicted(denoiser: Denoiser, sample: Sample, t: float) -> Noise:
    """Noise at time `t` of all systems, its mean over the positions of each removed whatever the denoiser does."""
    noise = at_time(denoiser, t)(sample, sample.positions.new_full((len(sample),), t))
    return replace(noise, positions=centred(noise.positions, sample.system, n_systems=len(sample)))


def at_time(denoiser: Denoiser, t: float) -> Denoiser:
    """What a denoiser is at time `t` of all systems, which is known beforehand, so that nothing waits for a GPU."""
    return denoiser.at(t) if isinstance(denoiser, Timed) else denoiser
