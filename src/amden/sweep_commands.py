"""What `amden sweep` does: structures for a series of targets, relaxed and measured, drawn over what was asked for."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amden.analysis.parity import REQUENCHED
from amden.blank import Blank
from amden.commands import err
from amden.compositions import oxide_column
from amden.io import check_output, read_origin, read_structures, write_origin, write_structures
from amden.measuring import kept_at_rest, measurable
from amden.model import Model
from amden.parts import Parts
from amden.progress import measuring_bar
from amden.properties import PROPERTIES, property_of
from amden.refinement import name_of
from amden.report.sweep import CONVERGED, Held, Sweep, read_sweep, write_sweep
from amden.requench_commands import FAILURE, measured_by, read_requench, requenched
from amden.request import Request
from amden.sampling_commands import SamplingOptions, generate_shown, read_cells, read_sampling, told_origin
from amden.simulate.engines import choose_device
from amden.structure import Structures
from amden.targets import PROPERTY_UNITS, composition_notes, outcome, read_request, read_targets

_SERIES = re.compile(r"^\s*(\S+?)\s*=\s*(\S+?):(\S+?):(\d+)\s*(\S*)\s*$")


def run_sweep(
    how: SamplingOptions,
    out: Path,
    *,
    targets: Sequence[str],
    n: int,
    atoms: str | None,
    density: float | None,
    cell: str | None,
    batch_size: int | None,
    overwrite: bool,
    requench: str | None,
    converged: bool,
    beside: Sequence[str],
    **asked: Any,
) -> None:
    """Body of `amden sweep`; `targets` are one series and others that are held, `requench` names a protocol,
    `converged` asks for moduli in that convention too, `beside` are folders of earlier sweeps; `asked` are further
    options of `read_request`."""
    check_output(out / "sweep.extxyz", overwrite=overwrite)
    sampling = read_sampling(how)
    loaded = sampling.model
    series, fixed = read_series(targets, loaded)
    name, protocol = series.name, read_requench(requench, loaded)
    first = [f"{name}={series.values[0]:.12g}", *fixed]
    wish, _ = read_request(loaded, targets=first, guide=sampling.guide, extrapolate=True, **asked)
    names = measurable([name, *filter(property_of, wish.targets)], loaded.denoiser.config.vocabulary.species)
    names, further = [*names, *(["moduli-vrh"] if converged and "moduli" in names else [])], _beside(beside, name)
    notes = read_targets(fixed, loaded.denoiser.config.properties, extrapolate=True).notes
    for note in (*notes, *composition_notes(wish.composition, loaded.denoiser.config.vocabulary)):
        err.print(f"  [yellow]note:[/] {note}")
    blank = _repeated(read_cells(loaded, wish, n, atoms=atoms, density=density, cell=cell), len(series.values))
    each = torch.tensor(series.values, dtype=torch.float64).repeat_interleave(n)
    wish = replace(wish, targets={**wish.targets, name: each})
    wish.check(loaded, blank.n_atoms, refine=sampling.refine)
    facts = sampling.facts(wish, blank)
    parts, measured = Parts(out / "sweep.extxyz", facts), list[Parts]()
    chosen, texts = choose_device(sampling.device.type), dict[str, list[str]]()
    count = f"{len(series.values)} targets of {name}, {n} structures each"
    err.print(f"{how.model} on {sampling.device}: {count}, {sampling.steps} steps, seed {sampling.seed}")
    made = _finished(out / "sweep.extxyz", facts)
    unknown = [name for name in names if made is None or not {*PROPERTIES[name].columns} <= {*made.properties}]
    if made is not None:
        err.print(f"  {len(made)} of {len(blank)} structures are there from before")
    found = made or generate_shown(sampling, blank, wish, batch_size=batch_size, parts=parts)
    if unknown:
        with measuring_bar() as show:
            how_measured = {"device": chosen, "potential": measured_by(protocol, loaded), "progress": show}
            rested, kept = kept_at_rest(found, unknown, out=out / "measured", **how_measured)
        found = replace(rested, properties={**found.properties, **rested.properties})
        measured.append(kept)
    if protocol is not None:
        found, texts[FAILURE] = requenched(found, names, protocol=protocol, seed=how.seed, out=out, device=chosen)
    write_structures(out / "sweep.extxyz", found, overwrite=overwrite)
    write_origin(out / "sweep.extxyz", told_origin(how.model, facts, sampling.device))
    for unfinished in (parts, *measured):
        unfinished.remove()
    for line in outcome(found, wish):
        print(line)
    label = "generated" if sampling.refine is None else name_of(sampling.refine)
    _write(found, _sweeps(found, name, each, loaded, further, label=label), _held(found, wish, loaded), out, texts)


def _finished(path: Path, facts: Mapping[str, Any]) -> Structures | None:
    """What an earlier sweep with the same request made, at rest: it may be requenched, or measured further."""
    told = read_origin(path) if path.is_file() else {}
    same = bool(told) and json.loads(json.dumps(facts)) == {name: told.get(name) for name in facts}
    return read_structures(path) if same else None


def _write(
    found: Structures, sweeps: Sequence[Sweep], held: Sequence[Held], out: Path, texts: Mapping[str, list[str]]
) -> None:
    """Tell what came of the sweep, and write its tables, those of the structures with `texts`, and its figures."""
    for line in (line for one in (*sweeps, *held) for line in one.lines()):
        print(line)
    mixtures = oxide_column(found)
    oxides = {} if mixtures is None else {"oxides": mixtures}
    columns = {k: v.double().numpy() for k, v in found.properties.items() if v.ndim == 1}
    table = {"atoms": found.n_atoms.numpy(), **texts, **oxides, **columns}
    for written in write_sweep(sweeps, out, table, held=held):
        print(written)


def _sweeps(
    found: Structures,
    name: str,
    targets: Tensor,
    model: Model,
    further: Mapping[str, Mapping[str, Any]],
    *,
    label: str,
) -> list[Sweep]:
    """What was swept, in each convention that it was measured in and by what it is called, with what came of the same
    compositions requenched and with earlier sweeps beside."""
    scale = model.denoiser.config.properties[name]
    low, high = np.quantile(scale.quantiles or (scale.mean - 2 * scale.std, scale.mean + 2 * scale.std), [0.05, 0.95])
    numbers = {k: v.double().numpy() for k, v in found.properties.items()}
    sweeps = []
    for column in filter(numbers.__contains__, (name, name + CONVERGED)):
        own = Sweep(column, PROPERTY_UNITS.get(column, ""), targets.numpy(), numbers[column], (low, high), label=label)
        others = {}
        if REQUENCHED + column in numbers:
            others["requenched"] = replace(own, value=numbers[REQUENCHED + column])
        for other, table in further.items():
            if column in table:
                others[other] = replace(own, target=table[f"target_{name}"], value=table[column])
        sweeps.append(replace(own, beside=others))
    return sweeps


def _held(found: Structures, wish: Request, model: Model) -> list[Held]:
    """What was held while something else was swept."""
    none = torch.full((len(found),), torch.nan, dtype=torch.float64)
    return [
        Held(
            name,
            PROPERTY_UNITS.get(name, ""),
            target,
            found.properties.get(name, none).double().numpy(),
            model.denoiser.config.properties[name].quantiles,
        )
        for name, target in wish.targets.items()
        if not isinstance(target, Tensor)
    ]


def _beside(texts: Sequence[str], name: str) -> dict[str, Mapping[str, Any]]:
    """Tables of earlier sweeps of the property `name`: `FOLDER`, or `LABEL=FOLDER`."""
    found = {}
    for text in texts:
        label, equals, folder = text.rpartition("=")
        path = Path(folder)
        found[label if equals else path.name] = read_sweep(path, name)
    return found


@dataclass(frozen=True)
class Series:
    """Targets of one property."""

    name: str
    values: Sequence[float]


def read_series(texts: Sequence[str], model: Model) -> tuple[Series, list[str]]:
    """The one series among targets, such as `shear_modulus=20:42:12 GPa`, twelve from 20 to 42; and the others.

    Errors: `ValueError` for a series of another form or fewer than two targets, for none and for several, and as of
    `read_targets`.
    """
    ranges = [text for text in texts if ":" in text.partition("=")[2]]
    if len(ranges) > 1:
        raise ValueError(f"a sweep has one series of targets, got {', '.join(ranges)}: hold the others at one value")
    text = ranges[0] if ranges else ", ".join(texts)
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
    return Series(name, values), [text for text in texts if text not in ranges]


def _repeated(cells: Blank, times: int) -> Blank:
    """The same cells for every target."""
    return Blank(cells.cell.repeat(times, 1, 1), cells.n_atoms.repeat(times))
