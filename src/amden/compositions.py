"""What glasses consist of, structure by structure: atoms of each element, and oxides in words."""

from jaxtyping import Int
from torch import Tensor, bincount

from amden.elements import FORMAL_CHARGES, GHOST, symbol
from amden.simulate.oxides import oxide_moles
from amden.structure import Structures


def counts_of(structures: Structures) -> list[dict[str, int]]:
    """Atoms of each element in each structure, ghosts left out.

    >>> from amden.testing import diamond
    >>> counts_of(diamond())
    [{'Si': 8}]
    """
    return [_counts(species) for species in structures.species.cpu().split(structures.n_atoms.tolist())]


def _counts(species: Int[Tensor, " atoms"]) -> dict[str, int]:
    return {symbol(z): n for z, n in enumerate(bincount(species).tolist()) if n and z != GHOST}


def formal_charge(counts: dict[str, int]) -> int | None:
    """Sum of the formal charges in e; None where that of an element is not known.

    >>> formal_charge({"Si": 3, "O": 5}), formal_charge({"Si": 1, "Fe": 1})
    (2, None)
    """
    if not counts.keys() <= FORMAL_CHARGES.keys():
        return None
    return sum(n * FORMAL_CHARGES[name] for name, n in counts.items())


def oxides(counts: dict[str, int]) -> str:
    """Mole per cent of the oxides, the most of them first, as `amden simulate --composition` reads it.

    Nothing for what is not oxides alone: charges that do not balance, other anions.

    >>> oxides({"Li": 20, "Si": 30, "Al": 20, "O": 100}), oxides({"Si": 1, "O": 1})
    ('SiO2:60 Al2O3:20 Li2O:20', '')
    """
    charge = formal_charge(counts)
    others = [name for name in counts if name != "O" and FORMAL_CHARGES.get(name, 0) < 0]
    if charge != 0 or others or "O" not in counts:
        return ""
    moles = sorted(oxide_moles(counts).items(), key=lambda each: (-each[1], each[0]))
    return " ".join(f"{oxide}:{amount:.4g}" for oxide, amount in moles)


def oxide_column(structures: Structures) -> list[str] | None:
    """`oxides` of each structure; None where none of them mixes oxides, so that there is nothing to tell."""
    found = [oxides(counts) for counts in counts_of(structures)]
    return found if any(" " in each for each in found) else None
