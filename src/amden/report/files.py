"""The numbers of an analysis as JSON and CSV, its figures, and the page with all of it, in a folder."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from amden.analysis.compare import Analysis, Difference
from amden.analysis.memorisation import Copies, Novelty
from amden.analysis.observables import Observables
from amden.analysis.qn import Qn
from amden.io import check_output
from amden.report.about import About
from amden.report.figures import difference, figures, rendered
from amden.report.page import page
from amden.storage import replacing
from amden.structure import Structures


def write(
    analysis: Analysis,
    folder: Path,
    *,
    about: About | None = None,
    views: Mapping[str, Structures] | None = None,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """`index.html`, figures (PNG, PDF), `analysis.json` with everything, and CSV files, each written whole.

    `about` says what was analysed and by which command; structures of the sets in `views` (`generated`, `reference`,
    `training`) can be turned on the page. Errors: `FileExistsError` for a file that exists, unless
    `overwrite`.
    """
    about = about or About()
    drawn = figures(analysis)
    pictures = {name: rendered(figure, "svg") for name, figure in drawn.items() if name != "analysis"}
    everything = {"about": about.as_dict(), **as_dict(analysis)}
    contents: dict[str, bytes] = {
        "index.html": page(analysis, about, pictures, views=views).encode(),
        **{f"{name}.{form}": rendered(f, form) for name, f in _kept(drawn).items() for form in ("png", "pdf")},
        "analysis.json": (json.dumps(_plain(everything), indent=1) + "\n").encode(),
        "differences.csv": _csv(*_difference_rows(analysis.differences)),
        "structures.csv": _csv(*_structure_rows(analysis)),
        **{f"{_file_name(name)}.csv": _csv(*_curve_rows(analysis, name)) for name in analysis.generated.curves},
    }
    for name in contents:
        check_output(folder / name, overwrite=overwrite)
    for name, content in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    return tuple(folder / name for name in contents)


def _kept(drawn: dict[str, Figure]) -> dict[str, Figure]:
    """Figures with files of their own: curves and numbers are in `analysis`."""
    return {name: figure for name, figure in drawn.items() if name not in ("curves", "numbers")}


def _file_name(quantity: str) -> str:
    """`rdf`, `rdf-O-Si`, `angles`, `sq` …"""
    known = {"bond angles": "angles"}
    if quantity.startswith("g(r)"):
        return quantity.replace("g(r)", "rdf").replace(" ", "-")
    if quantity.startswith("S(q)"):
        return quantity.replace("S(q)", "sq").replace(" ", "-")
    return known.get(quantity, f"angles-{quantity}")


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
        "novelty": None if analysis.novelty is None else _novelty(analysis.novelty),
        "parity": {
            p.name: {
                "unit": p.unit,
                "target": p.target,
                "value": p.value,
                "MAE": p.mean_absolute_error,
                "RMSE": p.root_mean_square_error,
                "R2": p.r_squared,
                **({} if p.requenched is None else {"requenched": p.requenched, "requenched_MAE": p.requenched_error}),
            }
            for p in analysis.parities
        },
        **{name: None if o is None else _observables(o) for name, o in sets.items()},
    }


def _novelty(new: Novelty) -> dict[str, Any]:
    return {
        "near_copies_of_training_set": None if new.copies is None else _copies(new.copies),
        "repeats": None if new.repeats is None else _copies(new.repeats),
        "diversity": None if new.diversity is None else asdict(new.diversity),
    }


def _copies(found: Copies) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "flagged": np.flatnonzero(found.flagged),
        "the_same": np.flatnonzero(found.same),
        "limit": found.limit,
        "closest": found.closest.index,
        "novelty": found.closest.novelty,
        "local_novelty": found.closest.local,
        "unseen_novelty": found.unseen.novelty,
        "unseen_are": found.unseen_are,
    }


def _observables(observables: Observables) -> dict[str, Any]:
    o = observables
    return {
        "structures": len(o),
        "not_relaxed": o.unconverged,
        "n_atoms": o.n_atoms,
        "rdf": {"r_A": o.rdf.r, "g": o.rdf.g, "running_coordination": o.rdf.running_coordination},
        "bond_angles": {"angle_degree": o.angles.angle, "density_per_degree": o.angles.density, "mean": o.angles.mean},
        "curves": {
            name: {"x": c.x, "axis": c.axis, "unit": c.unit, "mean": c.sample.values.mean(axis=0)}
            for name, c in o.curves.items()
        },
        "structure_factor": {"radiation": o.radiation, "method": o.scattering.method},
        "coordination": {"mean": o.coordination.mean, "fractions": o.coordination.distribution},
        "coordination_by_element": {
            name: {"mean": c.mean, "fractions": c.distribution, "usual": o.usual.get(name)}
            for name, c in o.partial_coordinations.items()
        },
        "defects": o.defects,
        "network": None if o.network is None else _network(o.network),
        "voids": {"r_A": o.voids.edges, "fraction_outside": o.voids.mean, "largest_A": o.voids.largest},
        "overlapping": np.flatnonzero(o.overlapping),
        "charged": None if o.charged is None else np.flatnonzero(o.charged),
        "density_g_per_cm3": o.density,
        "energies_eV_per_atom": dict(o.energies),
        "properties": dict(o.properties),
    }


def _network(network: Qn) -> dict[str, Any]:
    return {
        "bridge": network.bridge,
        "cutoffs_A": dict(network.cutoffs),
        "Qn": {former: network.distribution(former) for former in network.formers},
        "formers_around_a_bridge": np.nanmean(network.bridges, axis=0),
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
    floors = ("interval_low", "interval_high", "floor_of_halves", "floor", "limit", "floors", "verdict")
    rows = [
        (*(d.quantity, d.measure, d.unit, d.generated, d.reference, d.value), *d.interval, *_floor_columns(d))
        for d in differences
    ]
    return header + floors, rows


def _floor_columns(d: Difference) -> tuple[float | str, ...]:
    return d.floor.halves, d.floor.expected, d.floor.limit, d.floors, d.verdict


def _curve_rows(analysis: Analysis, quantity: str) -> Rows:
    ours = analysis.generated.curves[quantity]
    theirs = None if analysis.reference is None else analysis.reference.curves.get(quantity)
    axis = ours.axis.partition(" (")[0].replace("bond angle", "angle")
    mean = ours.sample.values.mean(axis=0)
    if theirs is None:
        return (axis, "generated"), np.stack([ours.x, mean], axis=1).tolist()
    x, off, noise = difference(ours, theirs)
    mean = mean[np.isin(ours.x.round(6), x.round(6))]
    return (axis, "generated", "reference", "noise"), np.stack([x, mean, mean - off, 0.5 * noise], axis=1).tolist()


def _structure_rows(analysis: Analysis) -> Rows:
    sets = [("generated", analysis.generated), ("reference", analysis.reference)]
    rows = []
    for name, o in sets:
        if o is not None:
            columns = (o.n_atoms, o.coordination.per_system, o.defects, o.invalid, o.density, *o.energies.values())
            rows += [(name, i, *(v.item() for v in row)) for i, row in enumerate(zip(*columns, strict=True))]
    names = ("set", "structure", "n_atoms", "coordination", "defects", "invalid", "density")
    return (*names, *analysis.generated.energies), rows


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{v:.10g}" if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue().encode()
