"""Properties of structures: their values, by which potential, those of a structure file, what is refused."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from amden import properties
from amden.analysis.elastic import OneSidedModuli, one_sided_moduli
from amden.cli import main
from amden.io import from_ase, read_structures, to_ase, write_structures
from amden.properties import at_rest, measured, with_properties
from amden.property_columns import add_properties
from amden.shard import load_shard, save_shard
from amden.simulate.moduli import relaxed_stress
from amden.simulate.potentials import POTENTIALS
from amden.simulate.relaxation import RelaxedStructures, relax_structures
from amden.structure import concatenate
from amden.testing import diamond

SILICA = Path(__file__).parents[1] / "data" / "tersoff_sio2.extxyz"
GLASS = Path(__file__).parents[1] / "data" / "glass_bmp.extxyz"


def test_rings_and_moduli_of_diamond_and_silica(tmp_path, monkeypatch, capsys):
    """Diamond: c11 151.4, c12 76.4, c44 56.4 GPa, so Voigt's and Reuss's G are 48.8 and 47.0, K is 101.4.

    Under 2 % c11 is 148.0 and c12 72.8 by `calculator_stress`, so K is 97.89 and E 100.03 (under 1 %: 99.63, 100.14).
    Of the 0.312 eV/Å on atoms that follow the shear 0.05 may be left, and so may this part of the 53.3 GPa by which
    these are stiffer: 8.5 GPa.
    """
    monkeypatch.setattr(properties, "TIGHT", 1e-3)
    save_shard(tmp_path / "si.safetensors", concatenate([diamond(), diamond(a=5.5)]))
    main(["properties", str(tmp_path / "si.safetensors"), "--rings", "--moduli", "--moduli-vrh", "--device", "cpu"])
    found = load_shard(tmp_path / "si.safetensors")
    values = found.structures.properties
    assert values["mean_ring_size"].tolist() == [6.0, 6.0]
    assert values["bulk_modulus_vrh"].tolist() == pytest.approx([101.4, 101.4], abs=0.5)
    assert values["shear_modulus_vrh"].tolist() == pytest.approx([47.9, 47.9], abs=0.5)
    assert values["shear_modulus"].tolist() == pytest.approx([56.4, 56.4], abs=8.5)
    assert values["bulk_modulus"].tolist() == pytest.approx([97.89, 97.89], abs=0.02)
    assert values["youngs_modulus"].tolist() == pytest.approx([100.03, 100.03], abs=0.02)
    assert found.provenance["properties"]["moduli"]["potential"] == "stillinger-weber-si"
    assert "shear_modulus_vrh 47." in capsys.readouterr().out

    save_shard(tmp_path / "sio2.safetensors", replace(read_structures(SILICA, index="1:2"), properties={}))
    add_properties(tmp_path / "sio2.safetensors", ["rings"])
    size = float(load_shard(tmp_path / "sio2.safetensors").structures.properties["mean_ring_size"][0])
    assert 4.0 < size < 6.0


def test_rings_of_a_structure_do_not_depend_on_the_others():
    """Silica and the same of aluminium; three atoms of aluminium in a ring, with and without a silicon atom far off."""
    tools = properties.Tools(None, "cpu")
    silica = replace(read_structures(SILICA, index="1:2"), properties={})
    alumina = replace(silica, species=torch.where(silica.species == 14, 13, silica.species))
    triangle = from_ase([Atoms("Al3", [[0, 0, 0], [2.5, 0, 0], [1.25, 2.2, 0]], cell=[16, 16, 16], pbc=True)])
    both = from_ase([to_ase(triangle)[0] + Atoms("Si", [[8, 8, 8]])])
    each = [silica, alumina, triangle, both]
    alone = [float(measured(one, ["rings"], tools).properties["mean_ring_size"]) for one in each]
    assert 4.0 < alone[0] < 6.0
    assert 3.0 < alone[1] < 6.0
    assert alone[2:] == pytest.approx([3.0, np.nan], nan_ok=True)
    together = measured(concatenate(each), ["rings"], tools).properties["mean_ring_size"].tolist()
    assert together == pytest.approx(alone, nan_ok=True)


def test_moduli_of_an_unstable_structure_are_unknown(monkeypatch):
    def unstable(structures, *, stress):
        constants = np.array([[100.0] * 3 + [40.0] * 3 + [-1.0] * 3, [100.0] * 3 + [40.0] * 3 + [30.0] * 3])
        return OneSidedModuli(0.02, constants, np.zeros((2, 3, 3)), np.array([True, True]))

    monkeypatch.setattr(properties, "one_sided_moduli", unstable)
    tools = properties.Tools("stillinger-weber-si", "cpu")
    found = measured(concatenate([diamond(), diamond()]), ["moduli"], tools).properties
    for column, value in {"shear_modulus": 30.0, "youngs_modulus": 60 * 180 / 140, "bulk_modulus": 60.0}.items():
        assert found[column].tolist() == pytest.approx([np.nan, value], nan_ok=True)


def test_moduli_of_a_glass_are_those_of_the_paper_with_the_terms_of_the_unstrained_structure():
    glass, potential = replace(read_structures(GLASS), properties={}), POTENTIALS["bmp-shrm"]
    found = measured(glass, ["moduli"], properties.Tools("bmp-shrm", "cpu")).properties
    start = relax_structures(glass, potential, force_tolerance=0.05, device="cpu").structures

    def moduli(unstrained):
        stress = relaxed_stress(potential, force_tolerance=0.05, unstrained=unstrained, device="cpu")
        found = one_sided_moduli(start, stress=stress, strain=0.02)
        return np.array([found.shear, found.young, found.bulk])[:, 0]

    values = np.array([float(found[name]) for name in ("shear_modulus", "youngs_modulus", "bulk_modulus")])
    np.testing.assert_allclose(values, moduli(start.cell.numpy()), rtol=1e-9)
    assert abs(values - moduli(None)).max() > 2.0


@pytest.mark.parametrize(("potential", "expected"), [(None, "StillingerWeber"), ("tersoff-sio", "Tersoff")])
def test_what_is_relaxed_by_which_potential(monkeypatch, potential, expected):
    told = []

    def still(structures, interaction, *, device, **_):
        told.append(type(interaction).__name__)
        return RelaxedStructures(structures, np.array([-8.0]), np.array([True]))

    monkeypatch.setattr(properties, "relax_structures", still)
    found = at_rest(diamond(), ["density"], device="cpu", potential=potential)
    assert told == [expected]
    assert float(found.properties["potential_energy"]) == -1.0


def test_properties_of_a_structure_file(tmp_path, capsys):
    pair = concatenate([diamond(), diamond(a=5.5)])
    write_structures(tmp_path / "si.extxyz", replace(pair, properties={"mine": torch.tensor([1.0, 2.0])}))
    command = ["properties", str(tmp_path / "si.extxyz"), "--density", "--rings", "--fractions", "--device", "cpu"]
    main([*command, "--out", str(tmp_path / "new.extxyz")])
    found = read_structures(tmp_path / "new.extxyz")
    assert found.properties["mine"].tolist() == [1.0, 2.0]
    assert found.properties["mean_ring_size"].tolist() == [6.0, 6.0]
    assert found.properties["density"].tolist() == pytest.approx(pair.density.tolist())
    torch.testing.assert_close(found.positions, pair.positions.double())
    low, high = sorted(pair.density.tolist())
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'new.extxyz'}: 2 structures",
        f"  density {(low + high) / 2:.3f} ± {(high - low) / 2**0.5:.3f} g/cm³ (mean ± standard deviation of 2)",
        "  mean_ring_size 6 ± 0 (mean ± standard deviation of 2)",
        "  si_fraction 1 ± 0 (mean ± standard deviation of 2)",
    ]
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "new.extxyz")])
    assert "new.extxyz exists; use --overwrite to replace it" in capsys.readouterr().err
    main([*command, "--out", str(tmp_path / "new.extxyz"), "--overwrite"])


def test_numbers_of_a_dataset_some_of_which_are_unknown(tmp_path, capsys):
    """A gas without bonds has no rings."""
    gas = replace(diamond(a=12.0), properties={})
    save_shard(tmp_path / "si.safetensors", concatenate([diamond(), diamond(), gas]))
    main(["properties", str(tmp_path / "si.safetensors"), "--rings", "--fractions", "--device", "cpu"])
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'si.safetensors'}: 3 structures",
        "  mean_ring_size 6 ± 0 (mean ± standard deviation of 2), unknown in 1",
        "  si_fraction 1 ± 0 (mean ± standard deviation of 3)",
    ]
    save_shard(tmp_path / "gas.safetensors", gas)
    main(["properties", str(tmp_path / "gas.safetensors"), "--rings", "--density", "--device", "cpu"])
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'gas.safetensors'}: 1 structure",
        f"  density {float(gas.density):.4g} g/cm³",
        "  mean_ring_size unknown in 1",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], r"si.extxyz is a structure file: name one for the structures with properties, --out .*si-properties.extx"),
        (["--out", "x.abc"], "x.abc: no known format has this name; use .extxyz"),
        (["--out", "POSCAR"], "POSCAR: vasp files hold one structure, got 2; use .extxyz"),
        (["--out", "x.extxyz", "--potential", "x"], "unknown potential 'x'"),
    ],
)
def test_refusals_for_structure_files(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write_structures("si.extxyz", concatenate([diamond(), diamond()]))
    with pytest.raises(SystemExit):
        main(["properties", "si.extxyz", "--density", "--device", "cpu", *options])
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert sorted(os.listdir()) == ["si.extxyz"]


def test_more_is_refused_or_noted(tmp_path, capsys):
    write_structures(tmp_path / "si.extxyz", diamond())
    save_shard(tmp_path / "d.safetensors", diamond())
    with pytest.raises(SystemExit):
        main(
            [
                "properties",
                str(tmp_path / "d.safetensors"),
                "--density",
                "--out",
                str(tmp_path / "x.extxyz"),
                "--device",
                "cpu",
            ]
        )
    assert "`--out` is for structure files" in capsys.readouterr().err
    main(["properties", str(tmp_path / "si.extxyz"), "--density", "--out", str(tmp_path / "si.cif"), "--device", "cpu"])
    told = capsys.readouterr()
    assert "cif files have no place for properties" in " ".join(told.err.split())
    assert "  density 2.3" in told.out
    copper = replace(diamond(), species=torch.full_like(diamond().species, 29))
    with pytest.raises(ValueError, match="moduli need a potential that knows all elements of the structures: "):
        with_properties(copper, ["density", "moduli"])


def test_structures_at_rest_tell_how_far_they_are():
    told = []
    cells = concatenate([diamond(a=a) for a in (5.3, 5.5, 5.6)])
    at_rest(cells, ["density", "rings"], device="cpu", progress=told.append)
    assert [(now.done, now.what) for now in told] == [
        *((n, "relaxed") for n in range(4)),
        (0, "density"),
        (0, "rings"),
        (3, ""),
    ]
    assert {now.total for now in told} == {3}


@pytest.mark.parametrize(("name", "n_relaxed"), [("moduli", 8), ("moduli-vrh", 14)])
def test_moduli_tell_how_far_they_are(name, n_relaxed, monkeypatch):
    monkeypatch.setattr(properties, "_CHUNK", 2)
    told = []
    cells = concatenate([diamond(a=a) for a in (5.4, 5.43, 5.45)])
    with_properties(cells, [name], device="cpu", progress=told.append)
    chunks = [range(1, 2 * n_relaxed + 1), range(1, n_relaxed + 1)]
    assert [now.done for now in told] == [
        *(0, *(done // n_relaxed for done in chunks[0])),
        *(2, *(2 + done // n_relaxed for done in chunks[1])),
        3,
    ]
    assert [now.what for now in told] == [name] * (len(told) - 1) + [""]


def test_names_of_columns_are_refused_with_the_property_that_they_come_with():
    cell = diamond()
    for measure in (with_properties, at_rest):
        with pytest.raises(ValueError, match="unknown property 'shear_modulus': it comes with 'moduli'"):
            measure(cell, ["shear_modulus"])
    with pytest.raises(ValueError, match="unknown potential 'glue': expected one of stillinger-weber-si, "):
        at_rest(cell, ["density"], potential="glue")
