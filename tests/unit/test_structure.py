from dataclasses import FrozenInstanceError, replace

import jaxtyping
import pytest
import torch

from amden.structure import Structures, concatenate, validate
from amden.testing import diamond, random_structures


@pytest.fixture
def batch() -> Structures:
    structures = random_structures([3, 5, 1], species=(8, 14))
    properties = {"energy": torch.tensor([1.0, 2.0, 3.0]), "moduli": torch.arange(6.0).reshape(3, 2)}
    return replace(structures, properties=properties)


@pytest.fixture
def _unchecked(monkeypatch):
    """Without jaxtyping's own check of shapes, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def changed(structures: Structures, name: str, index: tuple, value: float) -> Structures:
    tensor = getattr(structures, name).clone()
    tensor[index] = value
    return replace(structures, **{name: tensor})


def test_density_of_crystalline_silicon_is_as_measured():
    """2.329 g/cm³ at a = 5.431 Å (CRC Handbook of Chemistry and Physics)."""
    assert diamond((2, 1, 3)).density.item() == pytest.approx(2.329, abs=1e-3)


def test_ghosts_weigh_nothing():
    crystal = diamond()
    half = replace(crystal, species=crystal.species * (torch.arange(8) % 2))
    assert half.density.item() == pytest.approx(crystal.density.item() / 2)


def test_select_in_any_order_and_twice(batch):
    chosen = batch.select([1, 0, 1])
    assert chosen.n_atoms.tolist() == [5, 3, 5]
    assert torch.equal(chosen.positions, torch.cat([batch.positions[3:8], batch.positions[:3], batch.positions[3:8]]))
    assert torch.equal(chosen.species[:5], batch.species[3:8])
    assert torch.equal(chosen.cell, batch.cell[[1, 0, 1]])
    assert chosen.properties["energy"].tolist() == [2.0, 1.0, 2.0]


def test_concatenate_what_select_took_apart(batch):
    again = concatenate([batch.select([i]) for i in range(3)])
    for name in ("positions", "species", "cell", "n_atoms", "system"):
        assert torch.equal(getattr(again, name), getattr(batch, name))
    assert torch.equal(again.properties["moduli"], batch.properties["moduli"])


def test_concatenate_fills_missing_properties_with_nan(batch):
    bare = replace(batch, properties={})
    both = concatenate([bare, batch])
    assert both.properties["energy"].isnan().tolist() == [True] * 3 + [False] * 3
    assert both.properties["moduli"].shape == (6, 2)


def test_without_ghosts_keeps_the_others_and_their_order(batch):
    ghostly = changed(changed(batch, "species", (1,), 0), "species", (8,), 0)
    real = ghostly.without_ghosts()
    assert real.n_atoms.tolist() == [2, 5, 0]
    assert torch.equal(real.positions, batch.positions[[0, 2, 3, 4, 5, 6, 7]])
    assert torch.equal(real.properties["energy"], batch.properties["energy"])


def test_wrapped_puts_atoms_inside_by_lattice_vectors(batch):
    moved = replace(batch, positions=batch.positions + 3.0 * batch.cell[batch.system, 1])
    assert torch.allclose(moved.wrapped().positions, batch.wrapped().positions)


def test_to_changes_precision_of_floats_only(batch):
    single = batch.to(dtype=torch.float32)
    assert single.positions.dtype == single.properties["energy"].dtype == torch.float32
    assert single.species.dtype == torch.int64
    assert single.device == torch.device("cpu")


def test_text_and_length(batch):
    assert repr(batch) == "Structures(3 systems, 9 atoms, elements OSi)"
    assert len(batch) == 3
    assert "empty" in repr(batch.select([]))


def test_frozen(batch):
    with pytest.raises(FrozenInstanceError):
        batch.cell = batch.cell


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("positions", torch.zeros(9, 2), r"`positions` and `species` must be \[atoms, 3\]"),
        ("species", torch.zeros(4, dtype=torch.long), r"got \(9, 3\) and \(4,\)"),
        ("cell", torch.zeros(2, 3, 3), r"`cell` must be \[3, 3, 3\], got \(2, 3, 3\)"),
        ("positions", torch.tensor(1.0), r"got \(\) and \(9,\)"),
        ("n_atoms", torch.tensor(9), r"`n_atoms` must be \[systems\], got \(\)"),
        ("properties", {"e": torch.zeros(2)}, "property 'e' has 2 values for 3 systems"),
        ("properties", {"e": torch.tensor(1.0)}, "property 'e' is one number, not one for each of 3 systems"),
    ],
)
def test_shapes_that_do_not_fit(batch, name, wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(batch, **{name: wrong})


def test_atoms_that_do_not_add_up(batch):
    with pytest.raises(ValueError, match="`n_atoms` adds up to 10, but there are 9 positions"):
        replace(batch, n_atoms=torch.tensor([4, 5, 1]))


def test_nothing_to_concatenate():
    with pytest.raises(ValueError, match="`batches` is empty"):
        concatenate([])


def test_a_property_of_two_shapes_is_named(batch):
    other = replace(batch, properties={"moduli": torch.zeros(3, 4)})
    with pytest.raises(ValueError, match=r"property 'moduli' has shapes that do not fit together: \[\(2,\), \(4,\)\]"):
        concatenate([batch, replace(batch, properties={}), other])


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("positions", (4, 0), torch.nan, "structure 1 has NaN or infinite positions"),
        ("positions", (8, 2), torch.inf, "structure 2 has NaN or infinite positions"),
        ("cell", (0, 1, 1), torch.nan, "structure 0 has a NaN or infinite cell"),
        ("cell", (2, 1), 0.0, "structure 2 has a cell with vanishing volume"),
    ],
)
def test_validate_names_file_and_structure(batch, name, index, value, message):
    with pytest.raises(ValueError, match=f"glass.extxyz: {message}"):
        validate(changed(batch, name, index, value), source="glass.extxyz")


def test_validate_finds_what_has_no_atoms_or_is_left_handed(batch):
    validate(batch)
    with pytest.raises(ValueError, match="structure 1 has a left-handed cell"):
        validate(replace(batch, cell=batch.cell * torch.tensor([1.0, -1.0, 1.0])[:, None, None]))
    ghosts = replace(batch, species=batch.species * (batch.system != 1)).without_ghosts()
    with pytest.raises(ValueError, match="structure 1 has no atoms"):
        validate(ghosts)
    with pytest.raises(ValueError, match="no structures"):
        validate(batch.select([]))


def test_flat_cells_are_found_at_any_scale():
    for scale in (1e-3, 1.0, 1e3):
        flat = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 1e-7]], dtype=torch.float64)
        with pytest.raises(ValueError, match="vanishing volume"):
            validate(replace(diamond(), cell=scale * flat[None]))
