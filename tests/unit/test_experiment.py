from amden.analysis.experiment import MEASURED, measured


def test_every_value_has_a_unit_a_source_and_a_sensible_size():
    for glass in MEASURED:
        for m in measured(glass):
            assert m.source.count("(") >= 1
            assert m.unit or m.quantity == "coordination"
            assert m.uncertainty is None or 0 < m.uncertainty < 0.15 * m.value


def test_moduli_of_silica_are_those_of_one_isotropic_solid():
    shear, young, bulk = (measured("SiO2", f"{name} modulus")[0].value for name in ("shear", "Young's", "bulk"))
    assert abs(9 * bulk * shear / (3 * bulk + shear) - young) < 1.0


def test_the_density_of_amorphous_silicon_is_that_of_its_atoms():
    assert abs(measured("Si", "density")[0].value - 4.90e22 * 28.085 / 6.02214e23) < 0.001
