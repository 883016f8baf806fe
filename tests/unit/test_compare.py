"""Sets compared whose difference is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from amden.analysis.compare import Difference, analyze, compare
from amden.analysis.noise import Floor
from amden.analysis.observables import Settings, observe
from amden.analysis.relaxation import Relaxation
from amden.structure import Structures
from amden.testing import random_structures

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
        *((q, m) for q in ("coordination", "density", "energy") for m in ("mean", "Wasserstein")),
    ]
    assert sum(d.within_noise for d in found.differences) >= 7
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

    def relax(structures: Structures) -> Relaxation:
        return Relaxation(structures, energies(structures) - 27.0, np.arange(len(structures)) != 2)

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
    def relax(structures: Structures) -> Relaxation:
        return Relaxation(structures, energies(structures), np.zeros(len(structures), dtype=bool))

    found = analyze(glasses(4), glasses(4, seed=1), settings=SETTINGS, relax=relax)
    assert [d.verdict for d in found.differences if d.quantity == "relaxed energy"] == ["not known"] * 2


def test_bad_structures_are_named():
    broken = glasses(2)
    with pytest.raises(ValueError, match="structure 1 has NaN or infinite positions"):
        analyze(replace(broken, positions=broken.positions + torch.tensor([[0.0]] * 27 + [[math.nan]] * 27)))
