"""How much of a structure is crystalline: atoms in the environment of diamond, cubic or hexagonal.

The CHILL criterion (E. B. Moore et al., Phys. Chem. Chem. Phys. 12, 4124 (2010)) without spherical harmonics. With u
the unit vectors from an atom to its four nearest of the same element, P the Legendre polynomial of degree 3, and

    s(i, j) = Σ_ab P(u_ia · u_jb),    c(i, j) = s(i, j) / √(s(i, i) s(j, j))

a bond between neighbours i, j is staggered if c < -0.8 (cubic diamond: -1) and eclipsed if -0.35 < c < 0.25
(hexagonal: -1/9). The environment of diamond is four staggered bonds, or three and an eclipsed one. It is asked of the
silicon atoms alone, so silica counts as the arrangement of its tetrahedra: cristobalite is cubic, tridymite hexagonal.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from amden.elements import atomic_number
from amden.neighbors import neighbor_matrix
from amden.segment import segment_mean, segment_sum
from amden.structure import Structures

_BONDS = 4
_STAGGERED, _ECLIPSED = -0.8, (-0.35, 0.25)
_REACH = 1.6
"""Cutoff of the search for four neighbours, in edges of a cube that holds one atom."""


def crystalline_share(structures: Structures, *, centre: str = "Si") -> Float[Tensor, " systems"]:
    """Share of the atoms of the element `centre` that sit as in diamond; 0 in a system with fewer than five of them.

    >>> from ase.build import bulk
    >>> from amden.io import from_ase
    >>> crystalline_share(from_ase([bulk("Si", cubic=True) * (2, 2, 2)])).tolist()
    [1.0]
    """
    chosen = structures.species == atomic_number(centre)
    n_atoms = segment_sum(chosen.to(torch.float64), structures.system, n_systems=len(structures)).long()
    enough = n_atoms > _BONDS
    share = torch.zeros(len(structures), dtype=torch.float64)
    if not enough.any():
        return share
    kept = chosen & enough[structures.system]
    positions, cell, n_atoms = structures.positions[kept].double(), structures.cell[enough].double(), n_atoms[enough]
    cutoff = _REACH * float((torch.linalg.det(cell).abs() / n_atoms).max()) ** (1.0 / 3.0)
    system = torch.repeat_interleave(torch.arange(len(n_atoms)), n_atoms)
    share[enough] = segment_mean(_like_diamond(positions, cell, n_atoms, cutoff), system, n_systems=len(n_atoms))
    return share


def _like_diamond(
    positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "systems 3 3"], n_atoms: Tensor, cutoff: float
) -> Float[Tensor, " atoms"]:
    found = neighbor_matrix(positions, cell, n_atoms, cutoff=cutoff, capacity=_BONDS)
    vectors = positions[found.target] - positions[:, None] + found.offset
    bonds = vectors / vectors.norm(dim=-1, keepdim=True)
    own = _sum_over_pairs(bonds, bonds)
    mutual = _sum_over_pairs(bonds[:, None].expand(-1, _BONDS, -1, -1), bonds[found.target])
    c = mutual / (own[:, None] * own[found.target]).sqrt()
    staggered = (c < _STAGGERED).sum(1)
    eclipsed = ((c > _ECLIPSED[0]) & (c < _ECLIPSED[1])).sum(1)
    cubic: Bool[Tensor, " atoms"] = staggered == _BONDS
    hexagonal = (staggered == _BONDS - 1) & (eclipsed == 1)
    return ((cubic | hexagonal) & (found.n_neighbors == _BONDS)).double()


def _sum_over_pairs(a: Float[Tensor, "*n bonds 3"], b: Float[Tensor, "*n bonds 3"]) -> Float[Tensor, "*n"]:
    cosine = a @ b.mT
    return (0.5 * cosine * (5.0 * cosine.square() - 3.0)).sum((-2, -1))
