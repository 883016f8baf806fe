"""What `amden design` does: rounds of generation, relaxation and measurement, each kept, until enough structures meet
the targets; then structures, tables and a page."""

import csv
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from amden.analysis.compare import analyze
from amden.analysis.memorisation import FEWEST, novelty
from amden.analysis.parity import REQUENCHED, parities
from amden.blank import Blank, cubic_blank
from amden.commands import err, pick_device
from amden.compositions import oxide_column
from amden.config import to_dict
from amden.dataset import load_dataset
from amden.design import Goal, Round, chosen, design, deviations, history, kept
from amden.generation_commands import digest, generate_shown, sampled_model
from amden.io import check_output, write_structures
from amden.model import Model, load_model
from amden.parts import Parts
from amden.pretrained import model_path
from amden.properties import at_rest, property_of
from amden.refinement import Asked, Refine, default_steps, read_refinement
from amden.report import About
from amden.report import write as write_report
from amden.report.about import source, versions
from amden.requench_commands import FAILURE, measured_by, read_requench, requenched
from amden.request import Request
from amden.shard import load_shard, save_shard
from amden.simulate.engines import choose_device
from amden.storage import replacing
from amden.structure import Structures
from amden.targets import PROPERTY_UNITS, box_density, read_request, read_targets

ALWAYS: Final = ("density", "rings")
"""Properties that are measured whatever the targets are."""

BEYOND: Final = 0.5
"""How far beyond the training range a request may go to take off a bias, in parts of that range."""


@dataclass(frozen=True)
class Budget:
    """When a design ends."""

    n: int
    """Structures wanted."""
    rounds: int
    per_round: int
    max_minutes: float | None


def run_design(
    model: str,
    out: Path,
    *,
    targets: Sequence[str],
    tolerance: Sequence[str],
    budget: Budget,
    atoms: int,
    density: float | None,
    training: Path | None,
    seed: int,
    steps: int | None,
    refine: Asked | None,
    device: str,
    overwrite: bool,
    requench: str | None = None,
    **asked: Any,
) -> None:
    """Body of `amden design`; `requench` names a protocol, `asked` are further options of `read_request`."""
    check_output(out / "designs.extxyz", overwrite=overwrite)
    if not targets:
        raise ValueError('a design needs a target: `--target "shear_modulus=36 GPa"`')
    where, path = pick_device(device), sampled_model(model, refine)
    loaded = load_model(path, device=where)
    known = None if training is None else _training_set(training)
    guide = asked.pop("guide")
    other = load_model(model_path(guide), device=where) if guide else None
    wish, notes = read_request(loaded, targets=targets, guide=other, **asked)
    goals = read_goals(loaded, wish, tolerance)
    names, protocol = _measurable(goals), read_requench(requench, loaded)
    potential = measured_by(protocol, loaded)
    for note in notes:
        err.print(f"  [yellow]note:[/] {note}")
    blank = cubic_blank(loaded, budget.per_round, atoms=atoms, density=box_density(wish, density))
    how, steps = read_refinement(refine, loaded), steps or default_steps(loaded, where, refine)
    wish.check(loaded, blank.n_atoms, refine=how)
    maker = _Maker(loaded, wish, blank, steps, how, seed, where, names, potential, out)
    origin = {
        "model": digest(path.read_bytes()),
        "goals": {name: [goal.target, goal.tolerance] for name, goal in goals.items()},
        "asked": {**wish.facts(), "guide": guide and digest(model_path(guide).read_bytes())},
        "cells": digest(blank.cell.numpy(), blank.n_atoms.numpy()),
        "settings": [seed, steps, refine and refine.kind, how and to_dict(how), where.type],
    }
    if potential != measured_by(None, loaded):
        origin["potential"] = potential
    store = _Store(out / "rounds", origin)
    begun, started = store.load(), time.monotonic()
    if begun:
        err.print(f"{out}: going on after {len(begun)} rounds")
    done = design(
        goals,
        n=budget.n,
        rounds=budget.rounds,
        make=maker,
        begun=begun,
        enough=lambda: budget.max_minutes is not None and time.monotonic() - started > 60 * budget.max_minutes,
        on_round=lambda number, found: _told(goals, number, found, store),
    )
    anew = None
    if protocol is not None:
        chosen_device = choose_device(where.type)
        anew = partial(requenched, names=names, protocol=protocol, seed=seed, out=out, device=chosen_device)
    _finish(goals, done, budget, out, known, anew, overwrite=overwrite)


def _training_set(path: Path) -> Structures:
    """What designs are to be new beside; looked at before the first round, so that no round is lost for it."""
    known = load_dataset(path, dtype=torch.float64)
    if len(known) < FEWEST:
        raise ValueError(f"{path}: {FEWEST} structures or more tell what is new, it has {len(known)}")
    return known


def read_goals(model: Model, wish: Request, tolerance: Sequence[str]) -> dict[str, Goal]:
    """Targets with their tolerances: `2` for the only one, else `name=2 GPa`; by default a quarter of the standard
    deviation of the training set.

    Errors: `ValueError` for a tolerance without target, or one that is no number of the right unit.
    """
    known, found = model.denoiser.config.properties, dict[str, float]()
    for text in tolerance:
        if "=" not in text and len(wish.targets) > 1:
            raise ValueError(f"`--tolerance {text}` of which target? write `--tolerance NAME={text}`")
        text = text if "=" in text else f"{next(iter(wish.targets))}={text}"
        found |= read_targets([text], known, extrapolate=True).values
    for name in found:
        if name not in wish.targets:
            raise ValueError(f"`--tolerance {name}`: there is no target of that name")
    goals = {}
    for name, target in wish.targets.items():
        scale = known[name]
        spread = scale.quantiles or (scale.mean - 3 * scale.std, scale.mean + 3 * scale.std)
        low, high = spread[0], spread[-1]
        margin = BEYOND * (high - low)
        reach = min(low - margin, float(target)), max(high + margin, float(target))
        goals[name] = Goal(float(target), found.get(name, 0.25 * scale.std), reach)
    return goals


def _measurable(goals: Mapping[str, Goal]) -> list[str]:
    """The properties to measure."""
    names: list[str] = list(ALWAYS)
    for column in goals:
        name = property_of(column)
        if name is None:
            raise ValueError(f"{column!r} cannot be measured by amden: generate with `amden generate --target`")
        if name not in names:
            names.append(name)
    return names


@dataclass(frozen=True)
class _Maker:
    """A round: structures generated, relaxed with their cells and measured."""

    model: Model
    wish: Request
    blank: Blank
    steps: int
    refine: Refine | None
    seed: int
    device: torch.device
    names: Sequence[str]
    potential: str | None
    out: Path

    def __call__(self, number: int, asked: Mapping[str, float]) -> Structures:
        request = replace(self.wish, targets=dict(asked))
        parts = Parts(
            self.out / f"round-{number:03d}", {"asked": request.facts(), "seed": self.seed, "steps": self.steps}
        )
        made = generate_shown(
            self.model,
            self.blank,
            title=f"round {number + 1}: generating",
            request=request,
            seed=self.seed + 1_000_003 * number,
            n_steps=self.steps,
            refine=self.refine,
            device=self.device,
            parts=parts,
        )
        with err.status(f"round {number + 1}: relaxing and measuring"):
            found = at_rest(made, self.names, device=choose_device(self.device.type), potential=self.potential)
        told = {k: v for k, v in made.properties.items() if not k.startswith("target_")}
        parts.remove()
        return replace(found, properties={**told, **found.properties})


class _Store:
    """Finished rounds on the disk, those of another design refused."""

    def __init__(self, folder: Path, origin: Mapping[str, Any]) -> None:
        self._folder, self._origin = folder, json.loads(json.dumps(origin))

    def load(self) -> list[Round]:
        """The rounds there are, up to the first that is missing."""
        found: list[Round] = []
        while (path := self._path(len(found))).exists():
            shard = load_shard(path)
            if shard.provenance.get("origin") != self._origin:
                raise ValueError(f"{self._folder} holds another design: choose another folder, or remove it")
            found.append(Round(dict(shard.provenance["asked"]), shard.structures.to(dtype=torch.float64)))
        return found

    def save(self, number: int, done: Round) -> None:
        """Keep a round."""
        self._folder.mkdir(parents=True, exist_ok=True)
        provenance = {"origin": self._origin, "asked": dict(done.asked)}
        save_shard(self._path(number), done.structures, provenance=provenance)

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:03d}.safetensors"


def _told(goals: Mapping[str, Goal], number: int, found: Round, store: _Store) -> None:
    store.save(number, found)
    for _, name, asked, mean, spread, met in history(goals, [found]):
        err.print(
            f"round {number + 1}: asked for {name} = {asked:.4g}, came out {mean:.4g} ± {spread:.2g} (wanted "
            f"{goals[name].target:g} ± {goals[name].tolerance:g}); {met} of {len(found.structures)} meet all targets"
        )


def _finish(
    goals: Mapping[str, Goal],
    done: Sequence[Round],
    budget: Budget,
    out: Path,
    known: Structures | None,
    anew: Callable[[Structures], tuple[Structures, list[str]]] | None,
    *,
    overwrite: bool,
) -> None:
    """Write what was found: the structures that meet the targets, or if none does the closest; beside them what `anew`
    finds of their compositions."""
    places = kept(goals, done)[: budget.n]
    met = len(places)
    if not places:
        places = _closest(goals, done, budget.n)
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
    best = replace(best, properties={**best.properties, **targets, **told})
    texts = dict[str, list[str]]()
    if anew is not None:
        best, texts[FAILURE] = anew(best)
    write_structures(out / "designs.extxyz", best, overwrite=overwrite)
    if (mixtures := oxide_column(best)) is not None:
        texts["oxides"] = mixtures
    _write_table(out / "designs.csv", best, texts)
    _write_rounds(out / "rounds.csv", goals, done)
    Console(file=sys.stdout).print(_table(goals, best, met, texts.get("oxides")))
    shown = (*goals, *targets, *(REQUENCHED + name for name in goals))
    parity = replace(best, properties={k: v for k, v in best.properties.items() if k in shown})
    for each in parities(parity) if anew is not None else ():
        told = (
            f"{each.name}: mean absolute error {each.mean_absolute_error:.3g}, requenched {each.requenched_error:.3g}"
        )
        print(f"{told}{f' {each.unit}' if each.unit else ''}")
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
    if met < budget.n:
        more = f"{len(done)} rounds: more `--rounds` go on, a larger `--tolerance` keeps more"
        err.print(f"{met} of {budget.n} structures meet the targets after {more}")


def _closest(goals: Mapping[str, Goal], done: Sequence[Round], n: int) -> list[tuple[int, int]]:
    found = [
        (float(off), number, place)
        for number, each in enumerate(done)
        for place, off in enumerate(np.nan_to_num(deviations(goals, each.structures), nan=np.inf))
    ]
    return [(number, place) for _, number, place in sorted(found)[:n]]


def _table(goals: Mapping[str, Goal], best: Structures, met: int, oxides: Sequence[str] | None) -> Table:
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
    if oxides is not None:
        shown.add_column("oxides mol %")
    for i in range(len(best)):
        values = [f"{float(best.properties[name][i]):.4g}" for name in columns]
        values += [oxides[i]] if oxides is not None else []
        shown.add_row(str(i), f"{int(best.properties['round'][i])}", *values)
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
