"""What `amden design` does: rounds of generation, relaxation and measurement, each kept, until enough structures meet
the targets; what is written then, in `design_results`."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from amden.analysis.memorisation import FEWEST
from amden.blank import Blank
from amden.commands import err
from amden.dataset import load_dataset
from amden.design import Goal, Round, design, history
from amden.design_results import write_designs
from amden.io import check_output, write_origin
from amden.measuring import kept_at_rest, measurable
from amden.model import Model
from amden.parts import Parts, differences
from amden.progress import measuring_bar
from amden.requench_commands import measured_by, read_requench, requenched
from amden.request import Request
from amden.sampling_commands import Sampling, SamplingOptions, generate_shown, read_cells, read_sampling, told_origin
from amden.shard import load_shard, save_shard
from amden.simulate.engines import choose_device
from amden.structure import Structures
from amden.targets import read_request, read_targets

BEYOND: Final = 0.5
"""How far beyond the training range a request may go to take off a bias, in parts of that range."""

_SETTINGS: Final = ("seed", "steps", "refine", "settings")
_ONCE: Final = (*_SETTINGS, "device")
"""What earlier versions kept, at first without names."""


@dataclass(frozen=True)
class Budget:
    """When a design ends."""

    n: int
    """Structures wanted."""
    rounds: int
    per_round: int
    max_minutes: float | None


def run_design(
    how: SamplingOptions,
    out: Path,
    *,
    targets: Sequence[str],
    tolerance: Sequence[str],
    budget: Budget,
    atoms: int | None,
    density: float | None,
    cell: str | None,
    training: Path | None,
    overwrite: bool,
    requench: str | None,
    **asked: Any,
) -> None:
    """Body of `amden design`; `requench` names a protocol, `asked` are further options of `read_request`."""
    check_output(out / "designs.extxyz", overwrite=overwrite)
    if not targets:
        raise ValueError('a design needs a target: `--target "shear_modulus=36 GPa"`')
    sampling = read_sampling(how)
    loaded = sampling.model
    known = None if training is None else _training_set(training)
    wish, notes = read_request(loaded, targets=targets, guide=sampling.guide, **asked)
    goals = read_goals(loaded, wish, tolerance)
    names = measurable(goals, loaded.denoiser.config.vocabulary.species)
    protocol = read_requench(requench, loaded)
    potential = measured_by(protocol, loaded)
    for note in notes:
        err.print(f"  [yellow]note:[/] {note}")
    text = None if atoms is None else str(atoms)
    blank = read_cells(loaded, wish, budget.per_round, atoms=text, density=density, cell=cell)
    wish.check(loaded, blank.n_atoms, refine=sampling.refine)
    origin = _origin(sampling, wish, blank)
    if potential != measured_by(None, loaded):
        origin["potential"] = potential
    store = _Store(out / "rounds", origin)
    begun, started = store.load(), time.monotonic()
    err.print(_plan(how.model, sampling, blank, budget))
    if begun:
        err.print(f"{out}: going on after {len(begun)} rounds")
    done = design(
        goals,
        n=budget.n,
        rounds=budget.rounds,
        make=_Maker(sampling, wish, blank, names, potential, out),
        begun=begun,
        enough=lambda: budget.max_minutes is not None and time.monotonic() - started > 60 * budget.max_minutes,
        on_round=lambda number, found: _told(goals, number, found, store),
    )
    anew = None
    if protocol is not None:
        chosen_device = choose_device(sampling.device.type)
        anew = partial(requenched, names=names, protocol=protocol, seed=how.seed, out=out, device=chosen_device)
    met = write_designs(goals, done, out, wish=wish, n=budget.n, known=known, anew=anew, overwrite=overwrite)
    write_origin(out / "designs.extxyz", told_origin(how.model, origin, sampling.device))
    if met < budget.n:
        err.print(_advice(met, len(done), budget, out))


def _plan(model: str, sampling: Sampling, blank: Blank, budget: Budget) -> str:
    """What is about to happen, in a line."""
    kind = "atoms" if sampling.model.denoiser.config.ghost_density is None else "atoms and ghosts"
    rounds = f"{budget.rounds} rounds of {budget.per_round} structures of {int(blank.n_atoms[0])} {kind}"
    until = f"until {budget.n} structures meet the targets, at most {rounds}"
    return f"{model} on {sampling.device}: {until}, {sampling.steps} steps, seed {sampling.seed}"


def _advice(met: int, rounds: int, budget: Budget, out: Path) -> str:
    """What to do where fewer structures than wanted meet the targets."""
    more = "`--rounds`" if rounds >= budget.rounds else "`--max-minutes`"
    return (
        f"{met} of {budget.n} structures meet the targets after {rounds} rounds. The same command with `--overwrite` "
        f"and larger {more} goes on; with `--overwrite` and a larger `--tolerance` it keeps more of what there is. "
        f"`--overwrite` replaces the results only, the rounds in {out / 'rounds'} stay"
    )


def _origin(sampling: Sampling, wish: Request, blank: Blank) -> dict[str, Any]:
    """All that decides what the rounds are, as it lies beside them; tolerances only judge them."""
    facts = sampling.facts(wish, blank)
    return {
        "model": facts["model"],
        "asked": {**facts["asked"], "guide": facts["guide"]},
        "cells": facts["cells"],
        "settings": {name: facts[name] for name in _SETTINGS},
        **({"energy": facts["energy"]} if "energy" in facts else {}),
    }


def _upgraded(origin: Mapping[str, Any]) -> dict[str, Any]:
    """The origin of rounds from before tolerances and the device were left out of it and settings had names."""
    found = {name: value for name, value in origin.items() if name != "goals"}
    if isinstance(found.get("settings"), list):
        found["settings"] = dict(zip(_ONCE, found["settings"], strict=True))
    if "settings" in found:
        found["settings"] = {name: value for name, value in found["settings"].items() if name != "device"}
    return found


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
        found |= read_targets([text], known, extrapolate=True, option="--tolerance").values
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


@dataclass(frozen=True)
class _Maker:
    """A round: structures generated, relaxed with their cells and measured."""

    sampling: Sampling
    wish: Request
    blank: Blank
    names: Sequence[str]
    potential: str | None
    out: Path

    def __call__(self, number: int, asked: Mapping[str, float]) -> Structures:
        wish = replace(self.wish, targets=dict(asked))
        sampling = replace(self.sampling, seed=self.sampling.seed + 1_000_003 * number)
        parts = Parts(self.out / f"round-{number:03d}", sampling.facts(wish, self.blank))
        title = f"round {number + 1}: generating"
        made = generate_shown(sampling, self.blank, wish, title=title, parts=parts)
        device = choose_device(self.sampling.device.type)
        beside = self.out / f"round-{number:03d}-measured"
        with measuring_bar(f"round {number + 1}: measuring") as show:
            found, measured = kept_at_rest(
                made, self.names, out=beside, device=device, potential=self.potential, progress=show
            )
        told = {k: v for k, v in made.properties.items() if not k.startswith("target_")}
        measured.remove()
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
            other = _upgraded(shard.provenance.get("origin") or {})
            if other != self._origin:
                what = ", ".join(differences(other, self._origin))
                raise ValueError(f"{self._folder} holds another design ({what}): choose another folder, or remove it")
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
