"""What is drawn, printed and written of an analysis."""

import csv
import io
import json

import numpy as np
import pytest
from matplotlib.axes import Axes
from rich.console import Console

from amden.analysis.compare import Analysis, analyze
from amden.analysis.observables import Settings
from amden.analysis.relaxation import Relaxation
from amden.report import figure, table, write
from amden.structure import Structures
from amden.testing import random_structures

SETTINGS = Settings(r_max=5.0, bond_cutoff=3.2, halvings=20)
FILES = ("analysis.png", "analysis.pdf", "analysis.json", "differences.csv", "rdf.csv", "angles.csv", "structures.csv")


def energy(structures: Structures) -> np.ndarray:
    return -4.0 * structures.n_atoms.numpy() + structures.volume.numpy() / 100.0


def relax(structures: Structures) -> Relaxation:
    return Relaxation(structures, energy(structures), np.arange(len(structures)) != 1)


@pytest.fixture(scope="module")
def compared() -> Analysis:
    generated, reference = (random_structures([n] * 6, seed=n) for n in (20, 27))
    return analyze(generated, reference, settings=SETTINGS, energy=energy, relax=relax)


@pytest.fixture(scope="module")
def alone() -> Analysis:
    return analyze(random_structures([20]), settings=SETTINGS)


@pytest.fixture(scope="module")
def folder(compared, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "made"
    write(compared, path)
    return path


def shown(analysis: Analysis, width: int = 80) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(table(analysis))
    return text.getvalue()


def labels(axes: list[Axes]) -> list[str]:
    return [a.get_xlabel().replace("\n", " ") for a in axes if a.get_xlabel()]


def test_every_axis_of_the_figure_has_its_quantity_and_unit(compared):
    axes = [a for part in figure(compared).subfigs for a in part.axes]
    assert labels(axes) == [
        "r (Å)",
        "bond angle (°)",
        "neighbours within 3.2 Å",
        "density (g/cm³)",
        "energy (eV/atom)",
        "energy, relaxed (eV/atom)",
    ]
    assert [a.get_ylabel() for a in axes[:4]] == ["g(r)", "probability density (1/°)", "difference", "difference"]
    assert [a.get_ylabel() for a in axes[4:6]] == ["fraction of atoms", "fraction of structures"]
    assert [t.get_text() for t in axes[0].get_legend().get_texts()] == ["reference (6)", "generated (6)"]


def test_the_curves_drawn_are_those_measured(compared):
    axes = figure(compared).subfigs[0].axes
    reference, generated = axes[0].lines
    np.testing.assert_array_equal(generated.get_ydata(), compared.generated.rdf.g)
    np.testing.assert_array_equal(reference.get_ydata(), compared.reference.rdf.g)
    np.testing.assert_array_equal(axes[2].lines[-1].get_ydata(), compared.generated.rdf.g - compared.reference.rdf.g)
    assert len(axes[2].collections) == 1  # the band of the noise


def test_without_a_reference_there_are_no_differences(alone):
    axes = [a for part in figure(alone).subfigs for a in part.axes]
    assert labels(axes) == ["r (Å)", "bond angle (°)", "neighbours within 3.2 Å", "density (g/cm³)"]
    assert "difference" not in shown(alone)
    assert "coordination" in shown(alone)


def test_the_table_has_a_verdict_for_every_quantity(compared):
    text = shown(compared)
    for d in compared.differences:
        assert d.quantity in text
        assert d.verdict in text
        assert not d.unit or d.measure == "RMSD" or f"({d.unit})" in text
    assert "6 structures against 6 of the reference" in text
    assert "1 of the generated did not relax" in text


def test_the_table_fits_a_terminal_of_80_columns(compared):
    assert shown(compared).split() == shown(compared, width=200).split()


def test_files_are_what_their_names_say(folder):
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert (folder / "analysis.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (folder / "analysis.pdf").read_bytes().startswith(b"%PDF")
    assert all((folder / name).stat().st_size > 200 for name in FILES)


def test_json_has_every_number_and_no_nan(compared, folder):
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads((folder / "analysis.json").read_text(), parse_constant=refuse)
    np.testing.assert_allclose(found["generated"]["rdf"]["g"], compared.generated.rdf.g)
    assert found["generated"]["energies_eV_per_atom"]["relaxed energy"][1] is None
    assert found["settings"]["bond_cutoff"] == 3.2
    assert [d["verdict"] for d in found["differences"]] == [d.verdict for d in compared.differences]


def test_csv_files_open_as_tables(compared, folder):
    with (folder / "rdf.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["generated"]) for row in rows] == pytest.approx(compared.generated.rdf.g.tolist())
    assert float(rows[0]["r"]) == 0.025
    with (folder / "structures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[6] | {"set": "reference", "structure": "0", "n_atoms": "27"} == rows[6]
    with (folder / "differences.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(compared.differences)


def test_the_same_analysis_gives_the_same_bytes(compared, folder, tmp_path):
    for path in write(compared, tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_what_exists_is_kept_unless_told_otherwise(alone, tmp_path):
    (tmp_path / "rdf.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"rdf.csv exists; use --overwrite to replace it"):
        write(alone, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["rdf.csv"]
    write(alone, tmp_path, overwrite=True)
    assert (tmp_path / "rdf.csv").read_text().startswith("r,generated\n")
