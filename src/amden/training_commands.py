"""What `amden train` does. See `commands` for the other verbs."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.progress import Progress as Bar
from rich.progress import TaskID

from amden.commands import err, pick_device, progress_bar
from amden.config import from_dict, load_config, to_yaml, with_overrides
from amden.dataset import describe, load_dataset, split
from amden.model import load_model
from amden.neighbors import check_cutoff, check_overlaps
from amden.pretrained import model_path
from amden.recipe import Recipe, score_config
from amden.structure import Structures, validate
from amden.training import Progress, check_folder, train


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
    plan = _recipe(recipe, overrides)
    source = str(data or plan.data)
    if not source:
        raise ValueError("no data: name it in the recipe (`data: …`) or by `--data`")
    folder = out or Path("runs") / (recipe.stem if recipe else Path(source).stem)
    if not dry_run:
        check_folder(folder, resume=resume, start=start is not None)
    fabric = _fabric(where, devices, dry_run=dry_run)
    plan = replace(plan, data=source)
    structures = load_dataset(source)
    _report_data(structures, source, plan)
    if dry_run:
        print(to_yaml(plan), end="")
        return
    parts = split(structures, validation=min(plan.training.validation, len(structures) // 5), seed=plan.training.seed)
    err.print(f"training on {devices} × {where}: {len(parts.training)} structures, {len(parts.validation)} set aside")
    with progress_bar("loss {task.fields[loss]:.4f}", "{task.fields[rate]:.0f} structures/s") as bar:
        task = bar.add_task("training", total=plan.training.steps, loss=float("nan"), rate=float("nan"))
        how: dict[str, Any] = {"resume": resume, "tensorboard": tensorboard, "compiled": where.type == "cuda"}
        how |= {"provenance": {"data": {"source": Path(source).name}, "name": folder.name}}
        how |= {"progress": _shown(bar, task), "on_signal": lambda: err.print("  stopping after this step")}
        try:
            train(
                plan,
                parts,
                folder,
                fabric=fabric,
                start=load_model(model_path(start)) if start else None,
                teacher=load_model(model_path(plan.training.teacher)) if plan.training.teacher else None,
                max_seconds=None if max_minutes is None else 60.0 * max_minutes,
                **how,
            )
        except torch.OutOfMemoryError:
            what = "lower `training.max_atoms`" if plan.training.max_atoms else "lower `training.batch_size`"
            raise MemoryError(f"the GPU has too little memory for a step: {what}") from None
    if fabric.is_global_zero:
        print(f"{folder}: model.safetensors, metrics.csv")


def _recipe(path: Path | None, overrides: list[str]) -> Recipe:
    if path is None:
        return from_dict(Recipe, with_overrides({}, overrides))
    return load_config(Recipe, path, overrides=overrides)


def _fabric(where: torch.device, devices: int, *, dry_run: bool) -> Fabric:
    """The devices, with a process for each; all but the first are silent."""
    cuda = where.type == "cuda"
    if cuda and devices > torch.cuda.device_count():
        raise ValueError(f"`--devices` {devices}: there are {torch.cuda.device_count()} GPUs here")
    if where.index is not None and devices > 1:
        raise ValueError(f"`--device {where}` is one device: leave out its number or `--devices`")
    if cuda:
        # beside bfloat16 only thin products of distances are left; at the length of a bond TF32 rounds these by
        # 0.0003 Å, a fiftieth of the least noise. Generation keeps float32.
        torch.set_float32_matmul_precision("high")
    chosen = devices if where.index is None or not cuda else [where.index]
    fabric = Fabric(accelerator=where.type, devices=chosen, precision="bf16-mixed" if cuda else "32-true")
    if not dry_run:
        fabric.launch()
        err.quiet = not fabric.is_global_zero
    return fabric


def _shown(bar: Bar, task: TaskID) -> Callable[[Progress], None]:
    """What tells the bar, and in lines what was validated; where there is no terminal, all."""
    began: list[tuple[float, int]] = []

    def show(now: Progress) -> None:
        began.append((time.monotonic(), now.step))
        bar.update(task, completed=now.step, loss=now.loss, rate=now.samples_per_second)
        if now.validation is not None or not err.is_terminal:
            elements = "" if now.elements is None else f" (elements {now.elements:.4f})"
            validation = "" if now.validation is None else f", validation {now.validation:.4f}"
            err.print(
                f"step {now.step}: loss {now.loss:.4f}{elements}{validation}, {now.samples_per_second:.0f} structures/s"
            )

    return show


def _report_data(structures: Structures, source: str, plan: Recipe) -> None:
    """Say what was found; stop at what cannot be trained on."""
    validate(structures, source=source)
    score_config(plan, structures)
    check_overlaps(structures, min_distance=0.5, source=source)
    check_cutoff(structures.select(range(min(len(structures), 500))), cutoff=plan.egnn.cutoff, source=source)
    found = describe(structures)
    for fact in found.facts:
        err.print(f"  {fact}")
    for warning in found.warnings:
        err.print(f"  [yellow]note:[/] {warning}")
    if len(structures) < 5 or not plan.training.validation:
        err.print("  [yellow]note:[/] no structures are set aside: nothing is validated")
    if plan.training.warmup >= plan.training.steps:
        err.print("  [yellow]note:[/] `training.warmup` is not shorter than `training.steps`: the rate never comes up")
