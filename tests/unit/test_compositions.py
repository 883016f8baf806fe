import pytest
import torch

from amden.compositions import counts_of, formal_charge, oxide_column, oxides
from amden.simulate.oxides import neutral_counts, parse_composition
from amden.structure import Structures, concatenate


def made_of(*species: int) -> Structures:
    n = len(species)
    return Structures(torch.rand(n, 3), torch.tensor(species), 5.0 * torch.eye(3)[None], torch.tensor([n]))


LITHIUM_SILICATE, SILICA = made_of(3, 8, 14, 8, 3, 0, 8), made_of(14, 8, 8)


def test_atoms_are_counted_structure_by_structure_without_ghosts():
    found = counts_of(concatenate([LITHIUM_SILICATE, made_of(0, 0), SILICA]))
    assert found == [{"Li": 2, "O": 3, "Si": 1}, {}, {"O": 2, "Si": 1}]


@pytest.mark.parametrize(
    ("counts", "charge"), [({"Li": 2, "Si": 1, "O": 3}, 0), ({"P": 1, "O": 2}, 1), ({"Si": 1, "Fe": 2}, None), ({}, 0)]
)
def test_charges(counts, charge):
    assert formal_charge(counts) == charge


@pytest.mark.parametrize("asked", ["SiO2:60 Al2O3:20 Li2O:20", "P2O5:60 BaO:40", "TiO2:50 BeO:25 ZnO:15 K2O:10"])
def test_what_is_asked_for_in_oxides_is_told_in_oxides(asked):
    counts = neutral_counts(parse_composition(asked), n_atoms=3000)
    told = oxides(counts)
    assert [term.split(":")[0] for term in told.split()] == [term.split(":")[0] for term in asked.split()]
    for one, other in zip(told.split(), asked.split(), strict=True):
        assert float(one.split(":")[1]) == pytest.approx(float(other.split(":")[1]), abs=0.3)
    assert parse_composition(told) == pytest.approx({k: n / sum(counts.values()) for k, n in counts.items()}, rel=1e-3)


@pytest.mark.parametrize("counts", [{"Si": 1, "O": 1}, {"Li": 1, "F": 1}, {"Li": 2, "Si": 1, "O": 2, "F": 2}, {}])
def test_what_is_no_mixture_of_oxides_has_none(counts):
    assert oxides(counts) == ""


def test_silica_and_silicon_have_no_column():
    assert oxide_column(SILICA) is None
    assert oxide_column(made_of(14, 14)) is None
    assert oxide_column(concatenate([SILICA, LITHIUM_SILICATE])) == ["SiO2:100", "Li2O:50 SiO2:50"]
