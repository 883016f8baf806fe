"""What the verbs of the command line do: call the floors below, show progress, print what came out. Those that make
and complete datasets are in `data_commands`, those that generate in `generation_commands` and what is built on it.

Imported only when a verb runs, so that `amden --help` answers at once.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from amden.analysis.compare import analyze
from amden.analysis.relaxation import potential_energies
from amden.config import from_dict, load_config, to_yaml, with_overrides
from amden.dataset import describe, load_dataset, split
from amden.io import check_output
from amden.model import load_model
from amden.neighbors import check_cutoff, check_overlaps
from amden.panels import potential_of
from amden.pretrained import model_path, shipped_models
from amden.recipe import Recipe
from amden.report import About, table
from amden.report import write as write_report
from amden.report.about import source, versions
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.potentials import POTENTIALS, Potential
from amden.simulate.relaxation import RelaxedStructures, relax_structures
from amden.structure import Structures, validate
from amden.targets import model_table
from amden.training import Progress as TrainingProgress
from amden.training import train

err = Console(stderr=True)


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
    table = Table("model", "kind", "trained on", "steps", "density g/cm³", "conditions")
    table.columns[0].no_wrap = True
    for model in shipped_models():
        data = model.provenance.get("data", {})
        trained_on = f"{data.get('structures', '?')} × {data.get('source', '?')}"
        table.add_row(
            model.name,
            "energy" if model.provenance.get("recipe", {}).get("energy") else "score",
            trained_on,
            str(model.provenance.get("steps", "?")),
            f"{data.get('density', float('nan')):.3f}",
            ", ".join(model.provenance.get("recipe", {}).get("properties", [])) or "none",
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
    sets = {role: loaded_set(path) for role, path in paths.items() if path is not None}
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


def loaded_set(path: Path) -> Structures:
    """A file or dataset that can be analysed; `ValueError` that names it else."""
    structures = load_dataset(path, dtype=torch.float64)
    validate(structures, source=str(path))
    check_overlaps(structures, min_distance=0.5, source=str(path))
    return structures
