"""The elements a model knows, as classes: one-hot encoding of species and back.

Class i is `species[i]`; with ghosts, the ghost is the last class.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden.elements import GHOST, symbol


@dataclass(frozen=True)
class Vocabulary:
    """Elements of a model. A single class has no choice to make: its encoding has width 0.

    >>> Vocabulary((8, 14)).encode(torch.tensor([14, 8])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> Vocabulary((14,)).encode(torch.tensor([14])).shape
    torch.Size([1, 0])
    """

    __pydantic_config__ = {"extra": "forbid"}

    species: tuple[int, ...]
    """Atomic numbers, ascending, without the ghost."""
    ghosts: bool = False
    """Whether ghost atoms are a class of their own."""

    def __post_init__(self) -> None:
        if not self.species or GHOST in self.species or list(self.species) != sorted(set(self.species)):
            raise ValueError(f"`species` must be ascending atomic numbers above 0, got {self.species}")

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Atomic number of each class."""
        return (*self.species, GHOST) if self.ghosts else self.species

    @property
    def width(self) -> int:
        """Width of the encoding: the number of classes, 0 if there is only one."""
        return len(self.classes) if len(self.classes) > 1 else 0

    def encode(self, species: Int[Tensor, " atoms"]) -> Float[Tensor, "atoms classes"]:
        """One-hot encoding. `ValueError` for an element the vocabulary lacks."""
        classes = torch.tensor(self.classes, device=species.device)
        known = species[:, None] == classes
        if not bool(known.any(1).all()):
            stranger = symbol(int(species[~known.any(1)][0]))
            raise ValueError(f"element {stranger} is unknown to this model, which knows {self}")
        return known[:, : self.width].to(torch.get_default_dtype())

    def decode(self, elements: Float[Tensor, "atoms classes"]) -> Int[Tensor, " atoms"]:
        """Most likely species of each atom."""
        classes = torch.tensor(self.classes, device=elements.device)
        if self.width == 0:
            return classes.expand(len(elements)).clone()
        return classes[elements.argmax(1)]

    def __str__(self) -> str:
        return ", ".join(symbol(z) for z in self.species) + (" and ghosts" if self.ghosts else "")
