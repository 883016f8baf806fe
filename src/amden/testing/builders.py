"""Structures and samples made on the spot: random cells, crystals, supercells."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden import cell as lattice
from amden.diffusion.denoiser import Sample
from amden.segment import first_atom, system_index
from amden.structure import Structures, concatenate

_DIAMOND = ((0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1))


def random_structures(
    n_atoms: Sequence[int],
    *,
    seed: int = 0,
    species: Sequence[int] = (14,),
    spacing: float = 2.5,
    skew: float = 0.2,
    dtype: torch.dtype = torch.float64,
) -> Structures:
    """Disordered structures of `n_atoms` atoms each in skewed cells of any orientation, elements at random.

    Atoms sit on sites of a jittered grid of `spacing` (Å), so that none overlap. `skew` is the largest off-diagonal
    element of the cell, and the largest stretch, in units of its edge.

    >>> random_structures([1, 5], species=(8, 14)).n_atoms.tolist()
    [1, 5]
    """
    generator = torch.Generator().manual_seed(seed)
    return concatenate([_disordered(n, species, spacing, skew, generator) for n in n_atoms]).to(dtype=dtype)


def _disordered(n: int, species: Sequence[int], spacing: float, skew: float, generator: torch.Generator) -> Structures:
    edge = ceil(round(n ** (1 / 3), 6))
    strain = skew * (2 * torch.rand((3, 3), generator=generator, dtype=torch.float64) - 1)
    cell = spacing * edge * (torch.eye(3, dtype=torch.float64) + strain) @ rotation(generator)
    site = torch.randperm(edge**3, generator=generator)[:n]
    corner = torch.stack([site // edge**2, site // edge % edge, site % edge], 1)
    jitter = 0.3 * torch.rand((n, 3), generator=generator, dtype=torch.float64)
    chosen = torch.randint(len(species), (n,), generator=generator)
    return Structures(
        lattice.cartesian((corner + jitter) / edge, cell.expand(n, 3, 3)),
        torch.tensor(species)[chosen],
        cell[None],
        torch.tensor([n]),
    )


def rotation(generator: torch.Generator, *, reflected: bool = False) -> Float[Tensor, "3 3"]:
    """Random orthogonal matrix, uniform over rotations, or over rotations with a reflection; float64."""
    q, r = torch.linalg.qr(torch.randn((3, 3), generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r))
    flip = (torch.linalg.det(q) < 0) != reflected
    return torch.where(flip, -q, q)


def diamond(
    repeat: tuple[int, int, int] = (1, 1, 1), *, a: float = 5.431, species: int = 14, dtype: torch.dtype = torch.float64
) -> Structures:
    """The diamond lattice of constant `a` in Å, 8 atoms in a cubic cell, repeated.

    >>> diamond((2, 1, 1))
    Structures(1 systems, 16 atoms, elements Si)
    """
    sites = a / 4 * torch.tensor(_DIAMOND, dtype=dtype)
    unit = Structures(sites, torch.full((8,), species), a * torch.eye(3, dtype=dtype)[None], torch.tensor([8]))
    return supercell(unit, repeat)


def supercell(structures: Structures, repeat: tuple[int, int, int]) -> Structures:
    """Each structure repeated along its lattice vectors, copy after copy; properties are taken to be intensive.

    >>> supercell(random_structures([3]), (1, 2, 2)).n_atoms.tolist()
    [12]
    """
    source, positions, cell, n_atoms = _repeated(structures, repeat)
    return replace(structures, positions=positions, species=structures.species[source], cell=cell, n_atoms=n_atoms)


def sample_supercell(sample: Sample, repeat: tuple[int, int, int]) -> tuple[Sample, Int[Tensor, " copies"]]:
    """Each system of a sample repeated likewise, and the atom that each atom of the result is a copy of."""
    source, positions, cell, n_atoms = _repeated(sample, repeat)
    return replace(sample, positions=positions, elements=sample.elements[source], cell=cell, n_atoms=n_atoms), source


def _repeated(
    batch: Structures | Sample, repeat: tuple[int, int, int]
) -> tuple[Int[Tensor, " copies"], Float[Tensor, "copies 3"], Float[Tensor, "systems 3 3"], Int[Tensor, " systems"]]:
    n_copies = repeat[0] * repeat[1] * repeat[2]
    n_atoms = batch.n_atoms * n_copies
    system = system_index(n_atoms)
    index = torch.arange(len(system), device=system.device) - first_atom(n_atoms)[system]
    source = first_atom(batch.n_atoms)[system] + index % batch.n_atoms[system]
    copy = index // batch.n_atoms[system]
    shift = torch.stack([copy // (repeat[1] * repeat[2]), copy // repeat[2] % repeat[1], copy % repeat[2]], 1)
    offset = lattice.cartesian(shift.to(batch.positions), batch.cell.to(batch.positions)[system])
    scale = torch.tensor(repeat, device=batch.cell.device)[:, None]
    return source, batch.positions[source] + offset, batch.cell * scale, n_atoms


def random_sample(
    n_atoms: Sequence[int],
    *,
    width: int = 0,
    conditions: Sequence[str] = (),
    seed: int = 0,
    spacing: float = 2.5,
    dtype: torch.dtype = torch.float64,
) -> Sample:
    """A noisy sample: `random_structures`, elements and conditions drawn from N(0, 1).

    >>> random_sample([4, 7], width=2, conditions=["modulus"]).elements.shape
    torch.Size([11, 2])
    """
    structures = random_structures(n_atoms, seed=seed, spacing=spacing, dtype=dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    return Sample(
        structures.positions,
        torch.randn((sum(n_atoms), width), generator=generator, dtype=dtype),
        structures.cell,
        structures.n_atoms,
        {name: torch.randn((len(n_atoms),), generator=generator, dtype=dtype) for name in conditions},
    )
