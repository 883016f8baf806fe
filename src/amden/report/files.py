"""The numbers of an analysis as JSON and CSV, and its figure, in a folder."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from amden.analysis.compare import Analysis, Difference
from amden.analysis.noise import deviation_of_difference
from amden.analysis.observables import Observables
from amden.io import check_output
from amden.report.figures import figure, rendered
from amden.storage import replacing


def write(analysis: Analysis, folder: Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Figure (PNG, PDF), `analysis.json` with everything, and CSV files, each written whole.

    Errors: `FileExistsError` for a file that exists, unless `overwrite`.
    """
    page = figure(analysis)
    contents: dict[str, bytes] = {
        "analysis.png": rendered(page, "png", {"Software": None}),
        "analysis.pdf": rendered(page, "pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        "analysis.json": (json.dumps(_plain(as_dict(analysis)), indent=1) + "\n").encode(),
        "differences.csv": _csv(*_difference_rows(analysis.differences)),
        "rdf.csv": _csv(*_curve_rows(analysis, "g(r)", "r", analysis.generated.rdf.r)),
        "angles.csv": _csv(*_curve_rows(analysis, "bond angles", "angle", analysis.generated.angles.angle)),
        "structures.csv": _csv(*_structure_rows(analysis)),
    }
    for name in contents:
        check_output(folder / name, overwrite=overwrite)
    for name, content in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    return tuple(folder / name for name in contents)


def as_dict(analysis: Analysis) -> dict[str, Any]:
    """The numbers of an analysis by name, units in the names; NaN where unknown."""
    sets = {"generated": analysis.generated, "reference": analysis.reference}
    differences = [
        asdict(d) | {"floors": d.floors, "within_noise": d.within_noise, "verdict": d.verdict}
        for d in analysis.differences
    ]
    return {
        "settings": asdict(analysis.settings),
        "differences": differences,
        **{name: None if o is None else _observables(o) for name, o in sets.items()},
    }


def _observables(observables: Observables) -> dict[str, Any]:
    o = observables
    return {
        "structures": len(o),
        "not_relaxed": o.unconverged,
        "n_atoms": o.n_atoms,
        "rdf": {"r_A": o.rdf.r, "g": o.rdf.g, "running_coordination": o.rdf.running_coordination},
        "bond_angles": {"angle_degree": o.angles.angle, "density_per_degree": o.angles.density, "mean": o.angles.mean},
        "coordination": {"mean": o.coordination.mean, "fractions": o.coordination.distribution},
        "density_g_per_cm3": o.density,
        "energies_eV_per_atom": dict(o.energies),
    }


def _plain(value: Any) -> Any:
    """The value with lists for arrays and None for NaN, as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not isfinite(value) else value


Rows = tuple[Sequence[str], Iterable[Sequence[Any]]]
"""Header and rows of a CSV file."""


def _difference_rows(differences: Iterable[Difference]) -> Rows:
    header = ("quantity", "measure", "unit", "generated", "reference", "difference")
    floors = ("floor_of_halves", "floor", "limit", "floors", "verdict")
    rows = [
        (*(d.quantity, d.measure, d.unit, d.generated, d.reference, d.value), *_floor_columns(d)) for d in differences
    ]
    return header + floors, rows


def _floor_columns(d: Difference) -> tuple[float | str, ...]:
    return d.floor.halves, d.floor.expected, d.floor.limit, d.floors, d.verdict


def _curve_rows(analysis: Analysis, quantity: str, axis: str, x: np.ndarray) -> Rows:
    sample = analysis.generated.curves[quantity][1]
    header, columns = [axis, "generated"], [x, sample.values.mean(axis=0)]
    if analysis.reference is not None:
        reference = analysis.reference.curves[quantity][1]
        header += ["reference", "noise"]
        columns += [reference.values.mean(axis=0), deviation_of_difference(reference, sample)]
    return header, np.stack(columns, axis=1).tolist()


def _structure_rows(analysis: Analysis) -> Rows:
    sets = [("generated", analysis.generated), ("reference", analysis.reference)]
    rows = []
    for name, o in sets:
        if o is not None:
            columns = (o.n_atoms, o.coordination.per_system, o.density, *o.energies.values())
            rows += [(name, i, *(v.item() for v in row)) for i, row in enumerate(zip(*columns, strict=True))]
    return ("set", "structure", "n_atoms", "coordination", "density", *analysis.generated.energies), rows


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{v:.10g}" if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue().encode()
