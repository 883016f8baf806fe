"""What the verbs that sample a model share: the model and how it is sampled, and generation with a bar."""

import hashlib
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from amden import __version__
from amden.blank import Blank, cell_blank, cubic_blank
from amden.commands import err, pick_device, progress_bar
from amden.config import to_dict
from amden.diffusion.hmc import Steering
from amden.diffusion.langevin import Warmth
from amden.generation import OnFrame, generate
from amden.model import Model, load_model
from amden.parts import Parts
from amden.pretrained import energy_model, model_path
from amden.progress import Lines
from amden.refinement import Asked, Refine, default_steps, evaluations, read_refinement, sampling_of
from amden.request import Request
from amden.sharing import gpus_to_share, make_shares
from amden.structure import Structures
from amden.targets import box_density

DEFAULT_ATOMS = 256
"""In a structure, where nobody asks for a size."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a model is to be sampled, as somebody asks for it."""

    model: str
    """Name or path."""
    guide: str | None
    """Likewise, of the unconditional model of guidance."""
    seed: int
    steps: int | None
    """Denoising steps; None: as is best."""
    refine: Asked | None
    energy: str | None = None
    """Name or path of the energy model of Hamiltonian Monte Carlo, where the model itself is to denoise."""
    device: str


@dataclass(frozen=True)
class Sampling:
    """A model and how it is sampled."""

    model: Model
    guide: Model | None
    """The unconditional model of guidance."""
    energy: Model | None
    """The energy model of Hamiltonian Monte Carlo, where it is another one."""
    digests: tuple[str, str | None, str | None]
    """Of the checkpoints of the three."""
    seed: int
    steps: int
    """Denoising steps."""
    kind: str | None
    """The refinement that was asked for, `Asked.kind`."""
    refine: Refine | None
    """The one that is done."""
    device: torch.device

    def facts(self, wish: Request, blank: Blank) -> dict[str, Any]:
        """All that decides what is made, for `Parts`; another device may go on, its sums are rounded differently."""
        return {
            "model": self.digests[0],
            "seed": self.seed,
            "steps": self.steps,
            "refine": self.kind,
            "settings": self.refine and to_dict(self.refine),
            "cells": _digest(blank.cell.numpy(), blank.n_atoms.numpy()),
            "asked": wish.facts(),
            "guide": self.digests[1],
            **({"energy": self.digests[2]} if self.digests[2] else {}),
        }


def read_sampling(asked: SamplingOptions) -> Sampling:
    """The model that is asked for, and how it is sampled.

    Errors: `ValueError` for a model, a device or a setting of the refinement that there is not.
    """
    where, relax = pick_device(asked.device), asked.refine
    if asked.energy and (relax is None or not relax.needs_energy):
        raise ValueError("`--hmc-energy` is for `--hmc`")
    path, source = _chosen(asked)
    loaded = load_model(path, device=where)
    guide, guide_digest = _other(asked.guide, where)
    energy, energy_digest = _other(source, where)
    return Sampling(
        model=loaded,
        guide=guide,
        energy=energy,
        digests=(_digest(path.read_bytes()), guide_digest, energy_digest),
        seed=asked.seed,
        steps=asked.steps or default_steps(energy or loaded, where, relax),
        kind=relax and relax.kind,
        refine=read_refinement(relax, energy or loaded),
        device=where,
    )


def _chosen(asked: SamplingOptions) -> tuple[Path, str | Path | None]:
    """The checkpoint of the model that denoises, and the energy model where that is another one."""
    if asked.energy:
        return model_path(asked.model), asked.energy
    path = sampled_model(asked.model, asked.refine)
    denoiser = sampling_of(load_model(path)).hmc_denoiser if asked.refine and asked.refine.needs_energy else None
    if denoiser is None:
        return path, None
    err.print(f"  [yellow]note:[/] {denoiser} denoises, as the energy model's recipe says")
    return model_path(denoiser), path


def _other(name: str | Path | None, device: torch.device) -> tuple[Model | None, str | None]:
    """A further model, if one is named, and the digest of its checkpoint."""
    if name is None:
        return None, None
    path = model_path(name)
    return load_model(path, device=device), _digest(path.read_bytes())


def read_sizes(text: str) -> tuple[int, int]:
    """The fewest and the most atoms of a structure, from `400` or `350:500`.

    >>> read_sizes("400"), read_sizes("350:500")
    ((400, 400), (350, 500))
    """
    try:
        ends = [int(x) for x in text.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2) or min(ends) < 1 or ends != sorted(ends):
        raise ValueError(f"`--atoms` must be a number of atoms, or two as 350:500, got {text!r}")
    return ends[0], ends[-1]


def read_cells(
    model: Model, wish: Request, n: int, *, atoms: str | None, density: float | None, cell: str | None
) -> Blank:
    """`n` cells: cubes for `atoms` at a density, 256 where nobody says otherwise, or a `cell` in Å.

    Errors: `ValueError` for a text of another form, and as of `cubic_blank` and `cell_blank`.
    """
    sizes = None if atoms is None else read_sizes(atoms)
    if cell is None:
        return cubic_blank(model, n, atoms=sizes or DEFAULT_ATOMS, density=box_density(wish, density))
    if sizes and sizes[0] != sizes[1]:
        raise ValueError(f"in a given cell there can be one number of atoms, got `--atoms {atoms}`")
    return cell_blank(model, n, cell=_read_cell(cell), atoms=sizes and sizes[0], density=density)


def _read_cell(text: str) -> torch.Tensor:
    try:
        numbers = torch.tensor([float(x) for x in text.replace(",", " ").split()])
    except ValueError:
        raise ValueError(f"`--cell` must be numbers in Å, got {text!r}") from None
    if len(numbers) not in (1, 3, 9):
        raise ValueError(f"`--cell` takes 1, 3 or 9 numbers, got {len(numbers)}")
    return numbers.reshape(3, 3) if len(numbers) == 9 else torch.diag(numbers.expand(3))


def sampled_model(model: str, refine: Asked | None) -> Path:
    """The checkpoint to sample; where an energy is needed a shipped score model gives way to its energy model."""
    chosen = energy_model(model) if refine is not None and refine.needs_energy else model
    if refine is not None and chosen != model:
        err.print(f"  [yellow]note:[/] Hamiltonian Monte Carlo takes the energy model {chosen}")
    return model_path(chosen)


def generate_shown(
    sampling: Sampling,
    blank: Blank,
    wish: Request,
    *,
    title: str = "generating",
    batch_size: int | None = None,
    parts: Parts | None = None,
    on_frame: OnFrame | None = None,
) -> Structures:
    """`generate` with a bar; with a refinement the time it takes is told first, then how that goes.

    All GPUs take part where there is enough to do and `parts`, in which their workers leave what they make.
    """
    relax: dict[str, Any] = {"refine": sampling.refine, "apart": sampling.energy is not None}
    work = sum(evaluations(sampling.model, n_steps=sampling.steps, **relax))
    if wish.guided:
        err.print(f"  guided by the targets: {wish.guidance}")
    if sampling.refine is not None:
        plain = sum(evaluations(sampling.model, n_steps=sampling.steps))
        told = f"{work} evaluations of the network a structure; standard denoising (`--plain`) takes {plain}"
        err.print(f"  relaxed while denoising: {told}")
    kept = 0 if parts is None else parts.n_kept
    if kept:
        err.print(f"  {kept} of {len(blank)} structures are there from before")
    gpus = () if parts is None or on_frame else gpus_to_share(sampling.device, blank, work=work, left=len(blank) - kept)
    total = len(blank) * work
    with progress_bar("{task.fields[note]}") as bar:
        task, lines = bar.add_task(title, total=total, note="evaluations"), Lines()

        def show(done: int, now: Steering | Warmth | None) -> None:
            bar.advance(task, done)
            if now is not None:
                bar.update(task, note=f"evaluations, {now}")
            made = float(bar.tasks[task].completed)  # rich keeps it as the number it is handed
            lines.say(f"{made:.0f} of {total} {bar.tasks[task].fields['note']}", made, total)

        how: dict[str, Any] = {
            "request": wish,
            "seed": sampling.seed,
            "n_steps": sampling.steps,
            "refine": sampling.refine,
            "energy": sampling.energy,
            "device": sampling.device,
            "batch_size": batch_size,
            "compiled": sampling.device.type == "cuda",
            "parts": parts,
        }
        news: dict[str, Any] = {"on_step": show, "on_estimate": _print_estimate}
        if gpus:
            err.print(f"  {len(gpus)} workers on GPU {', '.join(gpus)}", highlight=False)
            make_shares(gpus, sampling.model, blank, **how, **news)
            return generate(sampling.model, blank, **how)
        return generate(sampling.model, blank, on_frame=on_frame, **how, **news)


def told_origin(model: str, facts: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """What is said of the origin of generated structures, for `io.write_origin`.

    `device` is the one that they were finished on.
    """
    command = shlex.join(["amden", *sys.argv[1:]])
    return {"amden": __version__, "command": command, "made_by": model, "device": device.type, **facts}


def _print_estimate(seconds: float) -> None:
    amount = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    err.print(f"  about {amount if seconds < 7200 else f'{seconds / 3600:.1f} h'} to go")


def _digest(*content: Any) -> str:
    """A fingerprint of bytes or arrays."""
    found = hashlib.sha256()
    for part in content:
        found.update(part)
    return found.hexdigest()
