"""What `amden figure` does: makes the sets that are missing, measures, draws."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from amden.commands import err, progress_bar
from amden.config import load_config
from amden.io import check_output
from amden.panels import Panels, measure
from amden.report.panels import FIGURE, panels_table, write_panels
from amden.simulate.engines import choose_device

VERBS = ("simulate", "generate", "properties", "merge")
"""What a recipe of a figure may call."""


def run_figure(
    recipe: Path,
    *,
    out: Path | None,
    overrides: Sequence[str],
    device: str,
    overwrite: bool,
    call: Callable[[Sequence[str]], None],
) -> None:
    """Body of `amden figure`; `call` runs an `amden` command."""
    wanted = load_config(Panels, recipe, overrides=overrides)
    folder = out or recipe.with_suffix("")
    check_output(folder / f"{FIGURE}.png", overwrite=overwrite)
    commands = {file.path: _command(file.path, file.make) for file in wanted.files if not Path(file.path).exists()}
    for path, command in commands.items():
        err.print(f"{path} is not there: amden {shlex.join(command)}")
        call(command)
        if not Path(path).exists():
            raise ValueError(f"{path}: `amden {shlex.join(command)}` did not make it")
    with progress_bar() as bar:
        task = bar.add_task("relaxing", total=None, visible=wanted.relaxed)
        rows = dict(
            measure(wanted, device=choose_device(device), progress=lambda done: bar.update(task, completed=done))
        )
    Console(file=sys.stdout).print(panels_table(rows, wanted.quantities))
    for name, row in rows.items():
        if row.left_out:
            err.print(f"{name}: {row.left_out} structures could not be relaxed and are left out")
    for path in write_panels(rows, wanted.quantities, folder, overwrite=overwrite):
        print(path)


def _command(path: str, make: str) -> list[str]:
    words = shlex.split(make)
    if not words:
        raise FileNotFoundError(f"{path}: no such file, and the recipe does not say how it is made (`make`)")
    if words[0] not in VERBS:
        raise ValueError(f"{path}: `make` must begin with one of {', '.join(VERBS)}, got {words[0]!r}")
    return words
