"""Which computed values are put beside which measured ones."""

from dataclasses import replace

import pytest
import torch

from amden.analysis.beside import beside_experiment, glass
from amden.analysis.observables import observe
from amden.structure import Structures
from amden.testing import diamond, random_structures


def oxide(oxygen: int) -> Structures:
    species = torch.tensor([8] * oxygen + [14] * (54 - oxygen))
    return replace(random_structures([54], spacing=2.2), species=species)


def test_silicon_is_put_beside_amorphous_silicon():
    crystal = observe(diamond((2, 2, 2)))
    found = {b.measured.quantity: b for b in beside_experiment(crystal, crystal)}
    assert found["coordination"].generated == found["coordination"].reference == 4.0
    assert found["density"].generated == pytest.approx(2.329, abs=1e-3)
    assert found["bond angle"].generated == pytest.approx(109.5, abs=1.0)
    assert found["bond angle, standard deviation"].generated == pytest.approx(0.0, abs=1e-6)


def test_silica_has_bond_lengths_angles_and_moduli():
    structures = replace(oxide(36), properties={"shear_modulus": torch.tensor([30.0], dtype=torch.float64)})
    observed = observe(structures)
    assert glass(observed) == "SiO2"
    found = {b.measured.quantity: b.generated for b in beside_experiment(observed)}
    assert found["Si-O bond length"] == observed.partial_rdfs["O-Si"].peak
    assert found["Si-O-Si angle"] == observed.partial_angles["Si-O-Si"].mean
    assert found["shear modulus"] == 30.0
    assert "bulk modulus" not in found


def test_what_experiment_does_not_know_stands_alone():
    assert glass(observe(oxide(27))) is None
    assert beside_experiment(observe(diamond(a=5.66, species=32))) == ()
