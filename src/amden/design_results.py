"""What a design leaves: the best structures of its rounds, tables of both, and a page."""

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from amden.analysis.compare import analyze
from amden.analysis.memorisation import novelty
from amden.analysis.parity import REQUENCHED, parities
from amden.compositions import oxide_column
from amden.design import Goal, Round, chosen, deviations, history, kept
from amden.io import write_structures
from amden.report import About
from amden.report import write as write_report
from amden.report.about import source, versions
from amden.requench_commands import FAILURE
from amden.request import Request
from amden.storage import replacing
from amden.structure import Structures
from amden.targets import PROPERTY_UNITS, balance


def write_designs(
    goals: Mapping[str, Goal],
    done: Sequence[Round],
    out: Path,
    *,
    wish: Request,
    n: int,
    known: Structures | None,
    anew: Callable[[Structures], tuple[Structures, list[str]]] | None,
    overwrite: bool,
) -> int:
    """Write up to `n` structures that meet the targets, or if none does the closest, and return how many meet them;
    beside them how new they are, compared with `known`, and what `anew` finds of their compositions. Composition and
    charge are told as of `wish`."""
    places = kept(goals, done)[:n]
    met = len(places)
    if not places:
        places = _closest(goals, done, n)
    best = _described(goals, done, places, known)
    texts = {"meets": ["yes" if off <= 1.0 else "no" for off in best.properties["off_by_tolerances"].tolist()]}
    if anew is not None:
        best, texts[FAILURE] = anew(best)
    write_structures(out / "designs.extxyz", best, overwrite=overwrite)
    mixtures = oxide_column(best)
    if mixtures is not None:
        texts["oxides"] = mixtures
    _write_table(out / "designs.csv", best, texts)
    _write_rounds(out / "rounds.csv", goals, done)
    terminal = Console(file=sys.stdout)
    terminal.print(_table(goals, best, met))
    if mixtures is not None:
        terminal.print(_mixtures(mixtures))
    for line in balance(best, wish):
        print(line)
    shown = (*goals, *(f"target_{name}" for name in goals), *(REQUENCHED + name for name in goals))
    parity = replace(best, properties={k: v for k, v in best.properties.items() if k in shown})
    for each in parities(parity) if anew is not None else ():
        errors = f"mean absolute error {each.mean_absolute_error:.3g}, requenched {each.requenched_error:.3g}"
        print(f"{each.name}: {errors}{f' {each.unit}' if each.unit else ''}")
    about = About(
        " ".join(["amden", *sys.argv[1:]]),
        (source("generated", out / "designs.extxyz", structures=len(best)),),
        versions(),
    )
    if len(best) > 1:
        write_report(
            analyze(parity, training=known), out / "report", about=about, views={"generated": parity}, overwrite=True
        )
        print(out / "report" / "index.html")
    print(out / "designs.extxyz")
    return met


def _described(
    goals: Mapping[str, Goal], done: Sequence[Round], places: Sequence[tuple[int, int]], known: Structures | None
) -> Structures:
    """The structures at these places of the rounds, with what was wanted and asked for, how far they are off and, if
    others are `known`, how new they are."""
    best = chosen(done, places)
    near = None if known is None else novelty(best, training=known).copies
    targets = {
        f"target_{name}": torch.full((len(best),), goal.target, dtype=torch.float64) for name, goal in goals.items()
    }
    told = {"round": torch.tensor([number + 1.0 for number, _ in places], dtype=torch.float64)}
    told |= {
        f"asked_{name}": torch.tensor([done[number].asked[name] for number, _ in places]).double() for name in goals
    }
    told |= {"off_by_tolerances": torch.from_numpy(deviations(goals, best))}
    if near is not None:
        told["novelty"] = torch.from_numpy(near.closest.novelty).double()
    return replace(best, properties={**best.properties, **targets, **told})


def _closest(goals: Mapping[str, Goal], done: Sequence[Round], n: int) -> list[tuple[int, int]]:
    found = [
        (float(off), number, place)
        for number, each in enumerate(done)
        for place, off in enumerate(np.nan_to_num(deviations(goals, each.structures), nan=np.inf))
    ]
    return [(number, place) for _, number, place in sorted(found)[:n]]


def _table(goals: Mapping[str, Goal], best: Structures, met: int) -> Table:
    shown = Table(
        "structure",
        "round",
        title=f"{met} structures meet the targets" if met else "none meets the targets; the closest",
    )
    beside = [REQUENCHED + name for name in goals]
    known = (*goals, *beside, "density", "mean_ring_size", "potential_energy", "novelty")
    columns = list(dict.fromkeys(name for name in known if name in best.properties))
    for name in columns:
        unit = {"potential_energy": "eV/atom"}.get(name, PROPERTY_UNITS.get(name.removeprefix(REQUENCHED), ""))
        target = f"\n{goals[name].target:g} ± {goals[name].tolerance:g}" if name in goals else ""
        shown.add_column(f"{name.replace('_', ' ')}{target}{f' {unit}' if unit else ''}")
    for i in range(len(best)):
        values = [f"{float(best.properties[name][i]):.4g}" for name in columns]
        shown.add_row(str(i), f"{int(best.properties['round'][i])}", *values)
    return shown


def _mixtures(oxides: Sequence[str]) -> Table:
    """Compositions below the table, where they have room."""
    shown = Table("structure", "oxides, mol %")
    for i, mixture in enumerate(oxides):
        shown.add_row(str(i), mixture)
    return shown


def _write_table(path: Path, best: Structures, texts: Mapping[str, Sequence[str]]) -> None:
    columns = {name: values for name, values in best.properties.items() if values.ndim == 1}
    rows = [
        [i, n, *(column[i] for column in texts.values()), *(f"{float(v[i]):.8g}" for v in columns.values())]
        for i, n in enumerate(best.n_atoms.tolist())
    ]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["structure", "atoms", *texts, *columns], *rows])


def _write_rounds(path: Path, goals: Mapping[str, Goal], done: Sequence[Round]) -> None:
    header = ["round", "property", "asked", "mean", "standard_deviation", "meet_all_targets"]
    rows = [[n + 1, name, f"{a:.8g}", f"{m:.8g}", f"{s:.4g}", met] for n, name, a, m, s, met in history(goals, done)]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
