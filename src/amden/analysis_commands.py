"""What `amden analyze` does. See `commands` for the other verbs."""

import shlex
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from amden.analysis.compare import analyze
from amden.analysis.relaxation import potential_energies
from amden.commands import loaded_set, progress_bar
from amden.io import check_output
from amden.panels import potential_of
from amden.report import About, table
from amden.report import write as write_report
from amden.report.about import source, versions
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.potentials import POTENTIALS, Potential
from amden.simulate.relaxation import RelaxedStructures, relax_structures
from amden.structure import Structures


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
