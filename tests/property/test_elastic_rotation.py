"""The elastic tensor turns with the crystal, and does not depend on its cell or on other systems of the batch."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amden.analysis.elastic import VOIGT, elastic_tensor
from amden.simulate.moduli import relaxed_stress
from amden.simulate.potentials import StillingerWeber
from amden.structure import Structures, concatenate
from amden.testing import diamond, supercell
from amden.testing.builders import rotation

STRESS = relaxed_stress(StillingerWeber(), device="cpu")
some = settings(max_examples=6, deadline=None)


def strained(shape: list[float]) -> Structures:
    """A silicon crystal of two atoms under strain, so that it is less than cubic and not free of stress."""
    cell = 5.431 / 2 * torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    stretch = torch.eye(3, dtype=torch.float64) + torch.diag(torch.tensor(shape, dtype=torch.float64))
    positions = torch.tensor([[0.0] * 3, [5.431 / 4] * 3], dtype=torch.float64)
    return Structures(positions @ stretch, torch.tensor([14, 14]), (cell @ stretch)[None], torch.tensor([2]))


def turned(tensor: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """c_ij in axes turned by r → r turn."""
    place = np.empty((3, 3), int)
    for k, (i, j) in enumerate(VOIGT):
        place[i, j] = place[j, i] = k
    full = tensor[place[:, :, None, None], place[None, None]]
    full = np.einsum("ijkl,ia,jb,kc,ld->abcd", full, turn, turn, turn, turn)
    rows, columns = zip(*VOIGT, strict=True)
    return full[rows, columns][:, rows, columns]


shapes = st.lists(st.floats(-0.02, 0.02), min_size=3, max_size=3)


@some
@given(shapes, st.integers(0, 10**6))
def test_rotation(shape, seed):
    """Up to the part of third order in strain, which grows with its square: 0.1 GPa at 0.1 %."""
    crystal = strained(shape)
    turn = rotation(torch.Generator().manual_seed(seed))
    other = Structures(crystal.positions @ turn, crystal.species, crystal.cell @ turn, crystal.n_atoms)
    found = elastic_tensor(concatenate([crystal, other]), stress=STRESS)
    np.testing.assert_allclose(found.tensor[1], turned(found.tensor[0], turn.numpy()), atol=0.1)
    np.testing.assert_allclose(found.hill.shear[1], found.hill.shear[0], atol=0.05)


@some
@given(shapes)
def test_supercell_and_batch(shape):
    crystal = strained(shape)
    both = elastic_tensor(concatenate([supercell(crystal, (2, 1, 1)), diamond(), crystal]), stress=STRESS)
    np.testing.assert_allclose(both.tensor[0], both.tensor[2], atol=0.02)
    np.testing.assert_array_equal(both.tensor[2], elastic_tensor(crystal, stress=STRESS).tensor[0])
