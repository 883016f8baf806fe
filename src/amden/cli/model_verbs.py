"""Verbs of models: they train one, sample it, or tell of it."""

from pathlib import Path
from typing import Annotated

import typer

from amden.cli.options import (
    BatchSize,
    Cell,
    Composition,
    Conditional,
    Density,
    Device,
    Extrapolate,
    GuidanceAbove,
    Guide,
    Hmc,
    HmcEnergy,
    HmcSettings,
    Kind,
    Langevin,
    LangevinSettings,
    Overwrite,
    Plain,
    Requench,
    Seed,
    Steps,
    Weight,
    check_guidance_kind,
    refinement,
)


def generate(
    model: Annotated[str, typer.Argument(help="Name of a shipped model, a checkpoint, or a run folder.")],
    out: Annotated[Path, typer.Option(help="Structure file to write; its ending names the format (.extxyz).")],
    n: Annotated[
        int | None, typer.Option(help="Number of structures.  \\[default: 1, or all of --like]", min=1)
    ] = None,
    atoms: Annotated[
        str | None,
        typer.Option(help="Atoms in each structure, or from few to many: 80:250.  \\[default: 256]"),
    ] = None,
    density: Density = None,
    cell: Cell = None,
    like: Annotated[Path | None, typer.Option(help="Take cells and sizes from this file.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Property asked for: 'shear_modulus=36 GPa'; again for another.")
    ] = None,
    composition: Composition = None,
    guidance: Weight = None,
    guidance_kind: Kind = None,
    guidance_above: GuidanceAbove = None,
    guide: Guide = None,
    extrapolate: Extrapolate = False,
    lean: Annotated[
        float,
        typer.Option(help="Lean towards the composition below this time t, before it is made exact.", min=0, max=1),
    ] = 0.0,
    restarts: Annotated[
        int, typer.Option(help="Denoise unbalanced structures again from t = 0.4, up to so many times.", min=0)
    ] = 0,
    seed: Seed = 0,
    steps: Steps = None,
    hmc: Hmc = False,
    hmc_set: HmcSettings = None,
    hmc_energy: HmcEnergy = None,
    langevin: Langevin = False,
    langevin_set: LangevinSettings = None,
    plain: Plain = False,
    device: Device = "auto",
    batch_size: BatchSize = None,
    trajectory: Annotated[
        Path | None, typer.Option(help="Write the denoising of the first structure, a frame a step.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Generate structures with a trained model."""
    from amden.generation_commands import run_generate
    from amden.sampling_commands import SamplingOptions

    sizes = {"n": n, "atoms": atoms, "density": density, "cell": cell, "like": like}
    relax = refinement(hmc, hmc_set, langevin, langevin_set, plain)
    models = {"model": model, "guide": guide, "energy": hmc_energy}
    how = SamplingOptions(**models, seed=seed, steps=steps, refine=relax, device=device)
    check_guidance_kind(guidance_kind)
    asked = {"targets": target or [], "extrapolate": extrapolate, "composition": composition}
    asked |= {"guidance": guidance, "kind": guidance_kind, "above": guidance_above, "lean": lean, "restarts": restarts}
    written = {"batch_size": batch_size, "trajectory": trajectory, "overwrite": overwrite}
    run_generate(how, out, sizes=sizes, **written, **asked)


def design(
    model: Conditional,
    out: Annotated[Path, typer.Option(help="Folder for structures, tables and page; an interrupted design goes on.")],
    target: Annotated[list[str], typer.Option(help="What a property is to be: 'shear_modulus=36 GPa'. Repeatable.")],
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="What may be off: 2, or 'shear_modulus=2 GPa'.  \\[default: σ/4 of the training data]"),
    ] = None,
    n: Annotated[int, typer.Option(help="Structures wanted.", min=1)] = 10,
    atoms: Annotated[int | None, typer.Option(help="Atoms in each structure, about.  \\[default: 256]", min=1)] = None,
    density: Density = None,
    cell: Cell = None,
    rounds: Annotated[int, typer.Option(help="Rounds at most.", min=1)] = 10,
    per_round: Annotated[int | None, typer.Option(help="Structures a round.  \\[default: N]", min=1)] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Begin no further round after so long.")] = None,
    training: Annotated[
        Path | None, typer.Option("--train", help="What the model was trained on: tell how new the structures are.")
    ] = None,
    extrapolate: Extrapolate = False,
    guidance: Weight = None,
    guidance_kind: Kind = None,
    guidance_above: GuidanceAbove = None,
    guide: Guide = None,
    composition: Composition = None,
    seed: Seed = 0,
    steps: Steps = None,
    hmc: Hmc = False,
    hmc_set: HmcSettings = None,
    hmc_energy: HmcEnergy = None,
    langevin: Langevin = False,
    langevin_set: LangevinSettings = None,
    plain: Plain = False,
    device: Device = "auto",
    requench: Requench = None,
    overwrite: Overwrite = False,
) -> None:
    """Design structures: generate, relax and measure in rounds until enough of them meet the targets."""
    from amden.design_commands import Budget, run_design
    from amden.sampling_commands import SamplingOptions

    check_guidance_kind(guidance_kind)
    budget = Budget(n, rounds, per_round or n, max_minutes)
    asked = {"extrapolate": extrapolate, "composition": composition, "guidance": guidance, "kind": guidance_kind}
    asked |= {"above": guidance_above}
    relax = refinement(hmc, hmc_set, langevin, langevin_set, plain)
    models = {"model": model, "guide": guide, "energy": hmc_energy}
    how = SamplingOptions(**models, seed=seed, steps=steps, refine=relax, device=device)
    sizes = {"atoms": atoms, "density": density, "cell": cell, "training": training}
    asked |= {"targets": target, "tolerance": tolerance or []}
    run_design(how, out, budget=budget, requench=requench, overwrite=overwrite, **sizes, **asked)


def sweep(
    model: Conditional,
    out: Annotated[Path, typer.Option(help="Folder for structures, tables and figure; an interrupted sweep goes on.")],
    target: Annotated[
        list[str],
        typer.Option(
            help="Targets from one to another: 'shear_modulus=20:42:12 GPa' are twelve; again for what is held: "
            "'li_fraction=0.15'."
        ),
    ],
    n: Annotated[int, typer.Option(help="Structures for each target.", min=1)] = 20,
    atoms: Annotated[
        str | None,
        typer.Option(help="Atoms in each structure, about: 400, or from one to another: 350:500.  \\[default: 256]"),
    ] = None,
    density: Density = None,
    cell: Cell = None,
    guidance: Weight = None,
    guidance_kind: Kind = None,
    guidance_above: GuidanceAbove = None,
    guide: Guide = None,
    composition: Composition = None,
    seed: Seed = 0,
    steps: Steps = None,
    hmc: Hmc = False,
    hmc_set: HmcSettings = None,
    hmc_energy: HmcEnergy = None,
    langevin: Langevin = False,
    langevin_set: LangevinSettings = None,
    plain: Plain = False,
    device: Device = "auto",
    batch_size: BatchSize = None,
    requench: Requench = None,
    converged: Annotated[
        bool, typer.Option(help="Measure moduli in the converged convention too, which costs more than all else.")
    ] = True,
    beside: Annotated[
        list[str] | None, typer.Option(help="Draw an earlier sweep too: its folder, or LABEL=FOLDER. Repeatable.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask for a series of targets and show how far the structures follow (fig. 4 of the paper)."""
    from amden.sampling_commands import SamplingOptions
    from amden.sweep_commands import run_sweep

    check_guidance_kind(guidance_kind)
    relax = refinement(hmc, hmc_set, langevin, langevin_set, plain)
    models = {"model": model, "guide": guide, "energy": hmc_energy}
    how = SamplingOptions(**models, seed=seed, steps=steps, refine=relax, device=device)
    asked = {"targets": target, "composition": composition, "guidance": guidance, "kind": guidance_kind}
    asked |= {"above": guidance_above}
    sizes = {"n": n, "atoms": atoms, "density": density, "cell": cell, "batch_size": batch_size}
    run_sweep(
        how, out, requench=requench, converged=converged, beside=beside or [], overwrite=overwrite, **sizes, **asked
    )


def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe in YAML.  \\[default: every option's default]")] = None,
    data: Annotated[Path | None, typer.Option(help="Dataset folder or structure file, not the recipe's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  \\[default: runs/NAME]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: training.steps=1000.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    start: Annotated[str | None, typer.Option(help="Begin with the weights of this model (name or path).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print recipe and data, and stop.")] = False,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Number of devices to train on.", min=1)] = 1,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after so long, with a checkpoint.", min=0)] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs too.")] = False,
) -> None:
    """Train a model on a dataset or on any structure file."""
    from amden.training_commands import run_train

    where = {"device": device, "devices": devices, "max_minutes": max_minutes, "tensorboard": tensorboard}
    run_train(recipe, data=data, out=out, overrides=set_ or [], resume=resume, start=start, dry_run=dry_run, **where)


def energies(
    model: Annotated[str, typer.Argument(help="An energy model: name, checkpoint, or run folder.")],
    reference: Annotated[Path, typer.Option(help="Structures of the kind the model was trained on.")],
    n: Annotated[int, typer.Option(help="Structures to follow.", min=2)] = 10,
    steps: Annotated[int | None, typer.Option(help="Denoising steps with --hmc.  \\[default: 2000]", min=1)] = None,
    hmc: Annotated[bool, typer.Option("--hmc", help="Also with Hamiltonian Monte Carlo.")] = False,
    hmc_set: HmcSettings = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figure and table.  \\[default: MODEL-energies]")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Follow the noise energy along forward noising and denoising (fig. 3e of the paper)."""
    from amden.generation_commands import run_energies

    options = {"seed": seed, "device": device, "batch_size": batch_size, "out": out, "overwrite": overwrite}
    run_energies(model, reference, n=n, steps=steps, hmc=refinement(hmc, hmc_set), **options)


def models(
    model: Annotated[
        str | None, typer.Argument(help="Tell more of this one: a name, a checkpoint, a run folder.")
    ] = None,
) -> None:
    """List the shipped models, or tell what one knows: elements, conditions and their ranges."""
    from amden.catalogue_commands import run_models

    run_models(model)
