import gzip
import resource
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from amden.io import TrajectoryWriter, check_output, from_ase, read_structures, to_ase, write_structures
from amden.structure import Structures, concatenate
from amden.testing import diamond, random_structures

SILICA = Path(__file__).parents[1] / "data" / "tersoff_sio2.extxyz"
FRAME = """2
Lattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3{info}
Si 0.0 0.0 0.0
O 1.6 0.0 0.0
"""


@pytest.fixture
def batch() -> Structures:
    structures = random_structures([3, 20, 1], species=(8, 14))
    nan = torch.nan
    properties = {"energy": torch.tensor([-1.5, nan, 2.25]), "moduli": torch.tensor([[1.0, 2], [3, 4], [nan, nan]])}
    return replace(structures, properties={k: v.double() for k, v in properties.items()})


def written(folder: Path, text: str, name: str = "glass.extxyz") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_extxyz_comes_back(batch, tmp_path):
    write_structures(tmp_path / "new" / "glass.extxyz", batch)
    back = read_structures(tmp_path / "new" / "glass.extxyz")
    assert torch.allclose(back.positions, batch.positions, atol=1e-8)
    assert torch.allclose(back.cell, batch.cell, rtol=1e-15)
    assert torch.equal(back.species, batch.species)
    assert torch.equal(back.n_atoms, batch.n_atoms)
    assert set(back.properties) == set(batch.properties)
    for name, values in batch.properties.items():
        assert torch.equal(back.properties[name].nan_to_num(99.0), values.nan_to_num(99.0))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["glass.extxyz"]


@pytest.mark.parametrize("name", ["glass.lmp", "glass.data", "glass.cif", "POSCAR", "glass.vasp", "glass.xyz"])
def test_other_formats_keep_the_structure(name, tmp_path):
    crystal = replace(diamond((2, 1, 1)), species=torch.tensor([14] * 8 + [8] * 8))
    write_structures(tmp_path / name, crystal)
    back = read_structures(tmp_path / name)
    assert torch.equal(back.species.sort().values, crystal.species.sort().values)
    assert back.density.item() == pytest.approx(crystal.density.item(), rel=1e-6)
    distances = [np.sort(to_ase(s)[0].get_all_distances(mic=True).ravel()) for s in (back, crystal)]
    assert distances[0] == pytest.approx(distances[1], abs=1e-5)


def test_ghosts_are_written_as_x(tmp_path):
    crystal = diamond()
    crystal = replace(crystal, species=crystal.species * (torch.arange(8) != 3))
    write_structures(tmp_path / "ghosts.extxyz", crystal)
    assert "\nX " in (tmp_path / "ghosts.extxyz").read_text()
    assert torch.equal(read_structures(tmp_path / "ghosts.extxyz").species, crystal.species)


def test_numbers_of_the_comment_line_become_properties(tmp_path):
    first = FRAME.format(info=' energy=-3.5 tag=a good=T n=4 tensor="1 2 3" stress="1 6 5 6 2 4 5 4 3"')
    found = read_structures(written(tmp_path, first + FRAME.format(info=" energy=1.0"))).properties
    assert set(found) == {"energy", "n", "tensor", "stress"}
    assert found["energy"].tolist() == [-3.5, 1.0]
    assert found["n"][0] == 4
    assert found["n"][1].isnan()
    assert found["tensor"][0].tolist() == [1, 2, 3]
    assert found["stress"][0].tolist() == [1, 2, 3, 4, 5, 6]  # ASE's order xx yy zz yz xz xy


def test_property_of_changing_shape_is_left_out_with_a_warning(tmp_path):
    path = written(tmp_path, FRAME.format(info=' a="1 2 3" b=1') + FRAME.format(info=' a="1 2" b=2'))
    with pytest.warns(UserWarning, match="'a' has another shape in another structure and is left out"):
        found = read_structures(path)
    assert list(found.properties) == ["b"]


def test_results_of_a_calculator_become_properties_but_not_those_of_atoms():
    atoms = bulk("Si")
    atoms.calc = SinglePointCalculator(atoms, energy=-8.0, forces=np.zeros((2, 3)))
    assert list(from_ase([atoms]).properties) == ["energy"]


def test_ase_and_back(batch):
    back = from_ase(to_ase(batch))
    assert torch.equal(back.positions, batch.positions)
    assert torch.equal(back.species, batch.species)
    assert all(atoms.pbc.all() for atoms in to_ase(batch))
    assert "energy" not in to_ase(batch)[1].info
    assert from_ase(to_ase(batch), dtype=torch.float32).cell.dtype == torch.float32
    with pytest.raises(ValueError, match="`images` is empty"):
        from_ase([])


@pytest.mark.parametrize(
    ("index", "n_atoms"), [("0", [3]), ("-1", [1]), (":2", [3, 20]), ("::2", [3, 1]), ("1:", [20, 1])]
)
def test_index_selects(batch, tmp_path, index, n_atoms):
    write_structures(tmp_path / "a@b.extxyz", batch)
    assert read_structures(tmp_path / "a@b.extxyz", index=index).n_atoms.tolist() == n_atoms


def test_precision_is_chosen(tmp_path):
    found = read_structures(written(tmp_path, FRAME.format(info="")), dtype=torch.float32)
    assert found.positions.dtype == found.cell.dtype == torch.float32


def test_compressed_files_are_read(tmp_path):
    with gzip.open(tmp_path / "glass.extxyz.gz", "wt") as file:
        file.write(FRAME.format(info=""))
    assert len(read_structures(tmp_path / "glass.extxyz.gz")) == 1


WHOLE = FRAME.format(info="")
BAD = {
    "empty": ("", "glass.extxyz: the file is empty"),
    "blank": ("\n\n", "glass.extxyz: no structures"),
    "cut between atoms": (WHOLE + WHOLE[:-15], "structure 1 cannot be read: .*Frame has 1 atoms, expected 2"),
    "cut within an atom": (WHOLE + WHOLE[:-6], "structure 1 cannot be read"),
    "cut after the comment": (WHOLE + "\n".join(WHOLE.split("\n")[:2]), "structure 1 cannot be read"),
    "cut within the comment": (WHOLE + WHOLE[:30], "structure 1 cannot be read"),
    "cut after the number": (WHOLE + "2\n", "structure 1 cannot be read: the file ends within it$"),
    "no header": (WHOLE + "Si 0 0 0\n", "structure 0 cannot be read: .*Expected xyz header"),
    "blank line": (WHOLE + "\n" + WHOLE, "a blank line follows structure 0, and more after it"),
    "NaN": (WHOLE + WHOLE.replace("1.6", "nan"), "structure 1 has NaN or infinite positions"),
    "NaN in the cell": (WHOLE.replace('"5 0 0', '"nan 0 0'), "structure 0 has a NaN or infinite cell"),
    "no volume": (WHOLE.replace('0 5"', '0 0"'), "structure 0 has a cell with vanishing volume"),
    "left-handed": (WHOLE + WHOLE.replace('0 5"', '0 -5"'), "structure 1 has a left-handed cell"),
    "no cell": (WHOLE.replace('Lattice="5 0 0 0 5 0 0 0 5" ', ""), "structure 0 has no cell"),
    "slab": (WHOLE + FRAME.format(info=' pbc="T T F"'), r"structure 1 is not periodic in all three dimensions"),
    "overlap": (WHOLE + WHOLE.replace("1.6", "4.7"), r"structure 1 has overlapping atoms: 0 and 1 are 0.300 Å apart"),
    "element": (WHOLE + WHOLE.replace("O 1", "Qq 1"), "structure 1 cannot be read: unknown element 'Qq'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_file_is_one_line_that_names_file_and_structure(kind, tmp_path):
    text, message = BAD[kind]
    with pytest.raises(ValueError, match=message) as caught:
        read_structures(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "glass.extxyz"))
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_found_but_between_frames_and_in_the_last_digits(tmp_path):
    text, frame, digits = WHOLE + WHOLE, len(WHOLE), len(".0\n")
    for end in range(1, len(text)):
        path = written(tmp_path, text[:end])
        if end % frame == 0 or end % frame >= frame - digits:
            assert len(read_structures(path)) == -(-end // frame)
        else:
            with pytest.raises(ValueError, match=f"structure {end // frame} cannot be read"):
                read_structures(path)


def test_index_is_named_with_the_file(tmp_path):
    path = written(tmp_path, WHOLE + WHOLE.replace("1.6", "nan"))
    with pytest.raises(ValueError, match=r"glass.extxyz@1:: structure 0 has NaN"):
        read_structures(path, index="1:")
    with pytest.raises(ValueError, match="`index` must be a number or a slice such as '-10:', got 'last'"):
        read_structures(path, index="last")
    with pytest.raises(ValueError, match=r"glass.extxyz@7: no structures"):
        read_structures(path, index="7")


def test_overlaps_are_allowed_on_request(tmp_path):
    path = written(tmp_path, WHOLE.replace("1.6", "0.3"))
    assert len(read_structures(path, min_distance=0.2)) == 1
    assert len(read_structures(path, min_distance=0.0)) == 1


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"glass.extxyz: no such file"):
        read_structures(tmp_path / "glass.extxyz")
    with pytest.raises(ValueError, match="is a folder, not a file"):
        read_structures(tmp_path)
    with pytest.raises(ValueError, match="unknown format; extxyz, LAMMPS data, CIF and POSCAR are known"):
        read_structures(written(tmp_path, "hello", "notes.txt"))


LAMMPS_DATA = """LAMMPS data file

2 atoms
2 atom types
0 5 xlo xhi
0 5 ylo yhi
0 5 zlo zhi
{masses}
Atoms # atomic

1 1 0 0 0
2 2 1.6 0 0
"""


def test_lammps_types_must_have_masses(tmp_path):
    masses = "\nMasses\n\n1 28.085\n2 15.999\n"
    found = read_structures(written(tmp_path, LAMMPS_DATA.format(masses=masses), "glass.lmp"))
    assert found.species.tolist() == [14, 8]
    with pytest.raises(ValueError, match=r"no `Masses` section, so the elements of the atom types are unknown"):
        read_structures(written(tmp_path, LAMMPS_DATA.format(masses=""), "glass.lmp"))


@pytest.mark.parametrize(
    ("silicon", "oxygen", "strange"),
    [("1.0", "15.999", "1"), ("28.085", "1.0", "1"), ("26.4", "15.999", "26.4"), ("2.014", "15.999", "2.014")],
)
def test_lammps_masses_must_be_those_of_elements(silicon, oxygen, strange, tmp_path):
    """Reduced units, and heavy hydrogen; ASE would call the first a ghost and the others what is closest."""
    text = LAMMPS_DATA.format(masses=f"\nMasses\n\n1 {silicon}\n2 {oxygen}\n")
    message = rf"glass.lmp: structure 0 has an atom of mass {strange}, that of no element; `Masses` must be in amu"
    with pytest.raises(ValueError, match=message):
        read_structures(written(tmp_path, text, "glass.lmp"))


def test_lammps_files_are_not_read_whole_for_their_elements(tmp_path, monkeypatch):
    masses = "\nMasses\n\n1 28.1\n2 16.0\n"
    path = written(tmp_path, LAMMPS_DATA.format(masses=masses), "glass.lmp")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("read at once"))
    assert read_structures(path).species.tolist() == [14, 8]


LAMMPS_DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
1
ITEM: BOX BOUNDS pp pp pp
0 5
0 5
0 5
ITEM: ATOMS id {column} x y z
1 {value} 0 0 0
"""


def test_lammps_dump_must_name_elements(tmp_path):
    path = written(tmp_path, LAMMPS_DUMP.format(column="element", value="Si"), "run.dump")
    assert read_structures(path).species.tolist() == [14]
    with pytest.raises(ValueError, match=r"no `element` column, so the elements of the atom types are unknown"):
        read_structures(written(tmp_path, LAMMPS_DUMP.format(column="type", value="1"), "run.dump"))


CIF = """data_glass
_cell_length_a 5
_cell_length_b 5
_cell_length_c 5
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Si1 Si 0 0 0 1.0
{oxygen}
"""


@pytest.mark.parametrize(
    ("oxygen", "shares"),
    [("O1 O 0.32 0 0 0.5", "O 0.5"), ("O1 O 0.32 0 0 0.75\nS1 S 0.32 0 0 0.25", "O 0.75, S 0.25")],
)
def test_partly_occupied_sites_are_refused(oxygen, shares, tmp_path):
    message = rf"glass.cif: structure 0 has partly occupied sites \({shares}\); amden needs an atom on each"
    with pytest.raises(ValueError, match=message):
        read_structures(written(tmp_path, CIF.format(oxygen=oxygen), "glass.cif"))
    whole = CIF.format(oxygen="O1 O 0.32 0 0 1.0")
    assert read_structures(written(tmp_path, whole, "whole.cif")).species.tolist() == [14, 8]


def test_output_that_exists_is_kept_unless_overwritten(batch, tmp_path):
    path = written(tmp_path, "precious")
    for refused in (write_structures, lambda p, _: TrajectoryWriter(p), lambda p, _: check_output(p, overwrite=False)):
        with pytest.raises(FileExistsError, match=r"glass.extxyz exists; use --overwrite to replace it"):
            refused(path, batch)
    assert path.read_text() == "precious"
    write_structures(path, batch, overwrite=True)
    assert len(read_structures(path)) == 3


def test_output_names_that_cannot_be(batch, tmp_path):
    with pytest.raises(ValueError, match="is a folder, not a file"):
        write_structures(tmp_path, batch)
    with pytest.raises(ValueError, match=r"glass.abc: no known format has this name; use .extxyz"):
        write_structures(tmp_path / "glass.abc", batch)
    with pytest.raises(ValueError, match="no known format has this name"):
        write_structures(tmp_path / "glass", batch)
    with pytest.raises(ValueError, match="compressed files are read but not written"):
        write_structures(tmp_path / "glass.extxyz.gz", batch)
    with pytest.raises(ValueError, match="vasp files hold one structure, got 3"):
        write_structures(tmp_path / "POSCAR", batch)
    with pytest.raises(ValueError, match=r"a trajectory is written as .extxyz"):
        TrajectoryWriter(tmp_path / "path.cif")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_file_and_no_half_of_the_new(tmp_path):
    path = written(tmp_path, "precious")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_structures(path, diamond((5, 5, 5)), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["glass.extxyz"]


def test_trajectory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "path.extxyz"
    with TrajectoryWriter(path) as trajectory:
        for t in (0.9, 0.5):
            trajectory.write(concatenate([diamond(), diamond()]), t=t)
            assert not path.exists()
    assert read_structures(path).properties["t"].tolist() == [0.9, 0.9, 0.5, 0.5]
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path)
    assert len(read_structures(path)) == 4
    assert [p.name for p in path.parent.iterdir()] == ["path.extxyz"]


def _interrupted(path: Path) -> None:
    with TrajectoryWriter(path, overwrite=True) as trajectory:
        trajectory.write(diamond())
        raise KeyboardInterrupt


def test_what_ase_writes_is_read(tmp_path):
    silica = Atoms("SiO2", positions=[[0, 0, 0], [1.6, 0, 0], [0, 1.6, 0]], cell=[5, 6, 7], pbc=True)
    ase.io.write(tmp_path / "silica.extxyz", [silica, silica])
    found = read_structures(tmp_path / "silica.extxyz")
    assert found.species.tolist() == [14, 8, 8] * 2
    assert found.volume.tolist() == pytest.approx([210.0, 210.0])


@pytest.mark.parametrize(("name", "line"), [("POSCAR", 5), ("XDATCAR", 5)])
def test_formats_of_blocks_have_one_block_an_element(tmp_path, name, line):
    glass = read_structures(SILICA, index="0")
    order = torch.randperm(len(glass.species), generator=torch.Generator().manual_seed(0))
    mixed = replace(glass, positions=glass.positions[order], species=glass.species[order])
    write_structures(tmp_path / name, mixed)
    assert (tmp_path / name).read_text().splitlines()[line].split() == ["O", "Si"]
    back = read_structures(tmp_path / name)
    assert sorted(back.species.tolist()) == sorted(mixed.species.tolist())
    for z in (8, 14):
        torch.testing.assert_close(
            back.wrapped().positions[back.species == z], mixed.wrapped().positions[mixed.species == z]
        )
