"""Compositions of oxide glasses: from text and as the grid of the multi-element set, to charge-neutral cells.

Charges here are the oxidation numbers of `elements.FORMAL_CHARGES`. A composition is amounts of cations; the oxygen
that balances them follows.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, product
from math import gcd
from typing import Final

import numpy as np

from amden.elements import FORMAL_CHARGES, atomic_number

FORMERS: Final = ("Si", "P", "Al")
"""Network formers of the multi-element set, in sixths of what the modifiers leave."""
MODIFIERS: Final = ("Li", "Be", "K", "Ca", "Ti", "Ba", "Zn")
"""Its modifiers, in tenths of all cations."""
MOST_MODIFIERS: Final = 4
"""Different ones in a composition."""
MOST_TENTHS: Final = 4
"""Of all cations that may be modifiers."""

_ORDER_SEED: Final = 0
_SIXTHS: Final = 6
_TENTHS: Final = 10
_TERM: Final = re.compile(r"(?P<formula>(?:[A-Z][a-z]?\d*)+)[:=](?P<amount>\d+(?:\.\d*)?|\.\d+)(?P<percent>%?)")
_PART: Final = re.compile(r"([A-Z][a-z]?)(\d*)")
_ZERO: Final = re.compile(r"(?<!\d)0(?=\d)")


def check_counts(formula: str) -> None:
    """`ValueError` for a count that begins with zero: it may have been meant as oxygen."""
    meant = _ZERO.sub("O", formula)
    if meant != formula:
        raise ValueError(f"the formula {formula!r} has a count that begins with zero: {meant!r}, with the letter O?")


def formula_counts(formula: str) -> dict[str, int]:
    """Atoms of each element in a formula without brackets.

    >>> formula_counts("Al2O3")
    {'Al': 2, 'O': 3}
    """
    check_counts(formula)
    counts: dict[str, int] = {}
    for name, number in _PART.findall(formula):
        atomic_number(name)
        counts[name] = counts.get(name, 0) + int(number or 1)
    if min(counts.values(), default=0) < 1:
        raise ValueError(f"the formula {formula!r} must hold at least one atom of each of its elements")
    return counts


def read_terms(text: str) -> list[tuple[str, Fraction]]:
    """Formulas with their amounts: moles of oxides, or atoms of elements, as the two do not mix; of a formula alone 1.

    Errors: `ValueError` that names the term at fault.

    >>> [(formula, float(amount)) for formula, amount in read_terms("SiO2:60 Li2O:40.5")]
    [('SiO2', 60.0), ('Li2O', 40.5)]
    """
    words = [word for word in re.split(r"[\s,;]+", text.strip()) if word]
    if not words:
        raise ValueError("the composition is empty: expected terms such as 'SiO2:60 Li2O:40'")
    alone = len(words) == 1 and not set(words[0]) & set(":=")
    terms = [_term(f"{words[0]}:1")] if alone else [_term(word) for word in words]
    formulas = [formula for formula, _ in terms]
    if len({len(formula_counts(formula)) == 1 for formula in formulas}) == 2:
        raise ValueError(f"the composition {text!r} mixes oxides and elements: give either moles or atoms")
    twice = [formula for formula in formulas if formulas.count(formula) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} comes twice in the composition {text!r}")
    return terms


def parse_composition(text: str, *, known: Sequence[str] | None = None) -> dict[str, float]:
    """Fraction of the atoms that are of each element, from amounts of oxides or of elements in any units.

    Oxides, in moles, must be charge-neutral one by one; elements, in atoms, together. `known` are the elements that may
    occur.

    Errors: `ValueError` that names the term at fault, or the charge that is left.

    >>> silicate = parse_composition("Li2O:15 SiO2:60 Al2O3:25")
    >>> {symbol: round(share, 4) for symbol, share in silicate.items()}
    {'Li': 0.0857, 'O': 0.6, 'Si': 0.1714, 'Al': 0.1429}
    >>> parse_composition("Si:0.3333333 O:0.6666667")["Si"]
    0.3333333
    >>> parse_composition("SiO2") == parse_composition("SiO2:1") == parse_composition("Si:1 O:2")
    True
    """
    amounts: dict[str, float] = {}
    for formula, amount in read_terms(text):
        counts = formula_counts(formula)
        charge = sum(n * oxidation_number(name) for name, n in counts.items())
        if len(counts) > 1 and charge != 0:
            raise ValueError(f"{formula!r} is not neutral: its oxidation numbers sum to {charge:+d}")
        for name, n in counts.items():
            if known is not None and name not in known:
                raise ValueError(f"element {name!r} of {formula!r} is not among {', '.join(known)}")
            amounts[name] = amounts.get(name, 0.0) + n * float(amount)
    total = sum(amounts.values())
    fractions = {name: amount / total for name, amount in amounts.items()}
    left = sum(share * oxidation_number(name) for name, share in fractions.items())
    if abs(left) > 0.02:
        raise ValueError(f"the composition {text!r} is not neutral: its charge is {left:+.3f} e an atom")
    if "O" not in fractions or len(fractions) == 1:
        raise ValueError(f"the composition {text!r} must hold oxygen and another element")
    return fractions


def _term(word: str) -> tuple[str, Fraction]:
    match = _TERM.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is no term of a composition: expected a formula and an amount, such as 'SiO2:60'")
    amount = Fraction(match["amount"])
    if amount <= 0:
        raise ValueError(f"the amount of {match['formula']!r} must be positive, got {match['amount']}")
    return match["formula"], amount


def oxidation_number(name: str) -> int:
    """Of an element in oxide glasses; an error names the elements that have none here."""
    atomic_number(name)
    if name not in FORMAL_CHARGES:
        raise ValueError(f"element {name!r} has no oxidation number of its own: expected {', '.join(FORMAL_CHARGES)}")
    return FORMAL_CHARGES[name]


@dataclass(frozen=True)
class GridPoint:
    """One composition of the multi-element set, as whole parts of its cations."""

    formers: tuple[int, ...]
    """Sixths of the former share that are `FORMERS`."""
    modifiers: tuple[int, ...]
    """Tenths of all cations that are `MODIFIERS`."""

    @property
    def cations(self) -> dict[str, float]:
        """Fraction of all cations that are of each element; those without are left out."""
        share = (_TENTHS - sum(self.modifiers)) / (_TENTHS * _SIXTHS)
        found = {name: parts * share for name, parts in zip(FORMERS, self.formers, strict=True)}
        found |= {name: parts / _TENTHS for name, parts in zip(MODIFIERS, self.modifiers, strict=True)}
        return {name: amount for name, amount in found.items() if amount > 0.0}

    @property
    def name(self) -> str:
        """Its parts in one word, such as `Si4P1Al1-Li2Ca1`: sixths of the formers, tenths of the modifiers."""
        formers = "".join(f"{name}{parts}" for name, parts in zip(FORMERS, self.formers, strict=True) if parts)
        modifiers = "".join(f"{name}{parts}" for name, parts in zip(MODIFIERS, self.modifiers, strict=True) if parts)
        return f"{formers}-{modifiers}" if modifiers else formers


def composition_grid() -> tuple[GridPoint, ...]:
    """All 9,240 compositions: 28 mixtures of formers, and up to four modifiers of up to 0.4 of the cations.

    >>> grid = composition_grid()
    >>> len(grid), grid[0].name, grid[0].cations
    (9240, 'Al6', {'Al': 1.0})
    """
    formers = [parts for parts in product(range(_SIXTHS + 1), repeat=len(FORMERS)) if sum(parts) == _SIXTHS]
    return tuple(GridPoint(f, m) for f in formers for m in _modifier_parts())


@lru_cache(maxsize=1)
def shuffled_grid() -> tuple[GridPoint, ...]:
    """The same in one random order, always the same: the first of them are a sample of all.

    >>> shuffled_grid()[0].name
    'Si4Al2-K4'
    """
    grid = composition_grid()
    return tuple(grid[k] for k in np.random.default_rng(_ORDER_SEED).permutation(len(grid)))


def _modifier_parts() -> Iterator[tuple[int, ...]]:
    """In tenths, at most `MOST_TENTHS` together."""
    for number in range(MOST_MODIFIERS + 1):
        for chosen in combinations(range(len(MODIFIERS)), number):
            for parts in product(range(1, MOST_TENTHS + 1), repeat=number):
                if sum(parts) <= MOST_TENTHS:
                    found = [0] * len(MODIFIERS)
                    for place, amount in zip(chosen, parts, strict=True):
                        found[place] = amount
                    yield tuple(found)


def with_oxygen(cations: Mapping[str, float]) -> dict[str, float]:
    """Fractions of all atoms, of cations in any units and the oxygen that balances them.

    >>> with_oxygen({"Si": 2.0})["Si"] * 3
    1.0
    """
    amounts = {name: amount for name, amount in cations.items() if amount > 0.0}
    charge = sum(amount * oxidation_number(name) for name, amount in amounts.items())
    if charge <= 0.0:
        raise ValueError(f"`cations` must have a positive charge together, got {charge:g} e")
    amounts["O"] = amounts.get("O", 0.0) + charge / -FORMAL_CHARGES["O"]
    total = sum(amounts.values())
    return {name: amount / total for name, amount in amounts.items()}


def neutral_counts(fractions: Mapping[str, float], *, n_atoms: int) -> dict[str, int]:
    """Atoms of each element in an exactly neutral cell of about `n_atoms`.

    Of all neutral cells with at least one atom of each element, the one whose counts are nearest to n_atoms times the
    fractions, in the sum of squares; none of the elements by more than four atoms.

    Errors: `ValueError` where fractions are not positive, or no neutral cell is near.

    >>> neutral_counts({"Li": 0.0857, "Si": 0.1714, "Al": 0.1429, "O": 0.6}, n_atoms=400)
    {'Li': 34, 'Si': 68, 'Al': 58, 'O': 240}
    """
    if n_atoms < len(fractions):
        raise ValueError(f"`n_atoms` must hold one atom of each of {len(fractions)} elements, got {n_atoms}")
    if not fractions or min(fractions.values()) <= 0.0:
        raise ValueError(f"`fractions` must be positive, got {dict(fractions)}")
    total = sum(fractions.values())
    wanted = {name: n_atoms * share / total for name, share in fractions.items()}
    states = {0: (0.0, ())}
    for name, amount in wanted.items():
        states = _one_more(states, oxidation_number(name), amount)
    if 0 not in states:
        raise ValueError(f"no neutral cell of about {n_atoms} atoms is near the composition {dict(fractions)}")
    return dict(zip(wanted, states[0][1], strict=True))


_WINDOW: Final = 4
"""Atoms of an element more or less than wanted."""


def _one_more(
    states: Mapping[int, tuple[float, tuple[int, ...]]], charge: int, amount: float
) -> dict[int, tuple[float, tuple[int, ...]]]:
    """The nearest counts of the elements so far for each charge they may have together, with one more element."""
    middle, found = round(amount), {}
    for before, (cost, counts) in states.items():
        for count in range(max(1, middle - _WINDOW), max(1, middle) + _WINDOW + 1):
            new = (cost + (count - amount) ** 2, (*counts, count))
            after = before + charge * count
            if after not in found or new < found[after]:
                found[after] = new
    return found


def oxide_moles(counts: Mapping[str, int]) -> dict[str, float]:
    """Mole per cent of the oxides of the cations.

    >>> oxide_moles({"Li": 2, "Si": 1, "O": 3})
    {'Li2O': 50.0, 'SiO2': 50.0}
    """
    moles = {}
    for name, count in counts.items():
        charge = oxidation_number(name)
        if charge > 0 and count > 0:
            cations, anions = 2 // gcd(charge, 2), charge // gcd(charge, 2)
            oxide = f"{name}{cations if cations > 1 else ''}O{anions if anions > 1 else ''}"
            moles[oxide] = count / cations
    total = sum(moles.values())
    return {oxide: 100.0 * amount / total for oxide, amount in moles.items()}
