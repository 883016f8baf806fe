"""Lattice geometry on bare tensors. A cell holds the lattice vectors as **rows**, in Å, as in ASE.

Cartesian r = fractional s · cell. All functions are batched over the leading axes; functions of atoms take the cell of
each atom (`cell[system]`). Products are written out: matrix products would be rounded to bfloat16 under autocast and to
TF32 where that is allowed, and their last bits would depend on the size of the batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def volume(cell: Float[Tensor, "*systems 3 3"]) -> Float[Tensor, "*systems"]:
    """Signed volume a · (b × c) in Å³; negative for a left-handed cell.

    >>> volume(2.0 * torch.eye(3)).item()
    8.0
    """
    a, b, c = cell.unbind(-2)
    return (a * torch.linalg.cross(b, c)).sum(-1)


def inverse(cell: Float[Tensor, "*systems 3 3"]) -> Float[Tensor, "*systems 3 3"]:
    """Matrix inverse in 1/Å: its columns are the reciprocal vectors (b × c, c × a, a × b) / V.

    >>> inverse(torch.diag(torch.tensor([1.0, 2.0, 4.0]))).diagonal().tolist()
    [1.0, 0.5, 0.25]
    """
    a, b, c = cell.unbind(-2)
    faces = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    return faces / volume(cell)[..., None, None]


def heights(cell: Float[Tensor, "*systems 3 3"]) -> Float[Tensor, "*systems 3"]:
    """Distances between opposite faces in Å, h_i = 1 / |column i of cell⁻¹|.

    >>> heights(torch.diag(torch.tensor([1.0, 2.0, 3.0]))).tolist()
    [1.0, 2.0, 3.0]
    """
    return 1.0 / inverse(cell).norm(dim=-2)


def fractional(positions: Float[Tensor, "*atoms 3"], cell: Float[Tensor, "*#atoms 3 3"]) -> Float[Tensor, "*atoms 3"]:
    """Fractional coordinates s with r = s · cell.

    >>> fractional(torch.tensor([[1.0, 0.0, 0.0]]), 2.0 * torch.eye(3)[None]).tolist()
    [[0.5, 0.0, 0.0]]
    """
    return cartesian(positions, inverse(cell))


def cartesian(s: Float[Tensor, "*atoms 3"], cell: Float[Tensor, "*#atoms 3 3"]) -> Float[Tensor, "*atoms 3"]:
    """Cartesian positions in Å of fractional coordinates, s · cell.

    >>> cartesian(torch.tensor([[0.5, 0.0, 0.0]]), 2.0 * torch.eye(3)[None]).tolist()
    [[1.0, 0.0, 0.0]]
    """
    return s[..., 0:1] * cell[..., 0, :] + s[..., 1:2] * cell[..., 1, :] + s[..., 2:3] * cell[..., 2, :]


def wrap(positions: Float[Tensor, "*atoms 3"], cell: Float[Tensor, "*#atoms 3 3"]) -> Float[Tensor, "*atoms 3"]:
    """Positions moved by lattice vectors into the cell: fractional coordinates in [0, 1), but for rounding.

    >>> wrap(torch.tensor([[3.0, -1.0, 0.0]]), 2.0 * torch.eye(3)[None]).tolist()
    [[1.0, 1.0, 0.0]]
    """
    return positions - cartesian(torch.floor(fractional(positions, cell)), cell)


def minimum_image(vectors: Float[Tensor, "*atoms 3"], cell: Float[Tensor, "*#atoms 3 3"]) -> Float[Tensor, "*atoms 3"]:
    """Vectors reduced to |s_i| ≤ ½. The shortest image only where it is shorter than half of each height.

    >>> minimum_image(torch.tensor([[1.5, 0.0, 0.0]]), 2.0 * torch.eye(3)[None]).tolist()
    [[-0.5, 0.0, 0.0]]
    """
    return vectors - cartesian(torch.round(fractional(vectors, cell)), cell)


def deform(
    cell: Float[Tensor, "*systems 3 3"], strain: Float[Tensor, "*#systems 3 3"]
) -> Float[Tensor, "*systems 3 3"]:
    """Cell under a strain ε: rows a → a (1 + ε).

    >>> deform(torch.eye(3), 0.5 * torch.eye(3))[0].tolist()
    [1.5, 0.0, 0.0]
    """
    return cell + cartesian(cell, strain[..., None, :, :])
