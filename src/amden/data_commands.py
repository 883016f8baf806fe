"""What the verbs that make and complete datasets do: simulate, merge, properties. See `commands` for the others."""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from math import floor, log10
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from amden.commands import err, loaded_set, pick_device
from amden.compositions import counts_of
from amden.dataset import SUFFIX
from amden.io import WITH_PROPERTIES, check_structure_file, read_structures, write_structures
from amden.progress import campaign_bar, measuring_bar
from amden.properties import PROPERTIES, property_of, with_properties
from amden.properties import Progress as Measuring
from amden.property_columns import add_properties, shard_files, stored
from amden.random import spawn_seeds
from amden.shard import load_shard
from amden.simulate.ase_engine import CalculatorEngine, load_calculator
from amden.simulate.campaign import cells_of_part, run_campaign
from amden.simulate.catalogue import find_protocol, with_glasses
from amden.simulate.engines import BuiltIn, CampaignEngine, choose_device
from amden.simulate.folder import merge_campaigns
from amden.simulate.lammps import LammpsEngine, load_lammps
from amden.simulate.lammps_input import lammps_deck
from amden.simulate.oxides import parse_composition
from amden.simulate.protocol import Protocol
from amden.simulate.runs import Device, random_start
from amden.workers import batch_executor, visible_gpus


def run_simulate(
    protocol: str,
    *,
    n: int,
    out: Path,
    seed: int,
    shard: str,
    compositions: Sequence[str] = (),
    like: Path | None = None,
    atoms: int | None = None,
    device: str,
    engine: str,
    calculator: str | None,
    batch_size: int | None,
    workers: int | None,
    dask: str | None,
) -> None:
    """Body of `amden simulate`."""
    chosen, part = _protocol(protocol, compositions, like, atoms), _part(shard)
    runner = _engine(engine, calculator, device)
    cells, gpus = cells_of_part(n, part), visible_gpus()
    if workers is not None and dask is not None:
        raise ValueError("`--workers` and `--dask` exclude each other: dask brings its own workers")
    if workers is None:
        every_gpu = dask is None and device in ("auto", "cuda") and runner == BuiltIn("cuda")
        workers = max(1, min(len(gpus), len(cells))) if every_gpu else 1
    err.print(
        f"{protocol} by {_where(runner, workers, gpus)}: {len(cells)} cells of {chosen.size} atoms, "
        f"{'about ' if chosen.adapts else ''}{chosen.duration:g} ps each, seed {seed}"
    )
    with batch_executor(workers=workers, dask=dask, gpus=gpus) as executor, campaign_bar(chosen, len(cells)) as show:
        done = run_campaign(
            chosen,
            n=n,
            seed=seed,
            out=out,
            engine=runner,
            part=part,
            batch_size=batch_size,
            executor=executor,
            workers=workers,
            progress=show,
        )
    for index, reason in done.failures.items():
        err.print(f"  cell {index} set aside: {reason}")
    print(f"{out}: {done.n - len(done.failures)} structures, {len(done.failures)} set aside")


def run_deck(
    protocol: str,
    *,
    n: int,
    out: Path,
    seed: int,
    shard: str,
    compositions: Sequence[str] = (),
    like: Path | None = None,
    atoms: int | None = None,
) -> None:
    """Body of `amden simulate --deck`."""
    chosen = _protocol(protocol, compositions, like, atoms)
    chosen.plain_stages("LAMMPS")
    cells = cells_of_part(n, _part(shard))
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out} exists and is not empty")
    for index in cells:
        start = random_start(chosen, spawn_seeds(seed, 1, first=index).tolist(), [index])
        lammps_deck(chosen, start).write(out / f"cell-{index:07d}")
    print(f"{out}: LAMMPS input of {len(cells)} cells; in each folder, lmp -in in.lammps writes final.data")


def run_merge(sources: list[Path], *, out: Path) -> None:
    """Body of `amden merge`."""
    merged = merge_campaigns(sources, out)
    n, failures = merged.asked_for(), merged.failures()
    held = sum(map(len, merged.shards()))
    if held < n:
        gaps = ", ".join(f"{gap.start} to {gap.stop}" for gap in merged.missing(range(n), n))
        err.print(f"  [yellow]note:[/] cells {gaps} are missing")
    print(f"{out}: {held - len(failures)} structures, {len(failures)} set aside")


def run_properties(
    data: Path,
    names: list[str],
    *,
    potential: str | None,
    device: str,
    workers: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Body of `amden properties`."""
    if not names:
        raise ValueError(f"nothing to compute: name at least one of {', '.join(f'--{name}' for name in PROPERTIES)}")
    if data.is_file() and data.suffix != SUFFIX:
        _measure_file(data, names, potential=potential, device=device, out=out, overwrite=overwrite)
        return
    if out is not None:
        raise ValueError(f"`--out` is for structure files: properties are added to the dataset {data} itself")
    where, files, gpus = _simulating(device), shard_files(data), visible_gpus()
    if workers is None:
        workers = len(gpus) if where == "cuda" and device in ("auto", "cuda") else 1
    workers = max(1, min(workers, len(files)))
    how = {"potential": potential, "device": where}
    with measuring_bar() as show, batch_executor(workers=workers, gpus=gpus) as pool:
        if pool is None:
            add_properties(data, names, **how, progress=show)
        else:
            _measured_by(pool, files, names, how, show)
    _tell_columns(data, stored(files, names))


def _measure_file(
    data: Path, names: list[str], *, potential: str | None, device: str, out: Path | None, overwrite: bool
) -> None:
    """The structures of a file with their properties into another."""
    if out is None:
        wanted = data.with_name(f"{data.stem}-properties.extxyz")
        raise ValueError(f"{data} is a structure file: name one for the structures with properties, --out {wanted}")
    where, structures = _simulating(device), read_structures(data)
    form = check_structure_file(out, len(structures), overwrite=overwrite)
    with measuring_bar() as show:
        found = with_properties(structures, names, potential=potential, device=where, progress=show)
    write_structures(out, found, overwrite=overwrite)
    if form not in WITH_PROPERTIES:
        err.print(f"  [yellow]note:[/] {form} files have no place for properties, they are only told; use .extxyz")
    _tell_columns(out, {c: found.properties[c] for name in names for c in PROPERTIES[name].columns})


def _tell_columns(path: Path, columns: Mapping[str, Tensor]) -> None:
    """A line a column; of fractions only those of elements that occur."""
    n = len(next(iter(columns.values())))
    print(f"{path}: {n} structure{'' if n == 1 else 's'}")
    for column, values in columns.items():
        if property_of(column) != "fractions" or not (values == 0.0).all():
            print(f"  {column} {_summary(values, PROPERTIES[property_of(column) or ''].unit)}")


def _summary(values: Float[Tensor, " systems"], unit: str = "") -> str:
    """Mean and standard deviation of the known values, to two digits of the latter, for people.

    >>> import torch
    >>> _summary(torch.tensor([2.1, 2.3, 2.5, torch.nan]), "g/cm³")
    '2.30 ± 0.20 g/cm³ (mean ± standard deviation of 3), unknown in 1'
    >>> _summary(torch.tensor([2.345678]), "g/cm³"), _summary(torch.tensor([torch.nan]))
    ('2.346 g/cm³', 'unknown in 1')
    """
    known = values[~values.isnan()].double()
    told = []
    if len(known):
        mean, spread = float(known.mean()), float(known.std()) if len(known) > 1 else 0.0
        several, number = f" (mean ± standard deviation of {len(known)})", f"{mean:.4g}"
        if spread > 1e-6 * abs(mean):
            digits = max(0, 1 - floor(log10(spread)))
            number = f"{mean:.{digits}f} ± {spread:.{digits}f}"
        elif len(known) > 1:
            number += " ± 0"
        told = [f"{number}{f' {unit}' if unit else ''}{several if len(known) > 1 else ''}"]
    lost = [f"unknown in {len(values) - len(known)}"] if len(known) < len(values) else []
    return ", ".join(told + lost)


def _measured_by(
    pool: Executor, files: Sequence[Path], names: list[str], how: Mapping[str, Any], show: Callable[[Measuring], None]
) -> None:
    """`add_properties` for each file by itself, by the workers of a pool."""
    sizes = {file: len(load_shard(file).structures) for file in files}
    done, total = 0, sum(sizes.values())
    show(Measuring(done, total, ""))
    waiting = {pool.submit(add_properties, file, names, **how): file for file in files}
    for future in as_completed(waiting):
        future.result()
        done += sizes[waiting[future]]
        show(Measuring(done, total, ""))


def _protocol(name: str, compositions: Sequence[str], like: Path | None, atoms: int | None) -> Protocol:
    """The protocol of that name, with what is asked for in the place of its own."""
    if compositions and like is not None:
        raise ValueError("`--composition` and `--like` exclude each other")
    found = find_protocol(name)
    wanted = [parse_composition(text, known=found.interaction.symbols) for text in compositions]
    if like is not None:
        wanted = _compositions_of(like)
    return with_glasses(found, compositions=wanted, n_atoms=atoms)


def _compositions_of(path: Path) -> list[dict[str, float]]:
    """Atoms of each element in the structures of a file."""
    return [{name: float(n) for name, n in counts.items()} for counts in counts_of(loaded_set(path))]


def _where(runner: CampaignEngine, workers: int, gpus: Sequence[str]) -> str:
    """Engine, device and workers, for people."""
    place = f"{runner.name} on {runner.device}" if isinstance(runner, BuiltIn) else runner.name
    if workers > 1:
        place += f", {workers} workers"
        place += f" on GPU {', '.join(gpus[:workers])}" if gpus else ""
    return place


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"`--shard` must be i/M with 1 ≤ i ≤ M, such as 1/4, got {text!r}")
    return int(found[1]), int(found[2])


def _engine(name: str, calculator: str | None, device: str) -> CampaignEngine:
    """The engine that was asked for, once it proved to be there."""
    if name not in ("amden", "lammps"):
        raise ValueError(f"unknown engine {name!r}: expected amden or lammps")
    if name == "lammps":
        if calculator is not None:
            raise ValueError("`--calculator` and `--engine lammps` exclude each other")
        load_lammps()()
        return LammpsEngine()
    if calculator is not None:
        load_calculator(calculator)
        return CalculatorEngine(calculator)
    return BuiltIn(_simulating(device))


def _simulating(device: str) -> Device:
    """Where the engine is to run, which takes the first GPU that it sees."""
    where = pick_device(device)
    if where.index:
        way = f"CUDA_VISIBLE_DEVICES={where.index} amden …"
        raise ValueError(f"`--device {device}`: simulations take the first GPU they see, here {way}")
    return choose_device("auto" if device == "auto" else where.type)
