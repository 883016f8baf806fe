"""What `amden sweep` does: structures for a series of targets, relaxed and measured, drawn over what was asked for."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amden.blank import Blank, cubic_blank
from amden.commands import err, pick_device
from amden.config import to_dict
from amden.generation_commands import digest, generate_shown, sampled_model
from amden.io import check_output, write_structures
from amden.model import Model, load_model
from amden.parts import Parts
from amden.pretrained import model_path
from amden.properties import at_rest, property_of
from amden.refinement import Asked, default_steps, read_refinement
from amden.report.sweep import Sweep, write_sweep
from amden.simulate.engines import choose_device
from amden.targets import PROPERTY_UNITS, box_density, outcome, read_request, read_targets

_SERIES = re.compile(r"^\s*(\S+?)\s*=\s*(\S+?):(\S+?):(\d+)\s*(\S*)\s*$")

CONVERGED = "_vrh"
"""Ending of the moduli that are measured in the converged convention too."""


def run_sweep(
    model: str,
    out: Path,
    *,
    series: str,
    n: int,
    atoms: str,
    density: float | None,
    seed: int,
    steps: int | None,
    refine: Asked | None,
    device: str,
    batch_size: int | None,
    overwrite: bool,
    guide: str | None,
    **asked: Any,
) -> None:
    """Body of `amden sweep`; `asked` are further options of `read_request`."""
    check_output(out / "sweep.extxyz", overwrite=overwrite)
    where, path = pick_device(device), sampled_model(model, refine)
    loaded = load_model(path, device=where)
    name, targets = read_series(series, loaded)
    other = load_model(model_path(guide), device=where) if guide else None
    wish, _ = read_request(loaded, targets=[f"{name}={targets[0]:.12g}"], guide=other, extrapolate=True, **asked)
    measure = property_of(name)
    if measure is None:
        raise ValueError(f"{name!r} cannot be measured by amden: generate with `amden generate --target`")
    blank = _blank(loaded, len(targets), n, atoms, box_density(wish, density))
    wish = replace(wish, targets={name: torch.tensor(targets, dtype=torch.float64).repeat_interleave(n)})
    how, steps = read_refinement(refine, loaded), steps or default_steps(loaded, where, refine)
    wish.check(loaded, blank.n_atoms, refine=how)
    request = {
        "model": digest(path.read_bytes()),
        "seed": seed,
        "steps": steps,
        "asked": wish.facts(),
    }
    request |= {
        "refine": refine and refine.kind,
        "settings": how and to_dict(how),
        "device": where.type,
        "cells": digest(blank.cell.numpy(), blank.n_atoms.numpy()),
    }
    request |= {"guide": guide and digest(model_path(guide).read_bytes())}
    parts = Parts(out / "sweep.extxyz", request)
    err.print(f"{model} on {where}: {len(targets)} targets of {name}, {n} structures each, {steps} steps, seed {seed}")
    made = generate_shown(
        loaded,
        blank,
        request=wish,
        seed=seed,
        n_steps=steps,
        refine=how,
        device=where,
        batch_size=batch_size,
        parts=parts,
    )
    wanted = ["density", "rings", measure, *(["moduli-vrh"] if measure == "moduli" else [])]
    names = [each for i, each in enumerate(wanted) if each not in wanted[:i]]
    with err.status("relaxing and measuring"):
        found = at_rest(made, names, device=choose_device(where.type))
    found = replace(found, properties={**made.properties, **found.properties})
    write_structures(out / "sweep.extxyz", found, overwrite=overwrite)
    parts.remove()
    scale = loaded.denoiser.config.properties[name]
    low, high = np.quantile(scale.quantiles or (scale.mean - 2 * scale.std, scale.mean + 2 * scale.std), [0.05, 0.95])
    asked_for = wish.targets[name]
    assert isinstance(asked_for, torch.Tensor)
    sweeps = [
        Sweep(
            column,
            PROPERTY_UNITS.get(column, ""),
            asked_for.numpy(),
            found.properties[column].double().numpy(),
            (low, high),
        )
        for column in (name, name + CONVERGED)
        if column in found.properties
    ]
    for line in (*outcome(made, wish), *(line for sweep in sweeps for line in sweep.lines())):
        print(line)
    columns = {k: v.double().numpy() for k, v in found.properties.items() if v.ndim == 1}
    for written in write_sweep(sweeps, out, {"atoms": found.n_atoms.numpy(), **columns}):
        print(written)


def read_series(text: str, model: Model) -> tuple[str, list[float]]:
    """Name and values of targets such as `shear_modulus=20:42:12 GPa`: twelve from 20 to 42.

    Errors: `ValueError` for a text of another form, fewer than two targets, and as of `read_targets`.
    """
    match = _SERIES.match(text)
    try:
        ends = (float(match[2]), float(match[3])) if match else None
    except ValueError:
        ends = None
    if match is None or ends is None or int(match[4]) < 2:
        raise ValueError(f"`--target` of a sweep must look like 'shear_modulus=20:42:12 GPa', got {text!r}")
    name, known = match[1], model.denoiser.config.properties
    values = [
        read_targets([f"{name}={value:.12g} {match[5]}"], known, extrapolate=True).values[name]
        for value in np.linspace(*ends, int(match[4]))
    ]
    return name, values


def _blank(model: Model, n_targets: int, n: int, atoms: str, density: float | None) -> Blank:
    """For every target the same cells, their sizes evenly spread."""
    try:
        ends = [int(x) for x in atoms.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2) or min(ends) < 1:
        raise ValueError(f"`--atoms` must be a number or two as 350:500, got {atoms!r}")
    sizes = np.linspace(ends[0], ends[-1], n).round().astype(int).tolist()
    cells = [cubic_blank(model, 1, atoms=size, density=density) for size in sizes] * n_targets
    return Blank(torch.cat([each.cell for each in cells]), torch.cat([each.n_atoms for each in cells]))
