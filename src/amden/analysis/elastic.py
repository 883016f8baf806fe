"""Elastic constants of structures by finite strain, with any source of stresses.

Two conventions that give different numbers, and therefore two functions and two results:

`elastic_tensor`
    Central differences at small strain, all 36 components, Voigt-Reuss-Hill moduli. Converges with the strain and the
    tolerance of the relaxation to the elastic constants of the minimum.
`one_sided_moduli`
    The paper's: one strain of +2 % a component, nine components averaged over the axes as if cubic. With atoms relaxed
    to 0.05 eV/Å only, as there, silica reads 2-4 GPa stiffer than relaxed to 0.005.

Both take differences to the stress without strain, which need not vanish, and both want structures at a minimum:
elsewhere the relaxation brings a drift of its own. Strain is ε = (F + Fᵀ)/2 - 1 with symmetric F, r → r F, cell →
cell F; stress is Cauchy's. In Voigt's order xx yy zz yz xz xy, c_ij = ∂σ_i / ∂ε_j with ε_4 = 2 ε_yz and so on; under
stress these are not the second derivatives of the energy, and c_ij ≠ c_ji where the stress is not hydrostatic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from amden.structure import Structures, validate
from amden.units import EV_PER_A3_IN_GPA

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
NINE = ("c11", "c22", "c33", "c12", "c13", "c23", "c44", "c55", "c66")
"""Components of the one-sided convention."""


class RelaxedStress(Protocol):
    """What a stress callable returns."""

    @property
    def stress(self) -> Float[np.ndarray, "systems 3 3"]:
        """In eV/Å³, tension positive."""
        ...

    @property
    def converged(self) -> Bool[np.ndarray, " systems"]:
        """Whether the atoms came to rest."""
        ...


StressCallable = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], RelaxedStress]
"""Stress of a flat batch after its atoms were relaxed in fixed cells: called with `positions` [atoms, 3] in Å, `cells`
[systems, 3, 3], `n_atoms` [systems] and atomic numbers [atoms], as numpy arrays of float64 and int64.

`amden.simulate.moduli` makes such callables of built-in potentials and of ASE calculators.
"""


@dataclass(frozen=True)
class Moduli:
    """Moduli of an isotropic solid, in GPa."""

    bulk: Float[np.ndarray, " systems"]
    shear: Float[np.ndarray, " systems"]

    @property
    def young(self) -> Float[np.ndarray, " systems"]:
        """E = 9 K G / (3 K + G)."""
        return 9.0 * self.bulk * self.shear / (3.0 * self.bulk + self.shear)

    @property
    def poisson(self) -> Float[np.ndarray, " systems"]:
        """ν = (3 K - 2 G) / (6 K + 2 G)."""
        return (3.0 * self.bulk - 2.0 * self.shear) / (6.0 * self.bulk + 2.0 * self.shear)


@dataclass(frozen=True)
class ElasticTensor:
    """Elastic constants by central differences, and the moduli of a polycrystal of them.

    What needs the compliance is NaN where the tensor is not positive definite.
    """

    strain: float
    """Size of the strain components to either side."""
    tensor: Float[np.ndarray, "systems 6 6"]
    """c_ij in GPa, symmetrised."""
    asymmetry: Float[np.ndarray, " systems"]
    """Largest |c_ij - c_ji| before, in GPa: from relaxations that end early or elsewhere, or from stress."""
    stress: Float[np.ndarray, "systems 3 3"]
    """Stress without strain in GPa, tension positive."""
    converged: Bool[np.ndarray, " systems"]
    """Whether the atoms came to rest under every strain, and without."""

    @property
    def positive_definite(self) -> Bool[np.ndarray, " systems"]:
        """Whether any small strain costs energy; False where the tensor is not finite."""
        finite = np.asarray(np.isfinite(self.tensor).all(axis=(1, 2)))
        return finite & (np.linalg.eigvalsh(np.where(finite[:, None, None], self.tensor, 0.0))[:, 0] > 0.0)

    @property
    def compliance(self) -> Float[np.ndarray, "systems 6 6"]:
        """Inverse of the tensor in 1/GPa."""
        stable = self.positive_definite[:, None, None]
        return np.where(stable, np.linalg.inv(np.where(stable, self.tensor, np.eye(6))), np.nan)

    @property
    def voigt(self) -> Moduli:
        """Upper bounds, of equal strain."""
        axes, mixed, shear = _sums(self.tensor)
        return Moduli(bulk=(axes + 2.0 * mixed) / 9.0, shear=(axes - mixed + 3.0 * shear) / 15.0)

    @property
    def reuss(self) -> Moduli:
        """Lower bounds, of equal stress."""
        axes, mixed, shear = _sums(self.compliance)
        return Moduli(bulk=1.0 / (axes + 2.0 * mixed), shear=15.0 / (4.0 * (axes - mixed) + 3.0 * shear))

    @property
    def hill(self) -> Moduli:
        """Means of both bounds."""
        v, r = self.voigt, self.reuss
        return Moduli(bulk=0.5 * (v.bulk + r.bulk), shear=0.5 * (v.shear + r.shear))

    @property
    def universal_anisotropy(self) -> Float[np.ndarray, " systems"]:
        """A_U = 5 G_V/G_R + K_V/K_R - 6, 0 if isotropic (Ranganathan, Ostoja-Starzewski, PRL 101, 055504 (2008))."""
        v, r = self.voigt, self.reuss
        return 5.0 * v.shear / r.shear + v.bulk / r.bulk - 6.0

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary a system of plain numbers, for a CSV or JSON file; Hill's moduli are None if unstable."""
        hill, anisotropy = self.hill, self.universal_anisotropy
        return [
            {
                "system": s,
                "convention": "central",
                "strain": self.strain,
                "young": _plain(hill.young[s]),
                "shear": _plain(hill.shear[s]),
                "bulk": _plain(hill.bulk[s]),
                "poisson": _plain(hill.poisson[s]),
                "universal_anisotropy": _plain(anisotropy[s]),
                "asymmetry": _plain(self.asymmetry[s]),
                "converged": bool(self.converged[s]),
                "positive_definite": bool(self.positive_definite[s]),
                **{f"c{i + 1}{j + 1}": _plain(self.tensor[s, i, j]) for i in range(6) for j in range(i, 6)},
            }
            for s in range(len(self.tensor))
        ]


@dataclass(frozen=True)
class OneSidedModuli:
    """Moduli by the paper's convention, in GPa: c_11, c_12 and c_44 are means of three components each."""

    strain: float
    components: Float[np.ndarray, "systems 9"]
    """In the order of `NINE`, GPa."""
    stress: Float[np.ndarray, "systems 3 3"]
    """Stress without strain in GPa, tension positive."""
    converged: Bool[np.ndarray, " systems"]
    """Whether the atoms came to rest under every strain, and without."""

    @property
    def c11(self) -> Float[np.ndarray, " systems"]:
        """Mean of c11, c22 and c33."""
        return self.components[:, 0:3].mean(axis=1)

    @property
    def c12(self) -> Float[np.ndarray, " systems"]:
        """Mean of c12, c13 and c23."""
        return self.components[:, 3:6].mean(axis=1)

    @property
    def shear(self) -> Float[np.ndarray, " systems"]:
        """G = c_44, the mean of c44, c55 and c66."""
        return self.components[:, 6:9].mean(axis=1)

    @property
    def young(self) -> Float[np.ndarray, " systems"]:
        """E = (c_11 - c_12) (c_11 + 2 c_12) / (c_11 + c_12)."""
        return (self.c11 - self.c12) * (self.c11 + 2.0 * self.c12) / (self.c11 + self.c12)

    @property
    def bulk(self) -> Float[np.ndarray, " systems"]:
        """K = (c_11 + 2 c_12) / 3."""
        return (self.c11 + 2.0 * self.c12) / 3.0

    @property
    def positive_definite(self) -> Bool[np.ndarray, " systems"]:
        """Whether the cubic solid of these three constants is stable; False where they are not finite."""
        return (self.c11 > np.abs(self.c12)) & (self.bulk > 0.0) & (self.shear > 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary a system of plain numbers, for a CSV or JSON file."""
        return [
            {
                "system": s,
                "convention": "one-sided",
                "strain": self.strain,
                "young": _plain(self.young[s]),
                "shear": _plain(self.shear[s]),
                "bulk": _plain(self.bulk[s]),
                "converged": bool(self.converged[s]),
                "positive_definite": bool(self.positive_definite[s]),
                **{name: _plain(value) for name, value in zip(NINE, self.components[s], strict=True)},
            }
            for s in range(len(self.components))
        ]


def elastic_tensor(structures: Structures, *, stress: StressCallable, strain: float = 1e-3) -> ElasticTensor:
    """Full elastic tensor of each structure by central differences: 13 systems each in one call of `stress`.

    The difference converges as the square of `strain`, while what the relaxation leaves undone is divided by it. Where
    the strain brings no force above the tolerance, nothing relaxes and the constants are those of atoms that follow
    the strain: amorphous silicon then has a shear modulus of 77 GPa instead of 33. 1e-5 eV/Å suits the default.

    Errors: `ValueError` for a strain that is not between 0 and 0.1, and for structures that cannot be worked with.
    """
    response, at_rest, converged = _responses(structures, stress, (strain, -strain))
    tensor = (response[0] - response[1]) / (2.0 * strain)
    return ElasticTensor(
        strain=strain,
        tensor=0.5 * (tensor + tensor.swapaxes(1, 2)),
        asymmetry=np.abs(tensor - tensor.swapaxes(1, 2)).max(axis=(1, 2)),
        stress=at_rest,
        converged=converged,
    )


def one_sided_moduli(structures: Structures, *, stress: StressCallable, strain: float = 0.02) -> OneSidedModuli:
    """Moduli of each structure as the paper measures them: 7 systems each in one call of `stress`.

    c_ij = (σ_i(+ε_j) - σ_i(0)) / ε_j, with the shear ε_4 = 2 ε_yz = `strain`: the paper says "finite differences of the
    stress tensor", and does not say which of the two shears is 2 %. It relaxes to 0.05 eV/Å.

    Errors: as of `elastic_tensor`.
    """
    response, at_rest, converged = _responses(structures, stress, (strain,))
    tensor = (response[0] - _voigt(at_rest)[:, :, None]) / strain
    places = [(int(name[1]) - 1, int(name[2]) - 1) for name in NINE]
    components = np.stack([tensor[:, i, j] for i, j in places], axis=1)
    return OneSidedModuli(strain=strain, components=components, stress=at_rest, converged=converged)


def _responses(
    structures: Structures, stress: StressCallable, strains: tuple[float, ...]
) -> tuple[Float[np.ndarray, "strains systems 6 6"], Float[np.ndarray, "systems 3 3"], Bool[np.ndarray, " systems"]]:
    """Stress i under each strain of component j, stress without strain, both in GPa, and what converged."""
    if not 0.0 < strains[0] < 0.1:
        raise ValueError(f"`strain` must be between 0 and 0.1, got {strains[0]}")
    structures = structures.without_ghosts()
    validate(structures)
    deformations = np.stack([np.eye(3), *(_deformation(j, size) for size in strains for j in range(6))])
    found = stress(*_deformed(structures, deformations))
    n, k = len(structures), len(deformations)
    if found.stress.shape != (k * n, 3, 3) or found.converged.shape != (k * n,):
        raise ValueError(
            f"`stress` must return stresses [{k * n}, 3, 3] and flags [{k * n}], "
            f"got {list(found.stress.shape)} and {list(found.converged.shape)}"
        )
    in_gpa = found.stress.reshape(k, n, 3, 3) * EV_PER_A3_IN_GPA
    response = _voigt(in_gpa[1:]).reshape(len(strains), 6, n, 6).transpose(0, 2, 3, 1)
    return response, in_gpa[0], np.asarray(found.converged.reshape(k, n).all(axis=0))


def _deformation(component: int, size: float) -> Float[np.ndarray, "3 3"]:
    """F = 1 + ε with one component in Voigt's notation."""
    i, j = VOIGT[component]
    deformation = np.eye(3)
    deformation[i, j] += size if i == j else 0.5 * size
    deformation[j, i] = deformation[i, j]
    return deformation


def _deformed(
    structures: Structures, deformations: Float[np.ndarray, "strains 3 3"]
) -> tuple[
    Float[np.ndarray, "atoms 3"],
    Float[np.ndarray, "systems 3 3"],
    Int[np.ndarray, " systems"],
    Int[np.ndarray, " atoms"],
]:
    """All structures under the first deformation, then all under the second and so on, in one flat batch."""
    plain = structures.to("cpu", dtype=torch.float64)
    positions, cells = plain.positions.detach().numpy(), plain.cell.detach().numpy()
    return (
        np.einsum("ai,kij->kaj", positions, deformations).reshape(-1, 3),
        np.einsum("sli,kij->kslj", cells, deformations).reshape(-1, 3, 3),
        np.tile(plain.n_atoms.numpy().astype(np.int64), len(deformations)),
        np.tile(plain.species.numpy().astype(np.int64), len(deformations)),
    )


def _voigt(stress: Float[np.ndarray, "*systems 3 3"]) -> Float[np.ndarray, "*systems 6"]:
    rows, columns = zip(*VOIGT, strict=True)
    return stress[..., rows, columns]


def _sums(tensor: Float[np.ndarray, "systems 6 6"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """11 + 22 + 33, 12 + 13 + 23, and 44 + 55 + 66."""
    diagonal = np.einsum("sii->si", tensor)
    mixed = tensor[:, 0, 1] + tensor[:, 0, 2] + tensor[:, 1, 2]
    return diagonal[:, :3].sum(axis=1), mixed, diagonal[:, 3:].sum(axis=1)


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
