"""The command line: one function a verb, which parses, calls and prints. Errors are one line and exit status 1."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amden import __version__

if TYPE_CHECKING:
    from amden.refinement import Asked

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
    "properties": "finished files are kept, the same command goes on",
    "merge": "merged files are kept, the same command goes on",
    "generate": "finished batches are kept, the same command goes on",
    "sweep": "finished batches are kept, the same command goes on",
    "design": "finished rounds are kept, the same command goes on",
    "train": "a checkpoint is kept, the same command with --resume goes on",
}
"""What is left of an interrupted verb; the others write at their end."""

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers; the same seed gives the same structures.", min=0)]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")]

Composition = Annotated[
    str | None,
    typer.Option(
        "--composition",
        "--formula",
        help="Exact elements: SiO2, 'Si:1 O:2', neutral, or free.  [default: neutral where charges are known]",
    ),
]
Weight = Annotated[float | None, typer.Option(help="Weight w of guidance by targets.  [default: 1]", min=0)]
Kind = Annotated[
    str | None, typer.Option(help="Unconditional noise: null, model (by --guide) or icg.  [default: null]")
]
Guide = Annotated[str | None, typer.Option(help="Unconditional model for guidance (name or path).")]
Extrapolate = Annotated[
    bool, typer.Option("--extrapolate", help="Allow targets outside the training data or at odds with each other.")
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Denoising steps.  [default: as the model's recipe says: 200, more with --hmc or --langevin on a GPU]",
        min=1,
    ),
]
Hmc = Annotated[
    bool, typer.Option("--hmc", help="Relax while denoising, by Hamiltonian Monte Carlo; needs an energy model.")
]
HmcSettings = Annotated[
    list[str] | None,
    typer.Option("--hmc-set", help="A setting of --hmc: t_max=0.4, n_verlet=30, step=0.2, acceptance=null …"),
]
Langevin = Annotated[
    bool, typer.Option("--langevin", help="Relax while denoising, by Langevin dynamics; any model will do.")
]
LangevinSettings = Annotated[
    list[str] | None,
    typer.Option("--langevin-set", help="A setting of --langevin: n_steps=90, t_max=0.2, step=0.4, friction=2 …"),
]
Requench = Annotated[
    str | None,
    typer.Option(
        metavar="PROTOCOL",
        help="Melt-quench the compositions anew by this protocol (meg-short, sio2 …) and measure them beside.",
    ),
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Standard denoising, also with a model that is relaxed by default.")
]
BatchSize = Annotated[int | None, typer.Option(help="Structures at a time.  [default: fits memory]", min=1)]


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"amden {__version__}")
        raise typer.Exit
    return wanted


def _refine(
    hmc: bool,
    hmc_set: list[str] | None,
    langevin: bool = False,
    langevin_set: list[str] | None = None,
    plain: bool = False,
) -> "Asked | None":
    """The refinement that these options ask for; None where it is left to the model."""
    from amden.refinement import Asked

    asked = [
        Asked(kind, tuple(settings or ()))
        for kind, wanted, settings in (
            ("hmc", hmc, hmc_set),
            ("langevin", langevin, langevin_set),
            ("none", plain, None),
        )
        if wanted or settings
    ]
    if len(asked) > 1:
        raise ValueError("choose one of --hmc, --langevin and --plain")
    return asked[0] if asked else None


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="Name of a shipped model, a checkpoint, or a run folder.")],
    out: Annotated[Path, typer.Option(help="Structure file to write; its ending names the format (.extxyz).")],
    n: Annotated[int | None, typer.Option(help="Number of structures.  [default: 1, or all of --like]")] = None,
    atoms: Annotated[int | None, typer.Option(help="Atoms in each structure.  [default: 256]")] = None,
    density: Annotated[float | None, typer.Option(help="Density in g/cm³.  [default: that of the training]")] = None,
    cell: Annotated[str | None, typer.Option(help="Cell in Å: 1, 3 or 9 numbers, e.g. '17,17,20'.")] = None,
    like: Annotated[Path | None, typer.Option(help="Take cells and sizes from this file.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Property asked for: 'shear_modulus=36 GPa'; again for another.")
    ] = None,
    composition: Composition = None,
    guidance: Weight = None,
    guidance_kind: Kind = None,
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

    sizes = {"n": n, "atoms": atoms, "density": density, "cell": cell, "like": like}
    options = {
        "seed": seed,
        "steps": steps,
        "refine": _refine(hmc, hmc_set, langevin, langevin_set, plain),
        "device": device,
        "batch_size": batch_size,
    }
    _check_guidance_kind(guidance_kind)
    asked = {"targets": target or [], "extrapolate": extrapolate, "composition": composition, "guide": guide}
    asked |= {"guidance": guidance, "kind": guidance_kind, "lean": lean, "restarts": restarts}
    run_generate(model, out, sizes=sizes, **options, **asked, trajectory=trajectory, overwrite=overwrite)


@app.command()
def design(
    model: Annotated[
        str, typer.Argument(help="A conditional model: name of a shipped one, checkpoint, or run folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for structures, tables and page; an interrupted design goes on.")],
    target: Annotated[list[str], typer.Option(help="What a property is to be: 'shear_modulus=36 GPa'. Repeatable.")],
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="What may be off: 2, or 'shear_modulus=2 GPa'.  [default: σ/4 of the training data]"),
    ] = None,
    n: Annotated[int, typer.Option(help="Structures wanted.", min=1)] = 10,
    atoms: Annotated[int, typer.Option(help="Atoms in each structure, about.", min=1)] = 256,
    density: Annotated[float | None, typer.Option(help="Density in g/cm³.  [default: that of the training]")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds at most.", min=1)] = 10,
    per_round: Annotated[int | None, typer.Option(help="Structures a round.  [default: N]", min=1)] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Begin no further round after so long.")] = None,
    training: Annotated[
        Path | None, typer.Option("--train", help="What the model was trained on: tell how new the structures are.")
    ] = None,
    extrapolate: Extrapolate = False,
    guidance: Weight = None,
    guidance_kind: Kind = None,
    guide: Guide = None,
    composition: Composition = None,
    seed: Seed = 0,
    steps: Steps = None,
    hmc: Hmc = False,
    hmc_set: HmcSettings = None,
    langevin: Langevin = False,
    langevin_set: LangevinSettings = None,
    plain: Plain = False,
    device: Device = "auto",
    requench: Requench = None,
    overwrite: Overwrite = False,
) -> None:
    """Design structures: generate, relax and measure in rounds until enough of them meet the targets."""
    from amden.design_commands import Budget, run_design

    _check_guidance_kind(guidance_kind)
    budget = Budget(n, rounds, per_round or n, max_minutes)
    asked = {"extrapolate": extrapolate, "composition": composition, "guide": guide}
    asked |= {"guidance": guidance, "kind": guidance_kind}
    how = {
        "seed": seed,
        "steps": steps,
        "refine": _refine(hmc, hmc_set, langevin, langevin_set, plain),
        "device": device,
        "overwrite": overwrite,
        "requench": requench,
    }
    sizes = {"atoms": atoms, "density": density, "training": training}
    run_design(model, out, targets=target, tolerance=tolerance or [], budget=budget, **sizes, **how, **asked)


@app.command()
def sweep(
    model: Annotated[
        str, typer.Argument(help="A conditional model: name of a shipped one, checkpoint, or run folder.")
    ],
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
        str, typer.Option(help="Atoms in each structure, about: 400, or from one to another: 350:500.")
    ] = "256",
    density: Annotated[float | None, typer.Option(help="Density in g/cm³.  [default: that of the training]")] = None,
    guidance: Weight = None,
    guidance_kind: Kind = None,
    guide: Guide = None,
    composition: Composition = None,
    seed: Seed = 0,
    steps: Steps = None,
    hmc: Hmc = False,
    hmc_set: HmcSettings = None,
    langevin: Langevin = False,
    langevin_set: LangevinSettings = None,
    plain: Plain = False,
    device: Device = "auto",
    batch_size: BatchSize = None,
    requench: Requench = None,
    beside: Annotated[
        list[str] | None, typer.Option(help="Draw an earlier sweep too: its folder, or LABEL=FOLDER. Repeatable.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask for a series of targets and show how far the structures follow (fig. 4 of the paper)."""
    from amden.sweep_commands import run_sweep

    _check_guidance_kind(guidance_kind)
    asked = {"composition": composition, "guide": guide, "guidance": guidance, "kind": guidance_kind}
    how = {
        "seed": seed,
        "steps": steps,
        "refine": _refine(hmc, hmc_set, langevin, langevin_set, plain),
        "device": device,
        "batch_size": batch_size,
    }
    further = {"requench": requench, "beside": beside or []}
    run_sweep(
        model, out, targets=target, n=n, atoms=atoms, density=density, overwrite=overwrite, **further, **how, **asked
    )


def _check_guidance_kind(kind: str | None) -> None:
    if kind not in (None, "null", "model", "icg"):
        raise ValueError(f"`--guidance-kind` must be null, model or icg, got {kind!r}")


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe in YAML.  [default: every option's default]")] = None,
    data: Annotated[Path | None, typer.Option(help="Dataset folder or structure file, not the recipe's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  [default: runs/NAME]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: training.steps=1000.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    start: Annotated[str | None, typer.Option(help="Begin with the weights of this model (name or path).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print recipe and data, and stop.")] = False,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Number of devices to train on.", min=1)] = 1,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after so long, with a checkpoint.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs too.")] = False,
) -> None:
    """Train a model on a dataset or on any structure file."""
    from amden.commands import run_train

    where = {"device": device, "devices": devices, "max_minutes": max_minutes, "tensorboard": tensorboard}
    run_train(recipe, data=data, out=out, overrides=set_ or [], resume=resume, start=start, dry_run=dry_run, **where)


@app.command()
def simulate(
    protocol: Annotated[
        str, typer.Argument(help="Name of a protocol: si-melt, si-quench, si-anneal, sio2, meg, meg-short.")
    ],
    n: Annotated[int, typer.Option(help="Number of cells.", min=1)],
    out: Annotated[Path, typer.Option(help="Dataset folder; an interrupted run in it goes on.")],
    seed: Seed = 0,
    shard: Annotated[str, typer.Option(help="Run part i of M only, as i/M; all may write into one folder.")] = "1/1",
    composition: Annotated[
        list[str] | None,
        typer.Option(
            help="Of meg: 'Li2O:15 SiO2:60 Al2O3:25' in moles, or 'Si:1 O:2' in atoms; again for the next cell."
        ),
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Of meg: take the compositions of the structures of this file, cell by cell.")
    ] = None,
    atoms: Annotated[int | None, typer.Option(help="Atoms in each cell.  [default: the protocol's]", min=1)] = None,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="amden, or lammps where it is installed.")] = "amden",
    calculator: Annotated[
        str | None, typer.Option(help="Use the ASE calculator that module:function returns instead.")
    ] = None,
    deck: Annotated[bool, typer.Option("--deck", help="Only write LAMMPS input, a folder a cell.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Cells at a time.  [default: fills the device]", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Batches in so many processes.", min=1)] = None,
    dask: Annotated[str | None, typer.Option(help="Address of a dask scheduler that gets the batches.")] = None,
) -> None:
    """Simulate melts, quenches and glasses into a dataset."""
    from amden.data_commands import run_deck, run_simulate

    what = {"n": n, "out": out, "seed": seed, "shard": shard}
    what |= {"compositions": composition or [], "like": like, "atoms": atoms}
    if deck:
        run_deck(protocol, **what)
        return
    how = {"device": device, "engine": engine, "calculator": calculator, "batch_size": batch_size}
    run_simulate(protocol, **what, **how, workers=workers, dask=dask)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of one campaign: same protocol and seed.")],
    out: Annotated[Path, typer.Option(help="Folder to bring their cells together in.")],
) -> None:
    """Merge the parts of a campaign that were simulated into several folders."""
    from amden.data_commands import run_merge

    run_merge(folders, out=out)


@app.command()
def properties(
    data: Annotated[Path, typer.Argument(help="Dataset folder, or one of its files.")],
    density: Annotated[bool, typer.Option("--density", help="density, g/cm³.")] = False,
    rings: Annotated[bool, typer.Option("--rings", help="mean_ring_size as in the paper.")] = False,
    fractions: Annotated[
        bool, typer.Option("--fractions", help="li_fraction and those of other elements, among the atoms.")
    ] = False,
    moduli: Annotated[bool, typer.Option("--moduli", help="shear_, youngs_ and bulk_modulus as in the paper.")] = False,
    moduli_vrh: Annotated[
        bool, typer.Option("--moduli-vrh", help="The same by Voigt, Reuss and Hill, converged: shear_modulus_vrh …")
    ] = False,
    potential: Annotated[
        str | None, typer.Option(help="For moduli.  [default: that of the simulation, or one for the elements]")
    ] = None,
    device: Device = "auto",
) -> None:
    """Add properties to the structures of a dataset, for training and for looking at."""
    from amden.data_commands import run_properties

    chosen = {"density": density, "rings": rings, "fractions": fractions, "moduli": moduli, "moduli-vrh": moduli_vrh}
    run_properties(data, [name for name, wanted in chosen.items() if wanted], potential=potential, device=device)


@app.command()
def analyze(
    structures: Annotated[Path, typer.Argument(help="Structure file or dataset.")],
    reference: Annotated[Path | None, typer.Option(help="What to compare with.")] = None,
    train: Annotated[Path | None, typer.Option(help="What the model was trained on: look for near copies.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report and figures.  [default: NAME-analysis]")] = None,
    relax: Annotated[bool, typer.Option("--relax", help="Also compare after variable-cell relaxation.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Show what structures are like, compared with others and their noise floor: index.html, figures, numbers."""
    from amden.commands import run_analyze

    run_analyze(structures, reference=reference, training=train, out=out, relax=relax, overwrite=overwrite)


@app.command()
def energies(
    model: Annotated[str, typer.Argument(help="An energy model: name, checkpoint, or run folder.")],
    reference: Annotated[Path, typer.Option(help="Structures of the kind the model was trained on.")],
    n: Annotated[int, typer.Option(help="Structures to follow.", min=2)] = 10,
    steps: Annotated[int | None, typer.Option(help="Denoising steps with --hmc.  [default: 2000]", min=1)] = None,
    hmc: Annotated[bool, typer.Option("--hmc", help="Also with Hamiltonian Monte Carlo.")] = False,
    hmc_set: HmcSettings = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figure and table.  [default: MODEL-energies]")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Follow the noise energy along forward noising and denoising (fig. 3e of the paper)."""
    from amden.generation_commands import run_energies

    options = {"seed": seed, "device": device, "batch_size": batch_size, "out": out, "overwrite": overwrite}
    run_energies(model, reference, n=n, steps=steps, hmc=_refine(hmc, hmc_set), **options)


@app.command()
def figure(
    recipe: Annotated[Path, typer.Argument(help="What is compared, in YAML, as recipes/figures/fig3.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Folder for figure and tables.  [default: beside RECIPE]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: at_most=100.")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Draw glasses side by side, sets that are missing made first (fig. 3a-d of the paper)."""
    from amden.figure_commands import run_figure

    run_figure(recipe, out=out, overrides=set_ or [], device=device, overwrite=overwrite, call=main)


@app.command()
def models(
    model: Annotated[
        str | None, typer.Argument(help="Tell more of this one: a name, a checkpoint, a run folder.")
    ] = None,
) -> None:
    """List the shipped models, or tell what one knows: elements, conditions and their ranges."""
    from amden.commands import run_models

    run_models(model)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: an error of the user's is one line on stderr and status 1; `--debug` shows where it came from."""
    # Threads that spin while they wait make a busy machine many times slower. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="amden")
    except SystemExit as done:
        if done.code == INTERRUPTED:
            verb = next((word for word in given if word in KEPT), "")
            print(f"amden: interrupted; {KEPT.get(verb, 'nothing was written')}", file=sys.stderr)
        if done.code:
            raise
    except (ValueError, TypeError, OSError, MemoryError) as error:
        if "--debug" in given:
            traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"amden: error: {text}", file=sys.stderr)
        sys.exit(1)
