"""What is given before a structure is generated: cells, and how many atoms they are to hold."""

from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden.diffusion.corruption import filled_size
from amden.elements import MASSES
from amden.model import Model
from amden.structure import Structures
from amden.units import AMU_PER_A3_IN_G_PER_CM3

DENSEST: Final = 25.0
"""g/cm³: more than any solid has."""
MOST_ATOMS: Final = 10_000_000
"""In a structure: more cannot be meant."""
MOST_STRUCTURES: Final = 1_000_000
"""At a time, likewise."""


@dataclass(frozen=True, eq=False)
class Blank:
    """What is given before a structure is generated: its cell and the number of its atoms."""

    cell: Float[Tensor, "systems 3 3"]
    n_atoms: Int[Tensor, " systems"]
    """With a model that has ghosts: atoms and ghosts, as its density of ghosts asks for."""

    def __len__(self) -> int:
        return len(self.n_atoms)


def cubic_blank(model: Model, n: int, *, atoms: int | tuple[int, int], density: float | None = None) -> Blank:
    """`n` cubes for `atoms` atoms at a density in g/cm³, by default the mean of the training data.

    Two numbers of atoms are the fewest and the most, between which sizes are spread evenly. A model with ghosts decides
    for itself how many atoms it puts there.

    Errors: `ValueError` for numbers that are not positive, or where no density is known.
    """
    _require_positive("n", n)
    ends = (atoms, atoms) if isinstance(atoms, int) else atoms
    _require_positive("atoms", min(ends))
    for name, value, most in (("n", n, MOST_STRUCTURES), ("atoms", max(ends), MOST_ATOMS)):
        if value > most:
            raise ValueError(f"`{name}` must be at most {most:,}, got {value:,}")
    number, places = _number_density(model, density), model.denoiser.config.ghost_density
    if places is not None and number > places:
        most = places / number * _mass_density(model, density)
        raise ValueError(f"`density` must be at most {most:.3g} g/cm³, what the model has room for, got {density:g}")
    sizes = torch.linspace(*ends, n, dtype=torch.float64).round().long()
    edges = [(size / number) ** (1 / 3) for size in sizes.tolist()]
    return _filled(model, Blank(torch.stack([edge * torch.eye(3) for edge in edges]), sizes))


def cell_blank(
    model: Model, n: int, *, cell: Float[Tensor, "3 3"], atoms: int | None = None, density: float | None = None
) -> Blank:
    """`n` times the same cell; without `atoms`, as many as the density asks for, or as a model with ghosts decides.

    Errors: `ValueError` for a cell of vanishing or negative volume, and for a number of atoms or a density where the
    model decides.
    """
    _require_positive("n", n)
    volume = float(torch.linalg.det(cell.double()))
    if not volume > 1e-6 * float(cell.double().norm(dim=1).prod()):
        what = "negative volume (left-handed)" if volume < 0 else "vanishing volume"
        raise ValueError(f"`cell` has a {what}: {cell.tolist()}")
    if model.denoiser.config.ghost_density is not None:
        if atoms is not None or density is not None:
            raise ValueError("in a given cell a model with ghosts decides on atoms and density: leave them out")
        atoms = 1
    elif atoms is None:
        atoms = max(round(_number_density(model, density) * volume), 1)
    _require_positive("atoms", atoms)
    blank = Blank(cell.float().expand(n, 3, 3).contiguous(), torch.full((n,), atoms))
    return _filled(model, blank)


def like_blank(model: Model, structures: Structures, *, n: int | None = None) -> Blank:
    """Cells and sizes of given structures, over again if `n` asks for more; their ghosts count as none.

    Errors: `ValueError` for an element that the model does not know.
    """
    structures = structures.without_ghosts()
    model.denoiser.config.vocabulary.encode(structures.species)
    chosen = torch.arange(len(structures) if n is None else n) % len(structures)
    return _filled(model, Blank(structures.cell.float()[chosen], structures.n_atoms[chosen]))


def _filled(model: Model, blank: Blank) -> Blank:
    """With room for the ghosts of a model that has them."""
    density = model.denoiser.config.ghost_density
    if density is None:
        return blank
    return replace(blank, n_atoms=filled_size(blank.cell, torch.ones_like(blank.n_atoms), density))


def _mass_density(model: Model, density: float | None) -> float:
    """g/cm³: the one asked for, or that of the training data."""
    if density is None:
        density = model.provenance.get("data", {}).get("density")
    if density is None:
        raise ValueError("`density` must be given: the model does not say that of its training data")
    if not 0.0 < density < DENSEST:
        raise ValueError(f"`density` must be positive and less than {DENSEST:g} g/cm³, got {density:g}")
    return density


def _number_density(model: Model, density: float | None) -> float:
    """Atoms an Å³ for a density in g/cm³."""
    known, density = model.provenance.get("data", {}), _mass_density(model, density)
    species = model.denoiser.config.vocabulary.species
    mass = float(known.get("mean_mass") or MASSES[list(species)].mean())
    return density / (mass * AMU_PER_A3_IN_G_PER_CM3)


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}")
