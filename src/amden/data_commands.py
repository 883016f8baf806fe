"""What the verbs that make and complete datasets do: simulate, merge, properties. See `commands` for the others."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from pathlib import Path
from typing import Any

from rich.markup import escape

from amden.commands import err, loaded_set, pick_device, progress_bar
from amden.compositions import counts_of
from amden.progress import Lines, campaign_bar
from amden.properties import PROPERTIES, add_properties, shard_files
from amden.properties import Progress as Measuring
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
    data: Path, names: list[str], *, potential: str | None, device: str, workers: int | None = None
) -> None:
    """Body of `amden properties`."""
    if not names:
        raise ValueError(f"nothing to compute: name at least one of {', '.join(f'--{name}' for name in PROPERTIES)}")
    where, files, gpus = _simulating(device), shard_files(data), visible_gpus()
    if workers is None:
        workers = len(gpus) if where == "cuda" and device in ("auto", "cuda") else 1
    workers = max(1, min(workers, len(files)))
    with warnings.catch_warnings(record=True) as said, progress_bar("structures", "{task.fields[what]}") as bar:
        task, lines = bar.add_task("measuring", total=None, what=""), Lines()

        def show(now: Measuring) -> None:
            bar.update(task, completed=now.done, total=now.total, what=now.what)
            lines.say(f"{now.done} of {now.total} structures {now.what}", float(now.done), now.total)

        how = {"potential": potential, "device": where}
        with batch_executor(workers=workers, gpus=gpus) as pool:
            if pool is None:
                unknown = add_properties(data, names, **how, progress=show)
            else:
                unknown = _measured_by(pool, files, names, how, show)
    for warning in said:
        err.print(f"  [yellow]note:[/] {escape(str(warning.message))}")
    for column, count in unknown.items():
        print(f"{data}: {column}{f', unknown in {count} structures' if count else ''}")


def _measured_by(
    pool: Executor, files: Sequence[Path], names: list[str], how: Mapping[str, Any], show: Callable[[Measuring], None]
) -> Mapping[str, int]:
    """`add_properties` for each file by itself, by the workers of a pool."""
    sizes = {file: len(load_shard(file).structures) for file in files}
    done, total, unknown = 0, sum(sizes.values()), Counter()
    show(Measuring(done, total, ""))
    waiting = {pool.submit(add_properties, file, names, **how): file for file in files}
    for future in as_completed(waiting):
        unknown.update(future.result())
        done += sizes[waiting[future]]
        show(Measuring(done, total, ""))
    return unknown


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
