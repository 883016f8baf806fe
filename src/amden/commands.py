"""What the verbs of the command line share: the terminal, devices, files of structures. What each does is in a module
of its own (`generation_commands`, `data_commands` …), imported only when it runs, so that little is loaded for a verb.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from amden.dataset import load_dataset
from amden.neighbors import check_overlaps
from amden.structure import Structures, validate

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


def loaded_set(path: Path) -> Structures:
    """A file or dataset that can be analysed; `ValueError` that names it else."""
    structures = load_dataset(path, dtype=torch.float64)
    validate(structures, source=str(path))
    check_overlaps(structures, min_distance=0.5, source=str(path))
    return structures
