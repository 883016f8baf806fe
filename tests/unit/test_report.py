"""What is drawn, printed and written of an analysis."""

import csv
import io
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from rich.console import Console

from amden.analysis.compare import Analysis, analyze
from amden.analysis.observables import Settings
from amden.report import figure, figures, table, write
from amden.report.files import as_dict
from amden.simulate.relaxation import RelaxedStructures
from amden.structure import Structures
from amden.testing import random_structures

SETTINGS = Settings(r_max=5.0, bond_cutoff=3.2, halvings=20)
TABLES = ("differences.csv", "rdf.csv", "angles.csv", "sq.csv", "structures.csv")
CURVES = ["reference (6)", "generated (6)", "noise floor (±2σ)"]
NUMBERS = ["reference", "generated", "measured (glass, room temperature)"]
PICTURES = tuple(f"{name}.{form}" for name in ("analysis", "novelty", "parity") for form in ("png", "pdf"))
FILES = ("index.html", "analysis.json", *PICTURES, *TABLES)


def energy(structures: Structures) -> np.ndarray:
    return -4.0 * structures.n_atoms.numpy() + structures.volume.numpy() / 100.0


def relax(structures: Structures) -> RelaxedStructures:
    return RelaxedStructures(structures, energy(structures), np.arange(len(structures)) != 1)


@pytest.fixture(scope="module")
def compared() -> Analysis:
    generated, reference = (random_structures([n] * 6, seed=n) for n in (20, 27))
    numbers = torch.linspace(20.0, 25.0, 6, dtype=torch.float64)
    asked = {"target_shear_modulus": numbers, "shear_modulus": numbers + 1.0}
    generated = replace(generated, properties=asked)
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
        "q (1/Å)",
        "neighbours within 3.2 Å",
        "fraction of atoms with unusual coordination",
        "radius of the largest void (Å)",
        "density (g/cm³) measured: 2.285",
        "energy (eV/atom)",
        "energy, relaxed (eV/atom)",
        "shear_modulus (GPa)",
    ]
    assert [a.get_ylabel() for a in axes[:3]] == ["g(r)", "bond angles, density (1/°)", "S(q)"]
    assert [a.get_ylabel() for a in axes[3:6]] == ["difference"] * 3
    assert [a.get_ylabel() for a in axes[6:8]] == ["fraction of atoms", "fraction of structures"]
    assert not any(a.get_legend() for a in axes)
    for part, told in zip(figure(compared).subfigs, (CURVES, NUMBERS), strict=True):
        assert [t.get_text() for t in part.legends[0].get_texts()] == told


def test_panels_are_in_a_grid_that_is_not_much_higher_than_wide():
    """Two elements have eleven curves here, and a set of one value in each histogram."""
    silica = random_structures([30] * 6, species=(8, 8, 14), spacing=2.2)
    found = analyze(silica, silica, settings=Settings(r_max=5.0, halvings=20, resamples=20))
    pages = figures(found)
    width, height = pages["analysis"].get_size_inches()
    assert len(found.generated.curves) == 11
    assert height < 2.1 * width
    columns = {round(a.get_subplotspec().colspan.start) for a in pages["curves"].axes}
    assert columns == {0, 1, 2}
    overlaps(pages["numbers"])


def overlaps(page) -> None:
    """No two labels of ticks meet, not even where all structures have one value."""
    page.draw_without_rendering()
    for axes in page.axes:
        if axes.get_visible():
            boxes = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text()]
            assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))


def test_a_histogram_of_one_value_has_one_tick(alone):
    axes = figures(alone)["numbers"].axes[3]
    (label,) = axes.get_xticklabels()
    assert label.get_text() == f"{alone.generated.density[0]:.4g}"


def test_the_curves_drawn_are_those_measured(compared):
    axes = figure(compared).subfigs[0].axes
    reference, generated = axes[0].lines
    np.testing.assert_array_equal(generated.get_ydata(), compared.generated.rdf.g)
    np.testing.assert_array_equal(reference.get_ydata(), compared.reference.rdf.g)
    np.testing.assert_array_equal(axes[3].lines[-1].get_ydata(), compared.generated.rdf.g - compared.reference.rdf.g)
    assert len(axes[3].collections) == 1  # the band of the noise


def test_without_a_reference_there_are_no_differences(alone):
    axes = [a for part in figure(alone).subfigs for a in part.axes]
    numbers = ["neighbours within 3.2 Å", "fraction of atoms with unusual coordination"]
    rest = ["radius of the largest void (Å)", "density (g/cm³) measured: 2.285"]
    assert labels(axes) == ["r (Å)", "bond angle (°)", "q (1/Å)", *numbers, *rest]
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


def test_experiment_is_marked_where_it_has_the_glass(compared):
    density = figures(compared)["numbers"].axes[3]
    (line,) = density.lines
    assert line.get_xdata()[0] == 2.285
    assert line.get_label() == "measured (glass, room temperature)"
    assert density.get_xlabel() == "density\n(g/cm³)\nmeasured: 2.285"


def test_targets_are_drawn_over_what_came_out(compared):
    (axes,) = figures(compared)["parity"].axes
    points = axes.lines[-1]
    np.testing.assert_allclose(points.get_ydata() - points.get_xdata(), 1.0)
    assert axes.get_xlabel() == "target shear_modulus (GPa)"
    assert axes.get_title("left") == "MAE 1, RMSE 1, R² 0.657"
    assert "shear_modulus against its target: MAE 1, RMSE 1, R² 0.657 (GPa, 6)" in shown(compared)


def test_what_was_requenched_is_drawn_beside(compared):
    (parity,) = compared.parities
    anew = np.where(np.arange(len(parity)) < 2, np.nan, parity.target - 3.0)
    both = replace(compared, parities=(replace(parity, requenched=anew),))
    (axes,) = figures(both)["parity"].axes
    others, points = axes.lines[-2:]
    assert (others.get_marker(), points.get_marker()) == ("^", "o")
    np.testing.assert_allclose(others.get_ydata()[2:] - others.get_xdata()[2:], -3.0)
    assert axes.get_title("left") == "MAE 1, RMSE 1, R² 0.657\nrequenched: MAE 3"
    assert "shear_modulus, requenched, against its target: MAE 3 (4)" in shown(both)
    assert as_dict(both)["parity"]["shear_modulus"]["requenched_MAE"] == pytest.approx(3.0)
    assert "requenched" not in as_dict(compared)["parity"]["shear_modulus"]


def test_the_limit_of_near_copies_is_drawn():
    known = random_structures([20] * 12, skew=0.0)
    found = analyze(
        known.select([0, 1]), random_structures([20] * 12, seed=1, skew=0.0), training=known, settings=SETTINGS
    )
    copies, repeats = figures(found)["novelty"].axes
    assert copies.get_title("left") == "near copies: 2 of 2"
    assert copies.lines[0].get_xdata()[0] == found.novelty.copies.limit
    assert repeats.get_title("left") == "near copies: none"
    assert "near copies of the training set: 2 of 2" in shown(found)


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
    """But for PDF files, where rounding in matplotlib's constrained layout shows in a digit now and then."""
    for path in write(compared, tmp_path):
        ours, theirs = path.read_bytes(), (folder / path.name).read_bytes()
        assert ours == theirs or (path.suffix == ".pdf" and abs(len(ours) - len(theirs)) < 50), path.name


def test_what_exists_is_kept_unless_told_otherwise(alone, tmp_path):
    (tmp_path / "rdf.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"rdf.csv exists; use --overwrite to replace it"):
        write(alone, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["rdf.csv"]
    write(alone, tmp_path, overwrite=True)
    assert (tmp_path / "rdf.csv").read_text().startswith("r,generated\n")
