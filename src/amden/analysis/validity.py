"""What makes a structure impossible, whatever it is like otherwise."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Bool

from amden.analysis.composition import charge
from amden.analysis.grid import kinds
from amden.analysis.rdf import RDF
from amden.elements import COVALENT_RADII, FORMAL_CHARGES, atomic_number, symbol
from amden.structure import Structures

OVERLAP: Final = 0.6
"""Atoms closer than this part of the sum of their covalent radii overlap."""


def overlapping(partial: Mapping[str, RDF]) -> Bool[np.ndarray, " systems"]:
    """Whether some atoms of each structure overlap, from its partial g(r): a bin below the limit is not empty.

    >>> from amden.analysis.rdf import partial_rdf
    >>> from amden.testing import diamond
    >>> [overlapping(partial_rdf(diamond(a=a))).item() for a in (5.4, 3.0)]
    [False, True]
    """
    found = np.zeros(len(next(iter(partial.values())).per_system), dtype=bool)
    for pair, g in partial.items():
        limit = OVERLAP * float(sum(COVALENT_RADII[atomic_number(name)] for name in pair.split("-")))
        found |= (np.nan_to_num(g.per_system[:, g.edges[1:] <= limit]) > 0.0).any(axis=1)
    return found


def charged(structures: Structures) -> Bool[np.ndarray, " systems"] | None:
    """Whether the formal charges of each structure do not add up to 0.

    None where that says nothing: for elements without a formal charge, and where the charges are all of one sign.
    """
    charges = [FORMAL_CHARGES.get(symbol(z), 0) for z in kinds(structures)]
    if 0 in charges or min(charges) > 0 or max(charges) < 0:
        return None
    return charge(structures).total != 0
