"""A denoiser whose elements lean towards a composition: the soft form of `composition`, for the last steps.

The denoised elements are probabilities p_ic. Those nearest to them (in relative entropy) that meet the constraint on
average, Σ_i Σ_c a_c p'_ic = 0 for each row a, are p'_ic ∝ p_ic exp(λ · a_c), with λ of each system found by Newton's
method. The noise is changed such that the denoised elements move by p' - p.
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from amden.diffusion.composition import Constraint, Formula, log_probabilities
from amden.diffusion.denoiser import Denoiser, Noise, Sample, at_time
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.segment import segment_sum

_ITERATIONS: Final = 12
_LONGEST: Final = 1.0
"""Longest step of λ · a."""


@dataclass(frozen=True, eq=False)
class Leaning:
    """Leaves the noise of positions, and that of elements above the time `below`, as it is."""

    denoiser: Denoiser
    rows: Float[Tensor, "rows classes"]
    """What is to add up to zero, as `constraint_rows` has it."""
    below: float
    diffusion: Diffusion

    def at(self, t: float) -> "Leaning":
        """The same around what its denoiser is at a time."""
        return replace(self, denoiser=at_time(self.denoiser, t))

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """Noise of positions as predicted, of elements such that the composition is met on average."""
        noise = self.denoiser(sample, t)
        schedule, system = self.diffusion.elements, sample.system
        alpha, sigma = schedule.alpha(t)[system, None], schedule.sigma(t)[system, None]
        log_p = log_probabilities((sample.elements - sigma * noise.elements) / alpha)
        shift = (leaned(log_p, self.rows, sample) - log_p.exp()).to(noise.elements)
        moved = noise.elements - alpha / sigma * shift
        return replace(noise, elements=torch.where((t < self.below)[system, None], moved, noise.elements))


def constraint_rows(constraint: Constraint, vocabulary: Vocabulary) -> Float[Tensor, "rows classes"]:
    """The constraint as rows a with Σ_c a_c N_c = 0 for counts N of the classes.

    >>> constraint_rows(Formula({14: 1, 8: 2}), Vocabulary((8, 14), ghosts=True)).tolist()
    [[0.5, -1.0, 0.0]]
    """
    if not isinstance(constraint, Formula):
        charges = [float(constraint.charges.get(z, 0)) for z in vocabulary.classes]
        return torch.tensor([charges], dtype=torch.float64)
    first, *others = sorted(constraint.parts)
    rows = torch.zeros((len(others), len(vocabulary.classes)), dtype=torch.float64)
    for row, z in enumerate(others):
        rows[row, vocabulary.classes.index(first)] = 1.0 / constraint.parts[first]
        rows[row, vocabulary.classes.index(z)] = -1.0 / constraint.parts[z]
    absent = [i for i, z in enumerate(vocabulary.species) if z not in constraint.parts]
    alone = torch.zeros((len(absent), len(vocabulary.classes)), dtype=torch.float64)
    alone[torch.arange(len(absent)), torch.tensor(absent, dtype=torch.long)] = 1.0
    return torch.cat([rows, alone])


def leaned(
    log_p: Float[Tensor, "atoms classes"], rows: Float[Tensor, "rows classes"], sample: Sample
) -> Float[Tensor, "atoms classes"]:
    """Probabilities that meet the rows on average in each system."""
    a, system, n_systems = rows.to(log_p), sample.system, len(sample)
    price = log_p.new_zeros((n_systems, len(a)))
    eye = torch.eye(len(a), dtype=log_p.dtype, device=log_p.device)
    for _ in range(_ITERATIONS):
        p = torch.softmax(log_p + (price @ a)[system], 1)
        mean = p @ a.T
        off = segment_sum(mean, system, n_systems=n_systems)
        spread = torch.einsum("ic,jc,kc->ijk", p, a, a) - mean[:, :, None] * mean[:, None]
        curvature = segment_sum(spread, system, n_systems=n_systems)
        step = torch.linalg.solve_ex(curvature + 1e-9 * eye, off)[0]
        longest = (step @ a).abs().amax(1, keepdim=True)
        price = price - step * (_LONGEST / longest.clamp(min=_LONGEST))
    return torch.softmax(log_p + (price @ a)[system], 1)
