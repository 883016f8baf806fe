"""The forward process: structures to samples and back, their noise, the prior it ends in, and ghost atoms.

Position noise never moves a system as a whole: the mean over its atoms is removed, since the score of a
translation-invariant distribution has no component along it. What undoes the noise lives in `sampler`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden import cell as lattice
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.schedule import Diffusion, Schedule
from amden.diffusion.vocabulary import Vocabulary
from amden.elements import GHOST
from amden.random import Streams
from amden.segment import centred
from amden.structure import Structures

PRIOR_DRAW: Final = 0
"""Draws of the prior: this one for positions, the next for elements. The sampler's steps count from `1 << 32`."""

GHOST_DRAW: Final = 2 << 32
"""Draw of the positions of ghosts."""


def encode(structures: Structures, vocabulary: Vocabulary) -> Sample:
    """Structures as the diffusion sees them, at t = 0; their properties become the conditions.

    Errors: `ValueError` for an element that the vocabulary lacks.

    >>> one = Structures(torch.zeros(1, 3), torch.tensor([8]), torch.eye(3)[None], torch.tensor([1]))
    >>> encode(one, Vocabulary((8, 14))).elements.tolist()
    [[1.0, 0.0]]
    """
    dtype = structures.positions.dtype
    return Sample(
        positions=structures.positions,
        elements=vocabulary.encode(structures.species).to(dtype),
        cell=structures.cell.to(dtype),
        n_atoms=structures.n_atoms,
        conditions={name: values.to(dtype) for name, values in structures.properties.items()},
    )


def decode(sample: Sample, vocabulary: Vocabulary) -> Structures:
    """Structures with the most likely element of each atom, ghosts among them; atoms stay where they are, unwrapped.

    Conditions are what was asked for, not what was measured: they do not become properties.

    >>> one = Structures(torch.zeros(1, 3), torch.tensor([8]), torch.eye(3)[None], torch.tensor([1]))
    >>> decode(encode(one, Vocabulary((8, 14))), Vocabulary((8, 14)))
    Structures(1 systems, 1 atoms, elements O)
    """
    return Structures(sample.positions, vocabulary.decode(sample.elements), sample.cell, sample.n_atoms)


def gaussian_noise(sample: Sample, source: Streams | torch.Generator, *, draw: int = 0) -> Noise:
    """Standard normal noise ε for each coordinate and element channel, without drift of the positions.

    From `Streams` it is a function of each system's seed and `draw` alone, whatever the batch; a generator counts for
    itself and ignores `draw`. Streams give float32 numbers, cast to the sample's precision.

    >>> two = Sample(torch.zeros(2, 3), torch.zeros(2, 0), torch.eye(3)[None], torch.tensor([2]))
    >>> noise = gaussian_noise(two, Streams.of(torch.tensor([7]), two.n_atoms))
    >>> torch.allclose(noise.positions[0], -noise.positions[1])
    True
    """
    width = 3 + sample.elements.shape[1]
    if isinstance(source, Streams):
        values = source.normal((width,), draw=draw)
    else:
        values = torch.randn((len(sample.positions), width), generator=source, device=source.device)
    values = values.to(sample.positions)
    return Noise(centred(values[:, :3], sample.system, n_systems=len(sample)), values[:, 3:])


def corrupt(sample: Sample, t: Float[Tensor, " systems"], noise: Noise, diffusion: Diffusion) -> Sample:
    """The sample x_0 with the noise of time `t` of each system (eq. 3).

    x_t = α(t) x_0 + σ(t) ε
    """
    t = t.to(sample.positions)
    system = sample.system

    def mixed(schedule: Schedule, clean: Tensor, epsilon: Tensor) -> Tensor:
        return schedule.alpha(t)[system, None] * clean + schedule.sigma(t)[system, None] * epsilon

    return replace(
        sample,
        positions=mixed(diffusion.positions, sample.positions, noise.positions),
        elements=mixed(diffusion.elements, sample.elements, noise.elements),
    )


def prior(
    cell: Float[Tensor, "systems 3 3"],
    n_atoms: Int[Tensor, " systems"],
    *,
    width: int,
    diffusion: Diffusion,
    streams: Streams,
    conditions: Mapping[str, Tensor] | None = None,
    unit_elements: bool = False,
) -> Sample:
    """Where sampling starts, at t_max: atoms uniform in the cell, elements N(0, σ_max²).

    `width` is that of the vocabulary. The elements agree with the forward process, whose noise at t_max has variance
    σ_max² within 0.03 %; `unit_elements` draws N(0, 1) instead, as the paper prints (section IV.B.1).

    >>> n_atoms, cell = torch.tensor([4]), 5.0 * torch.eye(3)[None]
    >>> start = prior(cell, n_atoms, width=2, diffusion=Diffusion(), streams=Streams.of(torch.tensor([7]), n_atoms))
    >>> start.positions.shape, start.elements.shape
    (torch.Size([4, 3]), torch.Size([4, 2]))
    """
    s = streams.uniform((3,), draw=PRIOR_DRAW).to(cell)
    uniform = Sample(
        positions=lattice.cartesian(s, cell[streams.system]),
        elements=cell.new_zeros((len(s), width)),
        cell=cell,
        n_atoms=n_atoms,
        conditions=dict(conditions or {}),
    )
    scale = 1.0 if unit_elements else diffusion.elements.sigma_max
    return replace(uniform, elements=scale * gaussian_noise(uniform, streams, draw=PRIOR_DRAW + 1).elements)


def filled_size(
    cell: Float[Tensor, "systems 3 3"],
    n_atoms: Int[Tensor, " systems"],
    density: float | Float[Tensor, " systems"],
) -> Int[Tensor, " systems"]:
    """Atoms of each system when ghosts fill it up to a number density in atoms/Å³ (section II.A).

        n_target = floor(density · V),  n_ghost = max(0, n_target - n_actual)

    A product that falls short of a whole number by rounding alone (1e-6 of it) counts as that number.

    >>> filled_size(5.0 * torch.eye(3).expand(2, 3, 3), torch.tensor([1, 4]), 0.024).tolist()
    [3, 4]
    """
    target = torch.as_tensor(density, dtype=torch.float64, device=n_atoms.device)
    if not bool((target > 0).all()):
        raise ValueError(f"`density` must be positive, got {density}")
    n_target = torch.floor(target * lattice.volume(cell.double()).abs() * (1 + 1e-6))
    return torch.maximum(n_atoms, n_target.to(n_atoms.dtype))


def add_ghosts(
    structures: Structures, density: float | Float[Tensor, " systems"], streams: Streams, *, draw: int = GHOST_DRAW
) -> Structures:
    """Each structure filled up with ghosts to a number density in atoms/Å³, real atoms first (section II.A).

    Ghosts are uniform in the cell. Of `streams` only the seeds are used; see `filled_size` for their number.

    >>> one = Structures(torch.zeros(1, 3), torch.tensor([14]), 5.0 * torch.eye(3)[None], torch.tensor([1]))
    >>> add_ghosts(one, 0.024, Streams.of(torch.tensor([7]), one.n_atoms)).species.tolist()
    [14, 0, 0]
    """
    n_total = filled_size(structures.cell, structures.n_atoms, density)
    filled = Streams.of(streams.seeds, n_total)
    system, kept = filled.system, filled.index < structures.n_atoms[filled.system]
    s = filled.uniform((3,), draw=draw).to(structures.positions)
    positions = lattice.cartesian(s, structures.cell.to(s)[system])
    positions[kept] = structures.positions
    species = torch.full_like(system, GHOST, dtype=structures.species.dtype)
    species[kept] = structures.species
    return replace(structures, positions=positions, species=species, n_atoms=n_total)
