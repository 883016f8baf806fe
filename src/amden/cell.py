"""Lattice geometry on bare tensors. A cell holds the lattice vectors as **rows**, in Å, as in ASE.

Cartesian r = fractional s · cell. All functions are batched over the leading `systems` axis; functions of atoms take
the cell of each atom (`cell[system]`).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def volume(cell: Float[Tensor, "*systems 3 3"]) -> Float[Tensor, "*systems"]:
    """Signed volume in Å³; negative for a left-handed cell.

    >>> volume(2.0 * torch.eye(3)).item()
    8.0
    """
    return torch.linalg.det(cell)


def heights(cell: Float[Tensor, "*systems 3 3"]) -> Float[Tensor, "*systems 3"]:
    """Distances between opposite faces in Å, h_i = 1 / |row i of (cell⁻¹)ᵀ|.

    >>> heights(torch.diag(torch.tensor([1.0, 2.0, 3.0]))).tolist()
    [1.0, 2.0, 3.0]
    """
    return 1.0 / torch.linalg.inv(cell).norm(dim=-2)


def fractional(positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "atoms 3 3"]) -> Float[Tensor, "atoms 3"]:
    """Fractional coordinates s with r = s · cell.

    >>> fractional(torch.tensor([[1.0, 0.0, 0.0]]), 2.0 * torch.eye(3)[None]).tolist()
    [[0.5, 0.0, 0.0]]
    """
    return torch.einsum("ai,aij->aj", positions, torch.linalg.inv(cell))


def cartesian(s: Float[Tensor, "atoms 3"], cell: Float[Tensor, "atoms 3 3"]) -> Float[Tensor, "atoms 3"]:
    """Cartesian positions in Å of fractional coordinates.

    >>> cartesian(torch.tensor([[0.5, 0.0, 0.0]]), 2.0 * torch.eye(3)[None]).tolist()
    [[1.0, 0.0, 0.0]]
    """
    return torch.einsum("ai,aij->aj", s, cell)


def wrap(positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "atoms 3 3"]) -> Float[Tensor, "atoms 3"]:
    """Positions moved by lattice vectors into the cell, fractional coordinates in [0, 1).

    >>> wrap(torch.tensor([[3.0, -1.0, 0.0]]), 2.0 * torch.eye(3)[None]).tolist()
    [[1.0, 1.0, 0.0]]
    """
    return positions - cartesian(torch.floor(fractional(positions, cell)), cell)


def minimum_image(vectors: Float[Tensor, "atoms 3"], cell: Float[Tensor, "atoms 3 3"]) -> Float[Tensor, "atoms 3"]:
    """Vectors reduced to |s_i| ≤ ½. The shortest image only where it is shorter than half of each height.

    >>> minimum_image(torch.tensor([[1.5, 0.0, 0.0]]), 2.0 * torch.eye(3)[None]).tolist()
    [[-0.5, 0.0, 0.0]]
    """
    return vectors - cartesian(torch.round(fractional(vectors, cell)), cell)


def deform(cell: Float[Tensor, "*systems 3 3"], strain: Float[Tensor, "*systems 3 3"]) -> Float[Tensor, "*systems 3 3"]:
    """Cell under a strain ε: rows a → a (1 + ε).

    >>> deform(torch.eye(3), 0.5 * torch.eye(3))[0].tolist()
    [1.5, 0.0, 0.0]
    """
    return cell @ (torch.eye(3, dtype=cell.dtype, device=cell.device) + strain)
