"""Sets compared whose difference is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from amden.analysis.compare import Difference, analyze, compare
from amden.analysis.noise import Floor
from amden.analysis.observables import Settings, observe
from amden.analysis.parity import parities
from amden.analysis.qn import qn
from amden.analysis.scattering import structure_factor
from amden.simulate.relaxation import RelaxedStructures
from amden.structure import Structures
from amden.testing import diamond, random_structures

SETTINGS = Settings(r_max=5.0, bond_cutoff=3.2, halvings=50)


def glasses(n: int, *, seed: int = 0, spacing: float = 2.5) -> Structures:
    return random_structures([27] * n, seed=seed, spacing=spacing)


def energies(structures: Structures) -> np.ndarray:
    """-3 eV an atom, and what the size of the cell adds."""
    return -3.0 * structures.n_atoms.numpy() + structures.volume.numpy() / 100.0


def test_sets_made_the_same_way_agree():
    found = analyze(glasses(20, seed=1), glasses(40, seed=2), settings=SETTINGS, energy=energies)
    assert [(d.quantity, d.measure) for d in found.differences] == [
        ("g(r)", "RMSD"),
        ("bond angles", "RMSD"),
        ("S(q)", "RMSD"),
        *(
            (q, m)
            for q in ("coordination", "defects", "largest void", "density", "energy")
            for m in ("mean", "Wasserstein")
        ),
        ("invalid", "fraction"),
        ("diversity", "mean"),
    ]
    assert sum(d.within_noise for d in found.differences) >= 13
    assert found.novelty is not None
    assert found.novelty.copies is None
    assert all(d.floors < 2.5 for d in found.differences)


def test_a_denser_set_is_off_by_as_much_as_it_is_denser():
    found = analyze(glasses(20, seed=1, spacing=2.1), glasses(40, seed=2), settings=SETTINGS)
    by_name = {(d.quantity, d.measure): d for d in found.differences}
    density = by_name["density", "mean"]
    assert found.reference is not None
    difference = found.generated.density.mean() - found.reference.density.mean()
    assert density.value == pytest.approx(difference)
    assert density.generated - density.reference == pytest.approx(difference)
    assert density.verdict == f"{density.floors:.1f} floors off"
    assert density.floors > 3.0
    assert not by_name["g(r)", "RMSD"].within_noise


def test_rmsd_of_g_is_that_of_the_mean_curves():
    found = analyze(glasses(5, seed=1), glasses(6, seed=2), settings=SETTINGS)
    assert found.reference is not None
    difference = found.generated.rdf.g - found.reference.rdf.g
    assert found.differences[0].value == pytest.approx(math.sqrt(np.mean(difference**2)))


def test_energies_are_per_atom_and_unrelaxed_structures_are_left_out():
    glass = glasses(6)

    def relax(structures: Structures) -> RelaxedStructures:
        return RelaxedStructures(structures, energies(structures) - 27.0, np.arange(len(structures)) != 2)

    found = observe(glass, settings=SETTINGS, energy=energies, relax=relax)
    np.testing.assert_allclose(found.energies["energy"], energies(glass) / 27.0)
    np.testing.assert_allclose(np.delete(found.energies["relaxed energy"] + 1.0, 2), np.delete(energies(glass) / 27, 2))
    assert found.unconverged == 1
    assert len(found.scalars["relaxed energy"][1]) == 5


def test_without_a_reference_there_is_nothing_to_compare():
    found = analyze(glasses(2), settings=SETTINGS)
    assert found.reference is None
    assert found.differences == ()


def test_ghosts_are_no_atoms():
    glass = glasses(3)
    ghost = replace(
        glass,
        positions=torch.cat([glass.positions, torch.zeros(1, 3, dtype=torch.float64)]),
        species=torch.cat([glass.species, torch.tensor([0])]),
        n_atoms=glass.n_atoms + torch.tensor([0, 0, 1]),
    )
    assert compare(observe(ghost, settings=SETTINGS), observe(glass, settings=SETTINGS))[0].value == 0.0


@pytest.mark.parametrize(
    ("value", "floor", "verdict"),
    [
        (0.1, Floor(0.2, 0.1, 0.15), "within noise"),
        (0.3, Floor(0.2, 0.1, 0.15), "3.0 floors off"),
        (0.0, Floor(0.0, 0.0, 0.0), "within noise"),
        (0.3, Floor(0.0, 0.0, 0.0), "off; the reference does not vary"),
        (0.3, Floor(math.nan, math.nan, math.nan), "no floor: fewer than 4 reference structures"),
        (math.nan, Floor(0.2, 0.1, 0.15), "not known"),
    ],
)
def test_verdicts(value, floor, verdict):
    assert Difference("density", "mean", "g/cm³", value, floor).verdict == verdict


def test_a_set_whose_relaxation_failed_altogether_is_not_known():
    def relax(structures: Structures) -> RelaxedStructures:
        return RelaxedStructures(structures, energies(structures), np.zeros(len(structures), dtype=bool))

    found = analyze(glasses(4), glasses(4, seed=1), settings=SETTINGS, relax=relax)
    assert [d.verdict for d in found.differences if d.quantity == "relaxed energy"] == ["not known"] * 2


def test_without_a_training_set_or_reference_nothing_is_said_of_novelty():
    assert analyze(glasses(2), settings=SETTINGS).novelty is None


def test_a_training_set_is_looked_for():
    found = analyze(glasses(20, seed=1), glasses(20, seed=2), training=glasses(20, seed=1), settings=SETTINGS)
    assert found.novelty is not None
    assert found.novelty.copies is not None
    assert found.novelty.copies.same.all()
    by_name = {(d.quantity, d.measure): d for d in found.differences}
    assert by_name["novelty", "mean"].generated < 0.02
    assert not by_name["local novelty", "mean"].within_noise


def test_intervals_hold_the_value():
    found = analyze(glasses(20, seed=1, spacing=2.1), glasses(40, seed=2), settings=SETTINGS)
    density = next(d for d in found.differences if (d.quantity, d.measure) == ("density", "Wasserstein"))
    assert density.interval[0] < density.value < density.interval[1]


def oxides(n: int, *, seed: int, oxygen: int = 36) -> Structures:
    """Cells of 54 atoms, of which so many are oxygen and the others silicon."""
    glass = random_structures([54] * n, seed=seed, spacing=2.2)
    species = torch.tensor([8] * oxygen + [14] * (54 - oxygen)).repeat(n)
    return replace(glass, species=species)


def test_elements_are_told_apart():
    settings = replace(SETTINGS, bond_cutoff=None)
    found = analyze(oxides(6, seed=1), oxides(6, seed=2, oxygen=35), settings=settings)
    assert found.settings.bond_cutoff == {"O-Si": 2.301}
    quantities = {d.quantity for d in found.differences}
    assert {"g(r)", "g(r) O-O", "g(r) O-Si", "g(r) Si-Si", "Si-O-Si", "O-Si-O", "S(q)"} <= quantities
    assert {"S(q) X-ray", "S(q) O-O", "S(q) O-Si", "S(q) Si-Si"} <= quantities
    assert {"O neighbours", "Si neighbours", "Q4 of Si", "non-bridging O"} <= quantities
    assert not quantities & {"coordination", "bond angles"}
    (invalid,) = (d for d in found.differences if d.quantity == "invalid")
    assert (invalid.generated, invalid.reference) == (0.0, 1.0)  # 18 Si⁴⁺ and 36 O²⁻; 19 and 35
    assert not invalid.within_noise


def test_partials_and_network_are_those_of_their_own_functions():
    glass = oxides(4, seed=1)
    found = observe(glass, settings=SETTINGS)
    partial = structure_factor(glass, q_max=SETTINGS.q_max, bin_width=SETTINGS.q_width, most=SETTINGS.q_vectors)
    smooth = partial.smoothed(SETTINGS.q_width)
    for name, mean in {"S(q) O-Si": smooth.partial_means()["O-Si"], "S(q) X-ray": smooth.mean("x-ray")}.items():
        curve = found.curves[name]
        at = np.searchsorted(smooth.q, curve.x - 1e-6)
        everywhere = np.isfinite(smooth.partials["O-Si"]).all(axis=0)[at]
        np.testing.assert_allclose(curve.sample.values.mean(axis=0)[everywhere], mean[at][everywhere], atol=1e-12)
        assert everywhere.sum() > 20
    own = qn(glass, cutoff=SETTINGS.bond_cutoff)
    np.testing.assert_array_equal(found.scalars["Q4 of Si"][1].values, own.fractions["Si"][:, 4])


def test_overlaps_are_invalid_but_measured():
    glass = glasses(3)
    positions = glass.positions.clone()
    positions[1] = positions[0] + torch.tensor([0.9, 0.0, 0.0])
    assert observe(replace(glass, positions=positions), settings=SETTINGS).invalid.tolist() == [True, False, False]


def test_defects_are_atoms_without_the_usual_coordination():
    crystal, broken = diamond((2, 2, 2)), diamond((2, 2, 2))
    broken = replace(broken, positions=broken.positions[1:], species=broken.species[1:], n_atoms=torch.tensor([63]))
    whole = observe(crystal)
    assert whole.usual == {"Si": 4}
    found = observe(broken, usual=whole.usual)
    assert found.defects.tolist() == pytest.approx([4 / 63])  # the neighbours of the vacancy
    assert observe(crystal, usual={"Si": 9}).defects.tolist() == [1.0]
    assert observe(crystal, usual={"Ge": 4}).defects.tolist() == [1.0]


def test_properties_are_compared_and_targets_are_not():
    def with_modulus(structures: Structures, shift: float) -> Structures:
        numbers = torch.linspace(20.0, 30.0, len(structures), dtype=torch.float64)
        properties = {"shear_modulus": numbers + shift, "target_shear_modulus": numbers, "index": numbers}
        return replace(structures, properties=properties)

    found = analyze(with_modulus(glasses(12), 9.0), with_modulus(glasses(12, seed=1), 0.0), settings=SETTINGS)
    moduli = [d for d in found.differences if "modulus" in d.quantity]
    assert [(d.quantity, d.measure, d.unit) for d in moduli] == [
        ("shear_modulus", "mean", "GPa"),
        ("shear_modulus", "Wasserstein", "GPa"),
    ]
    assert [d.value for d in moduli] == pytest.approx([9.0, 9.0])
    assert "index" not in {d.quantity for d in found.differences}
    (parity,) = found.parities
    assert (parity.name, parity.unit, len(parity)) == ("shear_modulus", "GPa", 12)
    assert parity.mean_absolute_error == pytest.approx(9.0)
    assert parity.root_mean_square_error == pytest.approx(9.0)
    assert parity.r_squared < 0.0
    assert math.isnan(parity.requenched_error)


def test_bad_structures_are_named():
    broken = glasses(2)
    with pytest.raises(ValueError, match="structure 1 has NaN or infinite positions"):
        analyze(replace(broken, positions=broken.positions + torch.tensor([[0.0]] * 27 + [[math.nan]] * 27)))


def test_properties_of_requenched_compositions_go_with_their_targets():
    numbers = torch.tensor([20.0, 22.0, torch.nan, 26.0])
    properties = {"target_shear_modulus": torch.full((4,), 21.0), "shear_modulus": numbers}
    anew = torch.tensor([23.0, torch.nan, 50.0, 20.0])
    (found,) = parities(replace(glasses(4), properties={**properties, "requenched_shear_modulus": anew}))
    assert found.requenched is not None
    assert found.requenched.tolist() == pytest.approx([23.0, math.nan, 20.0], nan_ok=True)
    assert found.requenched_error == pytest.approx(1.5)


@pytest.mark.parametrize("swapped", [False, True])
def test_silicon_and_silica_cannot_be_compared(swapped):
    """A silicon file has Si-Si bonds, of which the two together have none."""
    sets = diamond(), random_structures([30], species=(8, 14))
    told = ("Si", "O, Si")
    sets, told = (sets[::-1], told[::-1]) if swapped else (sets, told)
    message = rf"the structures have {told[0]} and the reference {told[1]}: they share no bonds \(O-Si count\), nothing"
    with pytest.raises(ValueError, match=message):
        analyze(*sets)
