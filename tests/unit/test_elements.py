import numpy as np
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


@pytest.mark.parametrize(
    ("symbol", "length"),
    # V. F. Sears, Neutron News 3(3), 26 (1992), as listed by the NIST Center for Neutron Research
    [
        ("H", -3.739),
        ("Li", -1.90),
        ("B", 5.30),
        ("O", 5.803),
        ("Na", 3.63),
        ("Si", 4.1491),
        ("P", 5.13),
        ("Ca", 4.70),
        ("Ti", -3.438),
        ("Fe", 9.45),
        ("Ge", 8.185),
        ("Ba", 5.07),
        ("Pb", 9.405),
    ],
)
def test_scattering_lengths(symbol, length):
    assert elements.scattering_length(elements.atomic_number(symbol)) == length


def test_form_factors_start_at_the_number_of_electrons_and_fall():
    q = np.linspace(0.0, 25.0, 251)
    for number in range(1, 93):
        f = elements.form_factor(number, q)
        assert f[0] == pytest.approx(number, abs=0.06)
        assert (np.diff(f) < 1e-6).all()
        assert f[-1] > -1e-3


@pytest.mark.parametrize(
    ("symbol", "s", "f"),
    # The four-Gaussian fit of International Tables for Crystallography C, table 6.1.1.4, at s = sin θ / λ in 1/Å
    [
        ("O", 0.2, 5.623),
        ("O", 0.5, 2.337),
        ("Si", 0.2, 9.675),
        ("Si", 0.5, 6.240),
        ("Na", 0.3, 6.884),
        ("Ba", 0.3, 38.59),
    ],
)
def test_form_factors_are_those_of_the_international_tables(symbol, s, f):
    found = elements.form_factor(elements.atomic_number(symbol), np.array([4 * np.pi * s]))
    assert found[0] == pytest.approx(f, abs=0.02)


def test_unknown_scattering():
    with pytest.raises(ValueError, match="no neutron scattering length is tabulated for 'Po'"):
        elements.scattering_length(84)
    with pytest.raises(ValueError, match="no X-ray form factor is tabulated for 'X'"):
        elements.form_factor(0, np.zeros(1))


def test_formal_charges_balance_glasses():
    for names, counts in [(("Si", "O"), (1, 2)), (("P", "O"), (2, 5)), (("Na", "O"), (2, 1)), (("Al", "O"), (2, 3))]:
        assert sum(n * elements.FORMAL_CHARGES[name] for name, n in zip(names, counts, strict=True)) == 0
    assert "Fe" not in elements.FORMAL_CHARGES
    assert all(elements.atomic_number(name) for name in elements.FORMAL_CHARGES)
