"""Compositions of oxide glasses: text, the grid of the multi-element set, neutral cells."""

import numpy as np
import pytest

from amden.elements import FORMAL_CHARGES
from amden.simulate.oxides import (
    FORMERS,
    MODIFIERS,
    composition_grid,
    formula_counts,
    neutral_counts,
    oxidation_number,
    oxide_moles,
    parse_composition,
    with_oxygen,
)


def charge(counts):
    return sum(n * FORMAL_CHARGES[name] for name, n in counts.items())


def test_the_grid_is_that_of_the_multi_element_set():
    """28 mixtures of formers times 1 + 28 + 126 + 140 + 35 of modifiers."""
    grid = composition_grid()
    assert len(grid) == len({point.name for point in grid}) == 9240
    assert all(sum(point.formers) == 6 for point in grid)
    assert max(np.count_nonzero(point.modifiers) for point in grid) == 4
    assert max(sum(point.modifiers) for point in grid) == 4
    assert {len(point.cations) for point in grid} == {1, 2, 3, 4, 5, 6, 7}
    for point in grid[::97]:
        assert set(point.cations) <= {*FORMERS, *MODIFIERS}
        assert sum(point.cations.values()) == pytest.approx(1.0)
        assert sum(point.cations.get(m, 0.0) for m in MODIFIERS) == pytest.approx(sum(point.modifiers) / 10)


@pytest.mark.parametrize("n_atoms", [400, 800])
def test_cells_of_the_grid_are_neutral_and_near(n_atoms):
    for point in composition_grid()[::53]:
        wanted = with_oxygen(point.cations)
        counts = neutral_counts(wanted, n_atoms=n_atoms)
        assert charge(counts) == 0
        assert set(counts) == set(wanted)
        assert abs(sum(counts.values()) - n_atoms) <= 2
        assert max(abs(counts[name] - n_atoms * share) for name, share in wanted.items()) < 1.5


def test_no_neutral_cell_is_nearer():
    """By trying all others in reach."""
    wanted = with_oxygen({"Si": 0.5, "P": 0.3, "K": 0.2})
    counts = neutral_counts(wanted, n_atoms=97)
    middle = np.array([97 * share for share in wanted.values()])
    charges = np.array([FORMAL_CHARGES[name] for name in wanted])
    around = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 4), axis=-1).reshape(-1, 4) + np.rint(middle)
    neutral = around[around @ charges == 0]
    nearest = ((neutral - middle) ** 2).sum(axis=1).min()
    assert ((np.array(list(counts.values())) - middle) ** 2).sum() == pytest.approx(nearest)


def test_small_amounts_keep_one_atom():
    counts = neutral_counts(with_oxygen({"Si": 1.0, "Ba": 1e-4}), n_atoms=100)
    assert counts["Ba"] == 1
    assert charge(counts) == 0


@pytest.mark.parametrize(
    "text", ["Li2O:15 SiO2:60 Al2O3:25", "Li2O:15%, SiO2:60%, Al2O3:25%", "Al2O3=5;SiO2=12;Li2O=3"]
)
def test_moles_of_oxides(text):
    """30 Li, 60 Si and 50 Al with 210 O."""
    found = parse_composition(text)
    for name, number in {"Li": 30, "Si": 60, "Al": 50, "O": 210}.items():
        assert found[name] == pytest.approx(number / 350)
    counts = neutral_counts(found, n_atoms=350)
    assert counts == {"Li": 30, "O": 210, "Si": 60, "Al": 50}
    assert oxide_moles(counts) == pytest.approx({"Li2O": 15.0, "SiO2": 60.0, "Al2O3": 25.0})


def test_a_formula_alone_is_all_there_is():
    assert parse_composition("Li2SiO3") == parse_composition("Li2SiO3:7")


def test_atoms_of_elements():
    assert parse_composition("Si:1 O:2") == pytest.approx({"Si": 1 / 3, "O": 2 / 3})
    assert charge(neutral_counts(parse_composition("Li:0.09 Si:0.17 Al:0.14 O:0.6"), n_atoms=401)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the composition is empty"),
        ("SiO2 Li2O:1", "'SiO2' is no term of a composition: expected a formula and an amount, such as 'SiO2:60'"),
        ("SiO2:1 SiO2:2", "'SiO2' comes twice in the composition"),
        ("Si02:60", "the formula 'Si02' has a count that begins with zero: 'SiO2', with the letter O"),
        ("Si2O3", r"'Si2O3' is not neutral: its oxidation numbers sum to \+2"),
        ("SiO2:-4", "'SiO2:-4' is no term"),
        ("SiO2:0", "the amount of 'SiO2' must be positive, got 0"),
        ("SiO3:1", r"'SiO3' is not neutral: its oxidation numbers sum to -2"),
        ("SiO2:1 Li:1", "mixes oxides and elements"),
        ("Si:1 O:1", r"is not neutral: its charge is \+1.000 e an atom"),
        ("Xq2O:1", "unknown element 'Xq'"),
        ("Fe2O3:1", "element 'Fe' has no oxidation number of its own"),
        ("Na2O:1 SiO2:2", "element 'Na' of 'Na2O' is not among Si, O"),
        ("Si0O2:1", "the formula 'Si0O2' must hold at least one atom of each"),
        ("LiF:1", "must hold oxygen and another element"),
    ],
)
def test_bad_text_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_composition(text, known=("Si", "O") if "Na" in text else None)


@pytest.mark.parametrize(
    ("fractions", "n_atoms", "message"),
    [
        ({"Si": 1.0, "O": 2.0}, 1, "`n_atoms` must hold one atom of each of 2 elements, got 1"),
        ({"Si": 1.0, "O": 0.0}, 30, "`fractions` must be positive"),
        ({"Si": 1.0, "O": 9.0}, 300, "no neutral cell of about 300 atoms is near"),
    ],
)
def test_impossible_cells_are_refused(fractions, n_atoms, message):
    with pytest.raises(ValueError, match=message):
        neutral_counts(fractions, n_atoms=n_atoms)


def test_cations_alone_must_be_positive():
    with pytest.raises(ValueError, match="`cations` must have a positive charge together, got -1 e"):
        with_oxygen({"F": 1.0})


def test_oxidation_numbers_balance_the_oxides():
    assert oxidation_number("Ti") == 4
    assert formula_counts("P2O5") == {"P": 2, "O": 5}
    assert set(oxide_moles({"Si": 1, "P": 2, "Al": 2, "K": 2, "Zn": 1, "O": 14})) == {
        "SiO2",
        "P2O5",
        "Al2O3",
        "K2O",
        "ZnO",
    }
