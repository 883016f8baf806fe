"""What the verbs of the command line do: call the floors below, show progress, print what came out. Those that make
and complete datasets are in `data_commands`.

Imported only when a verb runs, so that `amden --help` answers at once.
"""

import hashlib
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from amden.analysis.compare import analyze
from amden.analysis.relaxation import potential_energies
from amden.blank import Blank, cell_blank, cubic_blank, like_blank
from amden.config import from_dict, load_config, to_dict, to_yaml, with_overrides
from amden.dataset import describe, load_dataset, split
from amden.diffusion.composition import Neutral
from amden.diffusion.hmc import HMCConfig, Steering
from amden.generation import evaluations, generate
from amden.io import TrajectoryWriter, check_output, write_structures
from amden.model import Model, load_model
from amden.neighbors import check_cutoff, check_overlaps
from amden.panels import potential_of
from amden.parts import Parts
from amden.paths import energy_paths
from amden.pretrained import model_path, shipped_models
from amden.recipe import Recipe
from amden.report import About, table
from amden.report import write as write_report
from amden.report.about import source, versions
from amden.report.paths import write_paths
from amden.request import Request
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.potentials import Potential
from amden.simulate.protocol import POTENTIALS
from amden.simulate.relaxation import RelaxedStructures, relax_structures
from amden.structure import Structures, validate
from amden.targets import box_density, model_table, outcome, read_request
from amden.training import Progress as TrainingProgress
from amden.training import train

err = Console(stderr=True)

HMC_STEPS = 2000
"""Denoising steps with Hamiltonian Monte Carlo, as in the paper."""

LOG_SECONDS = 60.0
"""Time between two lines on Hamiltonian Monte Carlo where there is no terminal to draw a bar on."""

HMC_STEPS_CPU = 200
"""The same on a CPU, where the paper's number takes hours a structure."""


@contextmanager
def progress_bar(*columns: str) -> Iterator[Progress]:
    """A bar on stderr with counts, extra columns and times; silent where stderr is not a terminal."""
    shown = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *map(TextColumn, columns)]
    times = TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*shown, *times, console=err, disable=not err.is_terminal, speed_estimate_period=600) as bar:
        yield bar


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one.

    Errors: `ValueError` for a name torch does not know or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}: expected cpu, cuda or auto") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device was found: use `--device cpu`")
    return device


def run_generate(
    model: str,
    out: Path,
    *,
    sizes: dict[str, Any],
    seed: int,
    steps: int | None,
    hmc: bool,
    device: str,
    batch_size: int | None,
    trajectory: Path | None,
    overwrite: bool,
    guide: str | None = None,
    **asked: Any,
) -> None:
    """Body of `amden generate`; `asked` are the options of `read_request`."""
    for path in filter(None, (out, trajectory)):
        check_output(path, overwrite=overwrite)
    where, path = pick_device(device), model_path(model)
    loaded = load_model(path, device=where)
    other = load_model(model_path(guide), device=where) if guide else None
    wish, notes = read_request(loaded, guide=other, **asked)
    blank, refine = _blank(loaded, wish, **sizes), HMCConfig() if hmc else None
    wish = _fitting(wish, loaded, blank, by_default=asked["composition"] is None)
    for note in notes:
        err.print(f"  [yellow]note:[/] {note}")
    default = default_steps(where, hmc=hmc)
    request = {"model": _digest(path.read_bytes()), "seed": seed, "steps": steps or default, "device": where.type}
    request |= {"hmc": refine and to_dict(refine), "cells": _digest(blank.cell.numpy(), blank.n_atoms.numpy())}
    request |= {"asked": wish.facts(), "guide": _digest(model_path(guide).read_bytes()) if guide else None}
    parts = None if trajectory else Parts(out, request)
    if hmc and steps is None and default < HMC_STEPS:
        err.print(f"  [yellow]note:[/] {default} steps on a CPU; the paper's {HMC_STEPS} (`--steps`) relax further")
    steps = steps or default
    err.print(f"{model} on {where}: {len(blank)} structures, {_places(loaded, blank)} each, {steps} steps, seed {seed}")
    started = time.monotonic()
    with ExitStack() as stack:
        film = stack.enter_context(TrajectoryWriter(trajectory, overwrite=overwrite)) if trajectory else None
        result = generate_shown(
            loaded,
            blank,
            request=wish,
            seed=seed,
            n_steps=steps,
            hmc=refine,
            device=where,
            batch_size=batch_size,
            parts=parts,
            on_frame=film.write if film else None,
        )
    write_structures(out, result, overwrite=overwrite)
    if parts is not None:
        parts.remove()
    for line in outcome(result, wish):
        print(line)
    print(f"{out}: {len(result)} structures in {time.monotonic() - started:.0f} s")


def generate_shown(
    model: Model,
    blank: Blank,
    *,
    n_steps: int,
    hmc: HMCConfig | None,
    device: torch.device,
    title: str = "generating",
    **options: Any,
) -> Structures:
    """`generate` with a bar; with Hamiltonian Monte Carlo the time it takes is told first, then acceptance and dt₀."""
    work = sum(evaluations(model, n_steps=n_steps, hmc=hmc))
    if hmc is not None:
        err.print(f"  Hamiltonian Monte Carlo: {work} evaluations of the network a structure")
    logged = time.monotonic()
    with progress_bar("{task.fields[note]}") as bar:
        task = bar.add_task(title, total=len(blank) * work, note="evaluations")

        def show(done: int, now: Steering | None) -> None:
            nonlocal logged
            bar.advance(task, done)
            if now is None:
                return
            note = f"evaluations, acceptance {now.acceptance:.2f}, dt₀ {now.step:.2f}"
            bar.update(task, note=note)
            if not err.is_terminal and time.monotonic() - logged > LOG_SECONDS:
                err.print(f"  {bar.tasks[task].completed:.0f} of {len(blank) * work} {note}")
                logged = time.monotonic()

        told = {"on_step": show, "on_estimate": _print_estimate if hmc else None}
        compiled = device.type == "cuda"
        return generate(model, blank, n_steps=n_steps, hmc=hmc, device=device, compiled=compiled, **told, **options)


def default_steps(device: torch.device, *, hmc: bool) -> int:
    """Denoising steps where none are asked for."""
    return 200 if not hmc else HMC_STEPS if device.type == "cuda" else HMC_STEPS_CPU


def _print_estimate(seconds: float) -> None:
    amount = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    err.print(f"  about {amount if seconds < 7200 else f'{seconds / 3600:.1f} h'} to go")


def run_energies(
    model: str,
    reference: Path,
    *,
    n: int,
    steps: int | None,
    hmc: bool,
    seed: int,
    device: str,
    batch_size: int | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Body of `amden energies`."""
    folder = out or Path(f"{Path(model).stem}-energies")
    check_output(folder / "paths.csv", overwrite=overwrite)
    where = pick_device(device)
    loaded, known = load_model(model_path(model), device=where), _loaded(reference)
    known = known.select(range(min(n, len(known))))
    refine, hmc_steps = HMCConfig() if hmc else None, steps or HMC_STEPS
    work = sum(evaluations(loaded, n_steps=200)) + (
        sum(evaluations(loaded, n_steps=hmc_steps, hmc=refine)) if refine else 0
    )
    with progress_bar("evaluations") as bar:
        task = bar.add_task("denoising", total=work * len(known))
        paths = energy_paths(
            loaded,
            known,
            hmc=refine,
            hmc_steps=hmc_steps,
            seed=seed,
            device=where,
            batch_size=batch_size,
            compiled=where.type == "cuda",
            on_step=lambda done, _: bar.advance(task, done),
        )
    shown = Table("way", "energy an atom at t = 0.3", "0.1", "0.01")
    for name, path in paths.items():
        places = [int((path.t - t).abs().argmin()) for t in (0.3, 0.1, 0.01)]
        shown.add_row(name, *(f"{float(path.mean[i]):.4f} ± {float(path.error[i]):.4f}" for i in places))
    Console(file=sys.stdout).print(shown)
    for path in write_paths(paths, folder):
        print(path)


def _digest(*content: Any) -> str:
    """A fingerprint of bytes or arrays."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    return digest.hexdigest()


def _fitting(wish: Request, model: Model, blank: Blank, *, by_default: bool) -> Request:
    """The request without a neutrality that nobody asked for and that these numbers of atoms cannot have."""
    try:
        wish.check(model, blank.n_atoms, hmc=False)
    except ValueError as error:
        if not (by_default and isinstance(wish.composition, Neutral)):
            raise
        wish = replace(wish, composition=None)
        wish.check(model, blank.n_atoms, hmc=False)
        err.print(f"  [yellow]note:[/] {error}; elements are left as they come")
    return wish


def _blank(
    model: Model,
    wish: Request,
    *,
    n: int | None,
    atoms: int | None,
    density: float | None,
    cell: str | None,
    like: Path | None,
) -> Blank:
    if like is not None:
        if atoms or density or cell:
            raise ValueError("`--like` brings cells and sizes: leave out --atoms, --density and --cell")
        return like_blank(model, _loaded(like), n=n)
    if cell is not None:
        return cell_blank(model, n or 1, cell=_parsed_cell(cell), atoms=atoms, density=density)
    return cubic_blank(model, n or 1, atoms=256 if atoms is None else atoms, density=box_density(wish, density))


def _parsed_cell(text: str) -> torch.Tensor:
    try:
        numbers = torch.tensor([float(x) for x in text.replace(",", " ").split()])
    except ValueError:
        raise ValueError(f"`--cell` must be numbers in Å, got {text!r}") from None
    if len(numbers) not in (1, 3, 9):
        raise ValueError(f"`--cell` takes 1, 3 or 9 numbers, got {len(numbers)}")
    return numbers.reshape(3, 3) if len(numbers) == 9 else torch.diag(numbers.expand(3))


def _places(model: Model, blank: Blank) -> str:
    low, high = int(blank.n_atoms.min()), int(blank.n_atoms.max())
    kind = "atoms" if model.denoiser.config.ghost_density is None else "atoms and ghosts"
    return f"{low} {kind}" if low == high else f"{low} to {high} {kind}"


def run_train(
    recipe: Path | None,
    *,
    data: Path | None,
    out: Path | None,
    overrides: list[str],
    resume: bool,
    start: str | None,
    dry_run: bool,
    device: str,
    devices: int,
    max_minutes: float | None,
    tensorboard: bool,
) -> None:
    """Body of `amden train`."""
    where = pick_device(device)
    plan = load_config(Recipe, recipe, overrides=overrides) if recipe else _default_recipe(overrides)
    source = str(data or plan.data)
    if not source:
        raise ValueError("no data: name it in the recipe (`data: …`) or by `--data`")
    structures = load_dataset(source)
    _report_data(structures, source, plan)
    if dry_run:
        print(to_yaml(plan), end="")
        return
    folder = out or Path("runs") / (recipe.stem if recipe else Path(source).stem)
    parts = split(structures, validation=min(plan.training.validation, len(structures) // 5), seed=plan.training.seed)
    cuda = where.type == "cuda"
    if cuda:
        # beside bfloat16 only thin products of distances are left; at the length of a bond TF32 rounds these by
        # 0.0003 Å, a fiftieth of the least noise. Generation keeps float32.
        torch.set_float32_matmul_precision("high")
    fabric = Fabric(accelerator=where.type, devices=devices, precision="bf16-mixed" if cuda else "32-true")
    fabric.launch()
    err.quiet = not fabric.is_global_zero
    err.print(f"training on {devices} × {where}: {len(parts.training)} structures, {len(parts.validation)} set aside")
    with progress_bar("loss {task.fields[loss]:.4f}", "{task.fields[rate]:.0f} structures/s") as bar:
        task = bar.add_task("training", total=plan.training.steps, loss=float("nan"), rate=float("nan"))

        def show(now: TrainingProgress) -> None:
            bar.update(task, completed=now.step, loss=now.loss, rate=now.samples_per_second)
            if now.validation is not None or not err.is_terminal:
                err.print(_training_line(now))

        train(
            plan,
            parts,
            folder,
            fabric=fabric,
            resume=resume,
            start=load_model(model_path(start)) if start else None,
            compiled=cuda,
            max_seconds=max_minutes * 60 if max_minutes else None,
            tensorboard=tensorboard,
            progress=show,
            provenance={"data": {"source": Path(source).name}, "name": folder.name},
        )
    if fabric.is_global_zero:
        print(f"{folder}: model.safetensors, metrics.csv")


def _default_recipe(overrides: list[str]) -> Recipe:
    return from_dict(Recipe, with_overrides({}, overrides))


def _training_line(now: TrainingProgress) -> str:
    validation = "" if now.validation is None else f", validation {now.validation:.4f}"
    return f"step {now.step}: loss {now.loss:.4f}{validation}, {now.samples_per_second:.0f} structures/s"


def _report_data(structures: Structures, source: str, plan: Recipe) -> None:
    """Say what was found; stop at what cannot be trained on."""
    validate(structures, source=source)
    check_overlaps(structures, min_distance=0.5, source=source)
    check_cutoff(structures.select(range(min(len(structures), 500))), cutoff=plan.egnn.cutoff, source=source)
    found = describe(structures)
    for fact in found.facts:
        err.print(f"  {fact}")
    for warning in found.warnings:
        err.print(f"  [yellow]note:[/] {warning}")


def run_models(name: str | None = None) -> None:
    """Body of `amden models`."""
    if name is not None:
        Console(file=sys.stdout).print(model_table(name, load_model(model_path(name))))
        return
    table = Table("model", "trained on", "steps", "density g/cm³", "conditions", "path")
    for model in shipped_models():
        data = model.provenance.get("data", {})
        trained_on = f"{data.get('structures', '?')} × {data.get('source', '?')}"
        table.add_row(
            model.name,
            trained_on,
            str(model.provenance.get("steps", "?")),
            f"{data.get('density', float('nan')):.3f}",
            ", ".join(model.provenance.get("recipe", {}).get("properties", [])) or "none",
            str(model.path),
        )
    Console(file=sys.stdout).print(table)


def run_analyze(
    structures: Path,
    *,
    reference: Path | None,
    training: Path | None,
    out: Path | None,
    relax: bool,
    overwrite: bool,
) -> None:
    """Body of `amden analyze`."""
    folder = out or structures.with_name(f"{structures.stem}-analysis")
    check_output(folder / "analysis.json", overwrite=overwrite)
    paths = {"generated": structures, "reference": reference, "training": training}
    sets = {role: _loaded(path) for role, path in paths.items() if path is not None}
    given, known = sets["generated"], sets.get("reference")
    potential = potential_of(given, known)
    if relax and potential is None:
        have = ", ".join("-".join(each.symbols) for each in POTENTIALS.values())
        raise ValueError(f"`--relax` needs a potential made for the elements; there is one for {have}")
    calculator = partial(PotentialCalculator, potential) if potential else None
    with progress_bar("structures") as bar:
        total = len(given) + (0 if known is None else len(known))
        task = bar.add_task("relaxing", total=total, visible=relax)

        def relaxed(chosen: Potential, structures: Structures) -> RelaxedStructures:
            before = bar.tasks[task].completed
            return relax_structures(structures, chosen, progress=lambda done: bar.update(task, completed=before + done))

        result = analyze(
            given,
            known,
            training=sets.get("training"),
            energy=partial(potential_energies, calculator=calculator) if calculator else None,
            relax=partial(relaxed, potential) if relax and potential else None,
        )
    Console(file=sys.stdout).print(table(result))
    sources = tuple(source(role, path, structures=len(sets[role])) for role, path in paths.items() if path is not None)
    about = About(shlex.join(["amden", *sys.argv[1:]]), sources, versions())
    for path in write_report(result, folder, about=about, views=sets, overwrite=overwrite):
        print(path)


def _loaded(path: Path) -> Structures:
    """A file or dataset that can be analysed; `ValueError` that names it else."""
    structures = load_dataset(path, dtype=torch.float64)
    validate(structures, source=str(path))
    check_overlaps(structures, min_distance=0.5, source=str(path))
    return structures
