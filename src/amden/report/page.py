"""An analysis as one HTML page that needs nothing else: figures, tables, and structures to turn by hand.

The structures are drawn by 3Dmol.js (BSD licence; N. Rego and D. Koes, Bioinformatics 31, 1322 (2015)), which is in
the page.
"""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from amden.analysis.beside import beside_experiment
from amden.analysis.bonds import cutoff_matrix
from amden.analysis.compare import Analysis
from amden.analysis.grid import kinds
from amden.analysis.observables import bond_lengths
from amden.elements import symbol
from amden.neighbors import neighbor_list
from amden.report.about import About
from amden.report.selection import left_out, shown_curves
from amden.report.tables import few, findings, number
from amden.structure import Structures

SHOWN: Final = 3
"""Structures of the generated set that can be turned."""
MOST_ATOMS: Final = 3000
"""Larger structures are not shown: they would make the page large and slow."""


def page(
    analysis: Analysis, about: About, pictures: Mapping[str, bytes], *, views: Mapping[str, Structures] | None = None
) -> str:
    """The page with `pictures` (SVG, by the names of `figures`) and structures of the sets in `views`.

    `views` are `generated` and, where there are, `reference` and `training`.
    """
    experiment = beside_experiment(analysis.generated, analysis.reference)
    settled = [d for d in analysis.differences if np.isfinite(d.floor.limit) and np.isfinite(d.value)]
    return _template().render(
        analysis=analysis,
        about=about,
        sources=[
            (s, json.dumps(s.provenance, indent=1, sort_keys=True) if s.provenance else "") for s in about.sources
        ],
        settled=len(settled),
        within=sum(d.within_noise for d in settled),
        few=few(analysis),
        findings=findings(analysis),
        figures=[_figure(name, content, analysis) for name, content in pictures.items()],
        rows=list(_rows(analysis)),
        plain=list(_plain_rows(analysis)),
        experiment=[
            (b.measured, number(b.measured.value), number(b.generated), number(b.reference)) for b in experiment
        ],
        style=_asset("page.css"),
        script=_asset("view.js"),
        library=_asset("3Dmol-min.js"),
        structures=_json(list(_views(analysis, views or {}))),
        cutoffs=_cutoffs(analysis),
        usual=", ".join(f"{name} {n}" for name, n in analysis.generated.usual.items()),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("amden.report", "web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _asset(name: str) -> str:
    """A file of the package, to go into the page as it is."""
    return files("amden.report").joinpath("web", name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _figure(name: str, content: bytes, analysis: Analysis) -> dict[str, str]:
    """Caption and description of a picture, with the numbers that it shows."""
    curves = "; ".join(filter(None, (", ".join(shown_curves(analysis)), left_out(analysis))))
    measured = "; ".join(f"{d.quantity} {d.measure} {number(d.value, 3)}, {d.verdict}" for d in analysis.differences)
    beside = " of the generated structures over those of the reference" if analysis.reference is not None else ""
    captions = {
        "curves": f"Mean curves{beside}: {curves}. Below each, the difference with a band of ±2σ, its scatter between "
        "two sets of these sizes made the same way.",
        "numbers": "Neighbours of the atoms, and the distribution over the structures of what is one number each.",
        "novelty": "How close each structure comes to its closest neighbour, in units of the typical distance. A copy "
        "is far to the left; below the dashed line is closer than chance allows.",
        "parity": "Properties that the structures have over those that they were made for; on the line both agree.",
    }
    caption = captions[name] if analysis.reference is not None or name != "curves" else f"Mean curves: {curves}."
    alt = f"{caption} {measured}" if name in ("curves", "numbers") and measured else f"{caption} {_lines(analysis)}"
    return {
        "name": name,
        "uri": f"data:image/svg+xml;base64,{b64encode(content).decode()}",
        "caption": caption,
        "alt": alt.strip(),
    }


def _lines(analysis: Analysis) -> str:
    return "; ".join(findings(analysis))


def _rows(analysis: Analysis) -> Iterator[dict[str, str | bool]]:
    for d in analysis.differences:
        low, high = (number(x, 3) for x in d.interval)
        yield {
            "quantity": d.quantity,
            "unit": d.unit,
            "measure": d.measure,
            "generated": number(d.generated),
            "reference": number(d.reference),
            "value": number(d.value, 3),
            "interval": f"{low} … {high}" if np.isfinite(d.interval[0]) else "–",
            "floor": number(d.floor.expected, 2),
            "verdict": d.verdict,
            "sound": d.within_noise,
            "known": bool(np.isfinite(d.floor.limit) and np.isfinite(d.value)),
        }


def _plain_rows(analysis: Analysis) -> Iterator[tuple[str, str, str, str]]:
    """Quantity, unit, mean and spread of what is one number a structure."""
    for name, (unit, sample) in analysis.generated.scalars.items():
        if len(sample):
            spread = float(sample.values.std(ddof=1)) if len(sample) > 1 else np.nan
            yield name, unit, number(float(sample.values.mean())), number(spread)
    yield "invalid structures", "fraction", number(float(analysis.generated.invalid.mean())), "–"


def _cutoffs(analysis: Analysis) -> str:
    cutoff = analysis.settings.bond_cutoff
    if isinstance(cutoff, Mapping):
        return ", ".join(f"{pair} {length:g} Å" for pair, length in cutoff.items())
    return f"{cutoff:g} Å" if cutoff is not None else ""


def _views(analysis: Analysis, sets: Mapping[str, Structures]) -> Iterator[dict[str, Any]]:
    """The first structures, the first near copy beside what it is a copy of, and one of the reference."""
    chosen = [("generated", i, f"generated {i}") for i in range(min(SHOWN, len(sets.get("generated", ()))))]
    copies = None if analysis.novelty is None else analysis.novelty.copies
    if copies is not None and copies.flagged.any() and "training" in sets:
        i = int(np.argmin(copies.closest.novelty))
        known = int(copies.closest.index[i])
        chosen += [("generated", i, f"near copy: generated {i}"), ("training", known, f"of training {known}")]
    if "reference" in sets:
        chosen.append(("reference", 0, "reference 0"))
    for name, i, title in chosen:
        one = sets[name].select([i]).without_ghosts()
        if len(one.positions) <= MOST_ATOMS:
            yield {"title": title, **_view(one, analysis)}


def _view(one: Structures, analysis: Analysis) -> dict[str, Any]:
    """A structure as the viewer takes it, with the bonds that do not leave the cell."""
    one = one.to("cpu", dtype=torch.float64).wrapped()
    cutoff = analysis.settings.bond_cutoff
    cutoffs = cutoff_matrix(one, bond_lengths(one) if cutoff is None else cutoff)
    kind = torch.as_tensor(np.searchsorted(kinds(one), one.species.numpy()))
    edges = neighbor_list(one, cutoff=float(cutoffs.max()))
    length = edges.vectors(one.positions, one.cell, one.system).norm(dim=-1)
    inside = (edges.shift == 0).all(1) & (edges.source < edges.target)
    bonded = inside & (length < torch.as_tensor(cutoffs)[kind[edges.source], kind[edges.target]])
    return {
        "elements": [symbol(z) for z in one.species.tolist()],
        "positions": one.positions.numpy().round(3).tolist(),
        "bonds": torch.stack([edges.source[bonded], edges.target[bonded]], 1).tolist(),
        "cell": one.cell[0].numpy().round(4).tolist(),
    }
