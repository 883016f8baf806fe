"""What the verbs of the command line do: call the floors below, show progress, print what came out. Those that make
and complete datasets are in `data_commands`, training in `training_commands`, those that generate in
`generation_commands` and what is built on it.

Imported only when a verb runs, so that `amden --help` answers at once.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from amden.analysis.compare import analyze
from amden.analysis.relaxation import potential_energies
from amden.dataset import load_dataset
from amden.io import check_output
from amden.model import load_model
from amden.neighbors import check_overlaps
from amden.panels import potential_of
from amden.pretrained import model_path, shipped_models
from amden.report import About, table
from amden.report import write as write_report
from amden.report.about import source, versions
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.potentials import POTENTIALS, Potential
from amden.simulate.relaxation import RelaxedStructures, relax_structures
from amden.structure import Structures, validate
from amden.targets import model_table

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
