"""Elastic constants of media whose stress is known in closed form."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from amden.analysis.elastic import NINE, VOIGT, ElasticTensor, elastic_tensor, one_sided_moduli
from amden.structure import Structures, concatenate
from amden.testing import diamond, random_structures
from amden.units import EV_PER_A3_IN_GPA

WEIGHT = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
"""ε_j in Voigt's notation over the component of the strain tensor."""


@dataclass(frozen=True)
class Answer:
    stress: np.ndarray
    converged: np.ndarray


def medium(structures: Structures, tensors: np.ndarray, *, at_rest: float = 0.0) -> Callable[..., Answer]:
    """σ = σ_0 + C ε + a quadratic term, of the strain of the cells; tensors and stress in GPa."""
    inverse = np.linalg.inv(structures.cell.double().numpy())

    def stress(positions, cells, n_atoms, species):
        copies = len(cells) // len(inverse)
        deformation = np.tile(inverse, (copies, 1, 1)) @ cells
        strain = 0.5 * (deformation + deformation.swapaxes(1, 2)) - np.eye(3)
        voigt = np.stack([strain[:, i, j] for i, j in VOIGT], axis=1) * WEIGHT
        values = at_rest + np.einsum("sij,sj->si", np.tile(tensors, (copies, 1, 1)), voigt) + 50.0 * voigt**2
        full = np.zeros((len(cells), 3, 3))
        for k, (i, j) in enumerate(VOIGT):
            full[:, i, j] = full[:, j, i] = values[:, k]
        return Answer(full / EV_PER_A3_IN_GPA, np.ones(len(cells), bool))

    return stress


def triclinic(seed: int = 0, n: int = 2) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(n, 6, 6))
    return 60.0 * np.eye(6) + 4.0 * a @ a.swapaxes(1, 2)


def cubic(c11: float, c12: float, c44: float) -> np.ndarray:
    tensor = np.diag([c11 - c12] * 3 + [c44] * 3)
    tensor[:3, :3] += c12
    return tensor


def full(tensor: np.ndarray) -> np.ndarray:
    """C_ijkl of c_ij."""
    place = np.empty((3, 3), int)
    for k, (i, j) in enumerate(VOIGT):
        place[i, j] = place[j, i] = k
    return tensor[place[:, :, None, None], place[None, None]]


def result(tensor: np.ndarray) -> ElasticTensor:
    n = len(tensor)
    return ElasticTensor(
        strain=1e-3, tensor=tensor, asymmetry=np.zeros(n), stress=np.zeros((n, 3, 3)), converged=np.ones(n, bool)
    )


def test_all_constants_of_a_triclinic_medium():
    """Central differences are free of the quadratic term; stress at rest is told, and subtracted."""
    structures, expected = random_structures([3, 5]), triclinic()
    found = elastic_tensor(structures, stress=medium(structures, expected, at_rest=0.7), strain=0.01)
    np.testing.assert_allclose(found.tensor, expected, rtol=1e-9)
    np.testing.assert_allclose(found.asymmetry, 0.0, atol=1e-8)
    np.testing.assert_allclose(found.stress, 0.7, rtol=1e-9)
    assert found.converged.all()
    assert found.positive_definite.all()


def test_asymmetry_is_told():
    structures, tensors = random_structures([3]), triclinic(n=1)
    tensors[0, 0, 5] += 3.0
    found = elastic_tensor(structures, stress=medium(structures, tensors))
    assert found.asymmetry[0] == pytest.approx(3.0)
    np.testing.assert_allclose(found.tensor, 0.5 * (tensors + tensors.swapaxes(1, 2)), atol=1e-8)


def test_one_sided_differences_see_the_quadratic_term():
    structures, tensors = random_structures([3, 5]), triclinic()
    found = one_sided_moduli(structures, stress=medium(structures, tensors, at_rest=-2.0), strain=0.02)
    for name, values in zip(NINE, found.components.T, strict=True):
        i, j = int(name[1]) - 1, int(name[2]) - 1
        np.testing.assert_allclose(values, tensors[:, i, j] + (50.0 * 0.02 if i == j else 0.0), rtol=1e-9)
    c11, c12, c44 = found.components.reshape(2, 3, 3).mean(axis=2).T
    np.testing.assert_allclose(found.young, (c11 - c12) * (c11 + 2 * c12) / (c11 + c12))
    np.testing.assert_allclose(found.shear, c44)
    np.testing.assert_allclose(found.bulk, (c11 + 2 * c12) / 3)


def test_voigt_and_reuss_are_contractions_of_the_full_tensors():
    """K = C_iijj/9 and G = (3 C_ijij - C_iijj)/30 of stiffness, 1/K = S_iijj and 1/G = (6 S_ijij - 2 S_iijj)/15."""
    tensors = triclinic(3, n=4)
    found = result(tensors)
    for s, tensor in enumerate(tensors):
        stiffness, compliance = full(tensor), full(np.linalg.inv(tensor) / np.outer(WEIGHT, WEIGHT))
        trace, mixed = np.einsum("iijj", stiffness), np.einsum("ijij", stiffness)
        np.testing.assert_allclose(
            [found.voigt.bulk[s], found.voigt.shear[s]], [trace / 9, (3 * mixed - trace) / 30], rtol=1e-12
        )
        trace, mixed = np.einsum("iijj", compliance), np.einsum("ijij", compliance)
        np.testing.assert_allclose(
            [found.reuss.bulk[s], found.reuss.shear[s]], [1 / trace, 15 / (6 * mixed - 2 * trace)], rtol=1e-12
        )
    assert (found.voigt.shear >= found.hill.shear).all()
    assert (found.hill.shear >= found.reuss.shear).all()


def test_cubic_crystals():
    """A_U = 6/5 (√A - 1/√A)² with Zener's A = 2 c44/(c11 - c12); 0 where it is isotropic."""
    found = result(np.stack([cubic(151.4, 76.4, 56.4), cubic(100.0, 40.0, 30.0)]))
    zener = 2 * 56.4 / (151.4 - 76.4)
    np.testing.assert_allclose(
        found.universal_anisotropy, [1.2 * (zener**0.5 - zener**-0.5) ** 2, 0.0], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(found.hill.bulk, [(151.4 + 2 * 76.4) / 3, 60.0])
    isotropic = result(found.tensor[1:]).hill
    np.testing.assert_allclose([isotropic.young[0], isotropic.poisson[0]], [(60 * 180) / 140, 40 / 140])


def test_the_conventions_agree_for_an_isotropic_medium_without_a_quadratic_term():
    structures = diamond()
    stress = medium(structures, cubic(100.0, 40.0, 30.0)[None])
    one, both = one_sided_moduli(structures, stress=stress, strain=1e-7), elastic_tensor(structures, stress=stress)
    np.testing.assert_allclose(
        [one.young, one.shear, one.bulk], [both.hill.young, both.hill.shear, both.hill.bulk], rtol=1e-5
    )


def test_springs_between_neighbours_in_fcc():
    """c11 = 2 k/a and c12 = c44 = k/a, from C_ijkl = (1/V) Σ k r² n_i n_j n_k n_l over bonds: Cauchy's relations."""
    a, k = 4.0, 2.5
    rest = a / np.sqrt(2.0)
    cell = torch.tensor(a / 2 * (1.0 - np.eye(3)))[None]
    crystal = Structures(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([13]), cell, torch.tensor([1]))

    def springs(positions, cells, n_atoms, species):
        steps = np.concatenate([np.eye(3), np.eye(3) - np.roll(np.eye(3), 1, axis=0)])
        bonds = np.einsum("bi,sij->sbj", steps, cells)
        length = np.linalg.norm(bonds, axis=-1)
        virial = np.einsum("sb,sbi,sbj->sij", k * (length - rest) / length, bonds, bonds)
        return Answer(virial / np.abs(np.linalg.det(cells))[:, None, None], np.ones(len(cells), bool))

    found = elastic_tensor(crystal, stress=springs, strain=1e-4)
    in_gpa = k / a * EV_PER_A3_IN_GPA
    np.testing.assert_allclose(found.tensor[0], cubic(2 * in_gpa, in_gpa, in_gpa), rtol=1e-6, atol=1e-6)


def test_atoms_and_cells_are_strained_together_in_one_call():
    structures, calls = concatenate([diamond(), random_structures([4], species=(8,))]), []

    def stress(positions, cells, n_atoms, species):
        calls.append((positions, cells, n_atoms, species))
        return Answer(np.zeros((len(cells), 3, 3)), np.ones(len(cells), bool))

    elastic_tensor(structures, stress=stress, strain=0.01)
    [(positions, cells, n_atoms, species)] = calls
    assert n_atoms.tolist() == [8, 4] * 13
    assert species.tolist() == structures.species.tolist() * 13
    fractions = np.einsum("ai,aij->aj", positions, np.linalg.inv(np.repeat(cells, n_atoms, axis=0))).reshape(13, 12, 3)
    np.testing.assert_allclose(fractions, np.broadcast_to(fractions[:1], fractions.shape), atol=1e-12)
    np.testing.assert_allclose(positions[:12], structures.positions.numpy())
    shear = np.linalg.inv(cells[0]) @ cells[8]  # ε_4 = 2 ε_yz = 0.01
    np.testing.assert_allclose(shear, [[1, 0, 0], [0, 1, 0.005], [0, 0.005, 1]], atol=1e-12)


def test_what_is_unstable_or_did_not_converge_is_told():
    structures = random_structures([3, 5, 4])
    tensors = np.stack([cubic(100.0, 40.0, 30.0), cubic(100.0, 40.0, -1.0), cubic(100.0, 40.0, 30.0)])
    whole = medium(structures, tensors)

    def stress(*batch):
        answer = whole(*batch)
        converged, values = answer.converged.copy(), answer.stress.copy()
        converged[3 * 4] = False
        values[2] = np.nan
        return Answer(values, converged)

    found = elastic_tensor(structures, stress=stress)
    assert found.positive_definite.tolist() == [True, False, True]
    assert found.converged.tolist() == [False, True, True]
    assert np.isnan(found.hill.shear).tolist() == [False, True, False]
    assert np.isfinite(found.voigt.shear).all()
    assert [row["positive_definite"] for row in found.rows()] == [True, False, True]
    assert found.rows()[1]["shear"] is None
    one = one_sided_moduli(structures, stress=stress)
    assert one.positive_definite.tolist() == [True, False, False]  # the stress without strain is missing
    assert one.converged.tolist() == [False, True, True]
    assert one.rows()[2]["young"] is None


def test_a_tensor_that_is_not_finite_is_not_stable():
    found = result(np.full((1, 6, 6), np.nan))
    assert found.positive_definite.tolist() == [False]
    assert np.isnan(found.universal_anisotropy).all()


def test_rows_are_plain_numbers():
    structures = diamond()
    stress = medium(structures, cubic(151.4, 76.4, 56.4)[None])
    rows = elastic_tensor(structures, stress=stress).rows() + one_sided_moduli(structures, stress=stress).rows()
    assert json.loads(json.dumps(rows)) == rows
    assert [row["convention"] for row in rows] == ["central", "one-sided"]
    assert rows[0]["c11"] == pytest.approx(151.4)
    assert rows[1]["c44"] == pytest.approx(56.4 + 50.0 * 0.02)
    assert sum(name.startswith("c") and name[1:].isdigit() for name in rows[0]) == 21


def test_bad_input():
    structures = diamond()
    stress = medium(structures, cubic(100.0, 40.0, 30.0)[None])
    with pytest.raises(ValueError, match=r"`strain` must be between 0 and 0.1, got -0.01"):
        elastic_tensor(structures, stress=stress, strain=-0.01)
    with pytest.raises(ValueError, match=r"`strain` must be between 0 and 0.1, got 2.0"):
        one_sided_moduli(structures, stress=stress, strain=2.0)
    with pytest.raises(ValueError, match=r"`stress` must return stresses \[7, 3, 3\] and flags \[7\], got \[1, 3, 3\]"):
        one_sided_moduli(structures, stress=lambda *_: Answer(np.zeros((1, 3, 3)), np.ones(1, bool)))
