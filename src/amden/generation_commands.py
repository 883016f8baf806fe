"""What `amden generate` and `amden energies` do."""

import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from amden.blank import Blank, like_blank
from amden.commands import err, loaded_set, pick_device, progress_bar
from amden.diffusion.composition import Neutral
from amden.diffusion.langevin import LangevinConfig
from amden.io import TrajectoryWriter, check_output, check_structure_file, write_origin, write_structures
from amden.model import Model, load_model
from amden.parts import Parts
from amden.paths import energy_paths
from amden.progress import Lines
from amden.refinement import Asked, default_steps, evaluations, read_refinement, sampling_of
from amden.report.paths import write_paths
from amden.request import Request
from amden.sampling_commands import (
    SamplingOptions,
    generate_shown,
    read_cells,
    read_sampling,
    sampled_model,
    told_origin,
)
from amden.targets import outcome, read_request


def run_generate(
    how: SamplingOptions,
    out: Path,
    *,
    sizes: dict[str, Any],
    batch_size: int | None,
    trajectory: Path | None,
    overwrite: bool,
    **asked: Any,
) -> None:
    """Body of `amden generate`; `asked` are the options of `read_request`."""
    check_structure_file(out, sizes["n"] or 1, overwrite=overwrite)
    if trajectory:
        check_output(trajectory, overwrite=overwrite)
    sampling = read_sampling(how)
    loaded = sampling.model
    wish, notes = read_request(loaded, guide=sampling.guide, **asked)
    blank = _blank(loaded, wish, **sizes)
    wish = _fitting(wish, loaded, blank, by_default=asked["composition"] is None)
    for note in notes:
        err.print(f"  [yellow]note:[/] {note}")
    check_structure_file(out, len(blank), overwrite=overwrite)
    facts = sampling.facts(wish, blank)
    parts = None if trajectory else Parts(out, facts)
    default, further = sampling.steps, default_steps(loaded, torch.device("cuda"), how.refine)
    if how.steps is None and default < further:
        err.print(f"  [yellow]note:[/] {default} steps on a CPU; {further}, as on a GPU (`--steps`), relax further")
    told = f"{len(blank)} structures, {_places(loaded, blank)} each, {sampling.steps} steps, seed {sampling.seed}"
    err.print(f"{how.model} on {sampling.device}: {told}")
    started = time.monotonic()
    with ExitStack() as stack:
        film = stack.enter_context(TrajectoryWriter(trajectory, overwrite=overwrite)) if trajectory else None
        on_frame = film.write if film else None
        result = generate_shown(sampling, blank, wish, batch_size=batch_size, parts=parts, on_frame=on_frame)
    write_structures(out, result, overwrite=overwrite)
    write_origin(out, told_origin(how.model, facts, sampling.device))
    if parts is not None:
        parts.remove()
    for line in outcome(result, wish):
        print(line)
    print(f"{out}: {len(result)} structures in {time.monotonic() - started:.0f} s")


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
    if steps is not None and refine is None:
        raise ValueError("`--steps` are those with `--hmc`: standard denoising takes 200 here")
    work = 2 * sum(evaluations(loaded, n_steps=200))
    work += sum(evaluations(loaded, n_steps=hmc_steps, refine=refine)) if refine else 0
    ways = f"200 steps{f' and {hmc_steps} with Hamiltonian Monte Carlo' if refine else ''}"
    err.print(f"{model} on {where}: {len(known)} structures noised and denoised, {ways}, seed {seed}")
    with progress_bar("evaluations") as bar:
        task, lines = bar.add_task("denoising", total=work * len(known)), Lines()

        def show(done: int, _: object) -> None:
            bar.advance(task, done)
            made = float(bar.tasks[task].completed)  # rich keeps it as the number it is handed
            lines.say(f"{made:.0f} of {work * len(known)} evaluations", made, work * len(known))

        paths = energy_paths(
            loaded,
            known,
            hmc=refine,
            hmc_steps=hmc_steps,
            seed=seed,
            device=where,
            batch_size=batch_size,
            compiled=where.type == "cuda",
            on_step=show,
        )
    shown = Table("way", "energy an atom at t = 0.3", "0.1", "0.01")
    for name, path in paths.items():
        places = [int((path.t - t).abs().argmin()) for t in (0.3, 0.1, 0.01)]
        shown.add_row(name, *(f"{float(path.mean[i]):.4f} ± {float(path.error[i]):.4f}" for i in places))
    Console(file=sys.stdout).print(shown)
    for path in write_paths(paths, folder):
        print(path)


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


def _blank(model: Model, wish: Request, *, n: int | None, like: Path | None, **sizes: Any) -> Blank:
    """Those of a file, or what `read_cells` takes."""
    if like is None:
        return read_cells(model, wish, 1 if n is None else n, **sizes)
    if any(sizes.values()):
        raise ValueError("`--like` brings cells and sizes: leave out --atoms, --density and --cell")
    return like_blank(model, loaded_set(like), n=n)


def _places(model: Model, blank: Blank) -> str:
    low, high = int(blank.n_atoms.min()), int(blank.n_atoms.max())
    kind = "atoms" if model.denoiser.config.ghost_density is None else "atoms and ghosts"
    return f"{low} {kind}" if low == high else f"{low} to {high} {kind}"
