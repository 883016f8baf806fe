"""The program: its verbs in the order of its help, and what becomes of errors."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from amden import __version__
from amden.cli.data_verbs import analyze, merge, properties, simulate
from amden.cli.model_verbs import design, energies, generate, models, sweep, train
from amden.cli.options import Device, Overwrite

app = typer.Typer(
    help="Design amorphous materials: simulate, train, generate, analyze.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

KEPT = {
    "simulate": "finished cells are kept, the same command goes on",
    "properties": "finished properties of a dataset are kept, the same command goes on",
    "merge": "merged files are kept, the same command goes on",
    "generate": "finished batches are kept, the same command goes on",
    "sweep": "finished batches are kept, the same command goes on",
    "design": "finished rounds are kept, the same command goes on",
    "train": "a checkpoint is kept, the same command with --resume goes on",
}
"""What is left of an interrupted verb; the others write at their end."""


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"amden {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of the program itself."""


def figure(
    recipe: Annotated[Path, typer.Argument(help="What is compared, in YAML, as recipes/figures/fig3.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Folder for figure and tables.  \\[default: beside RECIPE]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: at_most=100.")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Draw glasses side by side, sets that are missing made first (fig. 3a-d of the paper)."""
    from amden.figure_commands import run_figure

    run_figure(recipe, out=out, overrides=set_ or [], device=device, overwrite=overwrite, call=main)


for _verb in (generate, design, sweep, train, simulate, merge, properties, analyze, energies, figure, models):
    app.command()(_verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: an error of the user's is one line on stderr and status 1; `--debug` shows where it came from."""
    # Threads that spin while they wait make a busy machine many times slower. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="amden")
    except SystemExit as done:
        if done.code == INTERRUPTED:
            _tell_interrupted(given)
        if done.code:
            raise
    except KeyboardInterrupt:  # before or after what Typer looks after
        _tell_interrupted(given)
        sys.exit(INTERRUPTED)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        if "--debug" in given:
            traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"amden: error: {text}", file=sys.stderr)
        sys.exit(1)


def _tell_interrupted(given: Sequence[str]) -> None:
    verb = next((word for word in given if word in KEPT), "")
    print(f"amden: interrupted; {KEPT.get(verb, 'nothing was written')}", file=sys.stderr)
