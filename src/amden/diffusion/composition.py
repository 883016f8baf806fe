"""Which element each atom is, exactly as a composition or neutrality demands, and as likely as that allows.

A denoised sample holds for each atom i and class c the probability p_ic: the posterior mean of a one-hot vector is just
that. Looked for are classes c_i that maximise Σ_i ln p_ic under

    neutral          Σ_i q(c_i) = 0 for the formal charges q
    a composition    k ν_c atoms of each element c, for any whole k

Ghosts are a class like the others: they carry no charge, belong to no composition, and an atom may become one, or one
an atom, where that is the likeliest way. Both problems are solved exactly (`assignment` has the algorithms).

========= ============== ==============================================
symbol    variable       meaning
========= ============== ==============================================
p_ic      `log_p`        probability of class c for atom i, as logarithm
q         `charges`      formal charge of each class in e
ν         `parts`        atoms of each element in a formula unit
k         `units`        formula units
========= ============== ==============================================
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden.diffusion.assignment import balanced, proportioned
from amden.diffusion.vocabulary import Vocabulary
from amden.elements import FORMAL_CHARGES, GHOST, symbol

NOISE: Final = 0.01
"""What is left of the elements' noise at the end, about: smaller probabilities are not taken at their word."""


@dataclass(frozen=True)
class Formula:
    """A composition: whole formula units of these parts."""

    parts: Mapping[int, int]
    """Atoms of each atomic number in a unit."""

    def __post_init__(self) -> None:
        if not self.parts or any(n < 1 for n in self.parts.values()):
            raise ValueError(f"a formula needs elements with whole numbers of atoms, got {dict(self.parts)}")

    def __str__(self) -> str:
        return "".join(f"{symbol(z)}{n if n > 1 else ''}" for z, n in self.parts.items())

    def assigned(self, log_p: Float[np.ndarray, "atoms classes"], vocabulary: Vocabulary) -> Int[np.ndarray, " atoms"]:
        """The likeliest class of each atom."""
        self.require(len(log_p), vocabulary)
        parts = np.array([self.parts.get(z, 0) for z in vocabulary.classes])
        return proportioned(log_p, parts, free=len(parts) - 1 if vocabulary.ghosts else None)

    def require(self, n_atoms: int, vocabulary: Vocabulary) -> None:
        """`ValueError` for elements that the vocabulary lacks, or a number of atoms that no whole unit fits."""
        strangers = [symbol(z) for z in self.parts if z not in vocabulary.species]
        if strangers:
            raise ValueError(f"{self} has {', '.join(strangers)}, the model knows {vocabulary}")
        unit = sum(self.parts.values())
        if vocabulary.ghosts and n_atoms < unit:
            raise ValueError(f"{n_atoms} atoms are less than one unit of {self}")
        if not vocabulary.ghosts and n_atoms % unit:
            below, above = n_atoms // unit * unit, -(-n_atoms // unit) * unit
            raise ValueError(f"{n_atoms} atoms cannot be {self}: take {below or above} or {above}")


@dataclass(frozen=True)
class Neutral:
    """No net charge, whatever the composition."""

    charges: Mapping[int, int]
    """Formal charge in e of each atomic number."""

    @staticmethod
    def of(vocabulary: Vocabulary) -> "Neutral | None":
        """With the formal charges of the elements, if all have one and both signs are among them."""
        charges = formal_charges(vocabulary)
        if charges is None or min(charges.values()) >= 0 or max(charges.values()) <= 0:
            return None
        return Neutral(charges)

    def __str__(self) -> str:
        return "neutral"

    def assigned(self, log_p: Float[np.ndarray, "atoms classes"], vocabulary: Vocabulary) -> Int[np.ndarray, " atoms"]:
        """The likeliest class of each atom.

        Errors: `ValueError` where so many atoms of these charges cannot be neutral.
        """
        return balanced(log_p, np.array([0 if z == GHOST else self.charges[z] for z in vocabulary.classes]))

    def require(self, n_atoms: int, vocabulary: Vocabulary) -> None:
        """`ValueError` where so many atoms of these charges cannot be neutral.

        Above a hundred atoms this does not depend on whole neutral groups of two elements more or less.
        """
        if vocabulary.ghosts:
            return
        most, least = max(self.charges.values()), -min(self.charges.values())
        group = (most + least) // gcd(most, least)
        few = n_atoms if n_atoms <= _MANY else n_atoms % group + -(-_MANY // group) * group
        try:
            self.assigned(np.zeros((few, len(vocabulary.classes))), vocabulary)
        except ValueError as error:
            raise ValueError(str(error).replace(f" {few} atoms", f" {n_atoms} atoms")) from None


_MANY: Final = 100

Constraint = Formula | Neutral


def formal_charges(vocabulary: Vocabulary) -> dict[int, int] | None:
    """Formal charge of each element; None if that of one is not known.

    >>> formal_charges(Vocabulary((8, 14)))
    {8: -2, 14: 4}
    """
    found = {z: FORMAL_CHARGES.get(symbol(z)) for z in vocabulary.species}
    known = {z: q for z, q in found.items() if q is not None}
    return known if len(known) == len(found) else None


def log_probabilities(elements: Float[Tensor, "atoms classes"]) -> Float[Tensor, "atoms classes"]:
    """ln p from denoised elements, which are probabilities but for the error of the model.

    p ∝ (e + √(e² + 4 δ²))/2 with δ = `NOISE`: e itself where that is well above δ, positive and rising everywhere.

    >>> log_probabilities(torch.tensor([[1.0, 0.0, -0.1]])).exp().mul(1000).round().tolist()
    [[989.0, 10.0, 1.0]]
    """
    e = elements.double()
    p = 0.5 * (e + torch.sqrt(e.square() + 4 * NOISE**2))
    return torch.log(p / p.sum(1, keepdim=True))
