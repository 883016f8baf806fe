"""What `amden generate` and `amden energies` do, and generation with a bar for the verbs that are built on it."""

import hashlib
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from amden.blank import Blank, cell_blank, cubic_blank, like_blank
from amden.commands import err, loaded_set, pick_device, progress_bar
from amden.config import to_dict
from amden.diffusion.composition import Neutral
from amden.diffusion.hmc import Steering
from amden.diffusion.langevin import LangevinConfig, Warmth
from amden.generation import generate
from amden.io import TrajectoryWriter, check_output, write_structures
from amden.model import Model, load_model
from amden.parts import Parts
from amden.paths import energy_paths
from amden.pretrained import energy_model, model_path
from amden.refinement import Asked, Refine, default_steps, evaluations, read_refinement, sampling_of
from amden.report.paths import write_paths
from amden.request import Request
from amden.structure import Structures
from amden.targets import box_density, outcome, read_request

LOG_SECONDS = 60.0
"""Time between two lines on a refinement where there is no terminal to draw a bar on."""


def run_generate(
    model: str,
    out: Path,
    *,
    sizes: dict[str, Any],
    seed: int,
    steps: int | None,
    refine: Asked | None,
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
    where, path = pick_device(device), sampled_model(model, refine)
    loaded = load_model(path, device=where)
    other = load_model(model_path(guide), device=where) if guide else None
    wish, notes = read_request(loaded, guide=other, **asked)
    blank, how = _blank(loaded, wish, **sizes), read_refinement(refine, loaded)
    wish = _fitting(wish, loaded, blank, by_default=asked["composition"] is None)
    for note in notes:
        err.print(f"  [yellow]note:[/] {note}")
    default, further = default_steps(loaded, where, refine), default_steps(loaded, torch.device("cuda"), refine)
    request = {"model": digest(path.read_bytes()), "seed": seed, "steps": steps or default, "device": where.type}
    request |= {
        "refine": refine and refine.kind,
        "settings": how and to_dict(how),
        "cells": digest(blank.cell.numpy(), blank.n_atoms.numpy()),
    }
    request |= {"asked": wish.facts(), "guide": digest(model_path(guide).read_bytes()) if guide else None}
    parts = None if trajectory else Parts(out, request)
    if steps is None and default < further:
        err.print(f"  [yellow]note:[/] {default} steps on a CPU; {further}, as on a GPU (`--steps`), relax further")
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
            refine=how,
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
    refine: Refine | None,
    device: torch.device,
    title: str = "generating",
    **options: Any,
) -> Structures:
    """`generate` with a bar; with a refinement the time it takes is told first, then how that goes."""
    work = sum(evaluations(model, n_steps=n_steps, refine=refine))
    if refine is not None:
        err.print(f"  relaxed while denoising: {work} evaluations of the network a structure")
    logged = time.monotonic()
    with progress_bar("{task.fields[note]}") as bar:
        task = bar.add_task(title, total=len(blank) * work, note="evaluations")

        def show(done: int, now: Steering | Warmth | None) -> None:
            nonlocal logged
            bar.advance(task, done)
            if now is None:
                return
            note = f"evaluations, {now}"
            bar.update(task, note=note)
            if not err.is_terminal and time.monotonic() - logged > LOG_SECONDS:
                err.print(f"  {bar.tasks[task].completed:.0f} of {len(blank) * work} {note}")
                logged = time.monotonic()

        told: dict[str, Any] = {"on_step": show, "on_estimate": _print_estimate if refine else None}
        compiled = device.type == "cuda"
        return generate(
            model, blank, n_steps=n_steps, refine=refine, device=device, compiled=compiled, **told, **options
        )


def sampled_model(model: str, refine: Asked | None) -> Path:
    """The checkpoint to sample; where an energy is needed a shipped score model gives way to its energy model."""
    chosen = energy_model(model) if refine is not None and refine.needs_energy else model
    if refine is not None and chosen != model:
        err.print(f"  [yellow]note:[/] {refine.name} takes the energy model {chosen}")
    return model_path(chosen)


def _print_estimate(seconds: float) -> None:
    amount = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    err.print(f"  about {amount if seconds < 7200 else f'{seconds / 3600:.1f} h'} to go")


def run_energies(
    model: str,
    reference: Path,
    *,
    n: int,
    steps: int | None,
    hmc: Asked | None,
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
    loaded, known = load_model(sampled_model(model, Asked("hmc")), device=where), loaded_set(reference)
    known = known.select(range(min(n, len(known))))
    refine, hmc_steps = read_refinement(hmc, loaded), steps or sampling_of(loaded).hmc_steps
    assert not isinstance(refine, LangevinConfig)
    work = sum(evaluations(loaded, n_steps=200)) + (
        sum(evaluations(loaded, n_steps=hmc_steps, refine=refine)) if refine else 0
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


def digest(*content: Any) -> str:
    """A fingerprint of bytes or arrays."""
    found = hashlib.sha256()
    for part in content:
        found.update(part)
    return found.hexdigest()


def _fitting(wish: Request, model: Model, blank: Blank, *, by_default: bool) -> Request:
    """The request without a neutrality that nobody asked for and that these numbers of atoms cannot have."""
    try:
        wish.check(model, blank.n_atoms, refine=None)
    except ValueError as error:
        if not (by_default and isinstance(wish.composition, Neutral)):
            raise
        wish = replace(wish, composition=None)
        wish.check(model, blank.n_atoms, refine=None)
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
        return like_blank(model, loaded_set(like), n=n)
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
