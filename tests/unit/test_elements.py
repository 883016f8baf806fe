import pytest

from amden import elements


@pytest.mark.parametrize(
    ("symbol", "number", "mass", "radius"),
    # IUPAC standard atomic weights; Cordero et al., Dalton Trans. 2008, 2832
    [("H", 1, 1.008, 0.31), ("O", 8, 15.999, 0.66), ("Si", 14, 28.085, 1.11), ("P", 15, 30.974, 1.07)],
)
def test_tables(symbol, number, mass, radius):
    assert elements.atomic_number(symbol) == number
    assert elements.symbol(number) == symbol
    assert elements.MASSES[number] == pytest.approx(mass, abs=1e-3)
    assert elements.COVALENT_RADII[number] == pytest.approx(radius)


def test_ghost_is_weightless_and_called_x():
    assert elements.symbol(elements.GHOST) == "X"
    assert elements.atomic_number("X") == elements.GHOST
    assert elements.MASSES[elements.GHOST] == 0
    assert elements.COVALENT_RADII[elements.GHOST] == 0


def test_every_symbol_comes_back():
    for number in range(119):
        assert elements.atomic_number(elements.symbol(number)) == number


@pytest.mark.parametrize("unknown", ["Qq", "si", "SI", "", "14"])
def test_unknown_symbol(unknown):
    with pytest.raises(ValueError, match=f"unknown element '{unknown}'"):
        elements.atomic_number(unknown)


@pytest.mark.parametrize("unknown", [-1, 119])
def test_unknown_number(unknown):
    with pytest.raises(ValueError, match=f"unknown atomic number {unknown}"):
        elements.symbol(unknown)


def test_formula_counts_in_order_of_atomic_number():
    assert elements.formula([14, 8, 14, 8, 8]) == "O3Si2"
    assert elements.formula([]) == ""
