"""Verbs of structures: they simulate, measure and compare them."""

from pathlib import Path
from typing import Annotated

import typer

from amden.cli.options import Device, Overwrite, Seed


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
    atoms: Annotated[int | None, typer.Option(help="Atoms in each cell.  \\[default: the protocol's]", min=1)] = None,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="amden, or lammps where it is installed.")] = "amden",
    calculator: Annotated[
        str | None, typer.Option(help="Use the ASE calculator that module:function returns instead.")
    ] = None,
    deck: Annotated[bool, typer.Option("--deck", help="Only write LAMMPS input, a folder a cell.")] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Cells at a time.  \\[default: fills the device]", min=1)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Batches in so many processes, which take the GPUs in turn.  \\[default: one a GPU]", min=1),
    ] = None,
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


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of one campaign: same protocol and seed.")],
    out: Annotated[Path, typer.Option(help="Folder to bring their cells together in.")],
) -> None:
    """Merge the parts of a campaign that were simulated into several folders."""
    from amden.data_commands import run_merge

    run_merge(folders, out=out)


def properties(
    data: Annotated[Path, typer.Argument(help="Dataset folder, one of its files, or any structure file.")],
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
        str | None, typer.Option(help="For moduli.  \\[default: that of the simulation, or one for the elements]")
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(help="Files in so many processes, which take the GPUs in turn.  \\[default: one a GPU]", min=1),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Of a structure file: where its structures go with their properties.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Add properties to structures, for training and for looking at: to a dataset where it is, to a file as another."""
    from amden.data_commands import run_properties

    chosen = {"density": density, "rings": rings, "fractions": fractions, "moduli": moduli, "moduli-vrh": moduli_vrh}
    names = [name for name, wanted in chosen.items() if wanted]
    how = {"potential": potential, "device": device}
    run_properties(data, names, **how, workers=workers, out=out, overwrite=overwrite)


def analyze(
    structures: Annotated[Path, typer.Argument(help="Structure file or dataset.")],
    reference: Annotated[Path | None, typer.Option(help="What to compare with.")] = None,
    train: Annotated[Path | None, typer.Option(help="What the model was trained on: look for near copies.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report and figures.  \\[default: NAME-analysis]")] = None,
    relax: Annotated[bool, typer.Option("--relax", help="Also compare after variable-cell relaxation.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Show what structures are like, compared with others and their noise floor: index.html, figures, numbers."""
    from amden.analysis_commands import run_analyze

    run_analyze(structures, reference=reference, training=train, out=out, relax=relax, overwrite=overwrite)
