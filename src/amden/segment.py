"""Sums and means between atoms and systems of a flat batch.

A batch concatenates its systems along `atoms`; `system` names the system of each atom and is sorted.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def system_index(n_atoms: Int[Tensor, " systems"], *, total: int | None = None) -> Int[Tensor, " atoms"]:
    """Index of the system of each atom; where `total`, the number of atoms, is given, nothing waits for a GPU.

    >>> system_index(torch.tensor([2, 1])).tolist()
    [0, 0, 1]
    """
    systems = torch.arange(n_atoms.shape[0], device=n_atoms.device)
    return torch.repeat_interleave(systems, n_atoms, output_size=total)


def first_atom(n_atoms: Int[Tensor, " systems"]) -> Int[Tensor, " systems"]:
    """Index of the first atom of each system.

    >>> first_atom(torch.tensor([2, 1])).tolist()
    [0, 2]
    """
    return torch.cumsum(n_atoms, 0) - n_atoms


def segment_sum(
    values: Float[Tensor, "atoms *rest"], system: Int[Tensor, " atoms"], *, n_systems: int
) -> Float[Tensor, "systems *rest"]:
    """Sum of `values` over the atoms of each system.

    >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 1]), n_systems=2).tolist()
    [3.0, 4.0]
    """
    return values.new_zeros((n_systems, *values.shape[1:])).index_add(0, system, values)


def segment_mean(
    values: Float[Tensor, "atoms *rest"], system: Int[Tensor, " atoms"], *, n_systems: int
) -> Float[Tensor, "systems *rest"]:
    """Mean of `values` over the atoms of each system; zero for a system without atoms.

    >>> segment_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 1]), n_systems=2).tolist()
    [1.5, 4.0]
    """
    counts = segment_sum(torch.ones_like(values[(...,) + (0,) * (values.ndim - 1)]), system, n_systems=n_systems)
    total = segment_sum(values, system, n_systems=n_systems)
    return total / counts.clamp(min=1).reshape(-1, *(1,) * (values.ndim - 1))


def centred(
    values: Float[Tensor, "atoms *rest"], system: Int[Tensor, " atoms"], *, n_systems: int
) -> Float[Tensor, "atoms *rest"]:
    """`values` less their mean over each system, so that no system drifts.

    >>> centred(torch.tensor([1.0, 3.0, 4.0]), torch.tensor([0, 0, 1]), n_systems=2).tolist()
    [-1.0, 1.0, 0.0]
    """
    return values - segment_mean(values, system, n_systems=n_systems)[system]
