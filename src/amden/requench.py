"""The compositions of given structures melt-quenched anew, relaxed and measured: which tells a wrong composition from a
wrong structure (fig. 2b of the paper).

A property that a structure and its requenched composition share is one of the composition; where they differ, the
structure is not that of a glass as the protocol makes it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from amden.analysis.parity import REQUENCHED
from amden.compositions import counts_of, formal_charge
from amden.measuring import kept_at_rest
from amden.properties import PROPERTIES, Device
from amden.properties import Progress as Measuring
from amden.shard import load_shard
from amden.simulate.campaign import Progress, run_campaign
from amden.simulate.catalogue import with_counts
from amden.simulate.engines import BuiltIn, choose_device
from amden.simulate.folder import CampaignFolder, origin_of
from amden.simulate.potentials.pair_sums import image_cutoff
from amden.simulate.protocol import Protocol
from amden.structure import Structures, concatenate

STRUCTURE: Final = "structure"
"""Property of a requenched structure: the place of the one whose composition it has."""


@dataclass(frozen=True, eq=False)
class Requenched:
    """What came of the compositions of some structures."""

    structures: Structures | None
    """Those that the protocol made, at rest and measured, with `structure`; None where there are none."""
    columns: Mapping[str, Float[Tensor, " systems"]]
    """`requenched_<name>` for each property, a number for each composition asked for; NaN where there is none."""
    failures: Mapping[int, str]
    """Why a composition has no structure at rest, by its place."""


def unfit(counts: Mapping[str, int], protocol: Protocol) -> str | None:
    """Why a protocol does not make a composition; None if it does.

    >>> from amden.simulate.catalogue import find_protocol
    >>> unfit({"Si": 20, "O": 39}, find_protocol("sio2"))
    'it is Si20O39, and sio2 makes SiO2'
    >>> unfit({"Si": 20, "O": 40}, find_protocol("sio2")) is None
    True
    """
    if not counts:
        return "it has no atoms"
    strangers = [name for name in counts if name not in protocol.interaction.symbols]
    if strangers:
        return f"the potential {protocol.potential} does not know {', '.join(strangers)}"
    if protocol.composition:
        own = _reduced({name: round(n) for name, n in protocol.composition.items()})
        if _reduced(counts) != own:
            return f"it is {_formula(counts)}, and {protocol.name} makes {_formula(own)}"
    elif charge := formal_charge(dict(counts)):
        return f"its formal charge is {charge:+d} e"
    start = with_counts(protocol, [counts])
    edge, least = start.volume_of(start.species(0, 0)) ** (1 / 3), 2.0 * image_cutoff(protocol.interaction)
    n_atoms = sum(counts.values())
    return (
        f"{n_atoms} atoms are too few for {protocol.potential}: {edge:.1f} Å of {least:.1f}" if edge < least else None
    )


@dataclass(frozen=True)
class Campaigned:
    """Compositions that went through a protocol."""

    folder: Path | None
    """The campaign; None where no composition was fit for one."""
    n: int
    """Compositions asked for."""
    chosen: Sequence[int]
    """The place of each cell's composition."""
    failures: Mapping[int, str]
    """Why others have no cell, by their places."""
    potential: str
    device: Literal["cpu", "cuda"]


def requench(
    structures: Structures,
    names: Sequence[str],
    *,
    protocol: Protocol,
    seed: int,
    out: str | Path,
    device: Device = "auto",
    batch_size: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    measuring: Callable[[Measuring], None] = lambda _: None,
) -> Requenched:
    """Run the protocol once for the exact atoms of each structure; relax and measure what comes of it by `at_rest`.

    `names` are those in `PROPERTIES`. The simulation is a campaign in a folder of its own below `out`, named by what it
    is a function of: protocol, atoms, seed. So it goes on if interrupted, and compositions that were all requenched
    before are only measured again. A composition that the protocol does not make, and one whose cell blows up,
    evaporates or does not relax, is set aside with the reason.
    """
    done = quench_compositions(
        structures, protocol=protocol, seed=seed, out=out, device=device, batch_size=batch_size, progress=progress
    )
    return measure_quenched(done, names, progress=measuring)


def quench_compositions(
    structures: Structures,
    *,
    protocol: Protocol,
    seed: int,
    out: str | Path,
    device: Device = "auto",
    batch_size: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Campaigned:
    """The first half of `requench`: the campaign."""
    counts, where = counts_of(structures), choose_device(device)
    failures = {i: why for i, each in enumerate(counts) if (why := unfit(each, protocol))}
    chosen = [i for i in range(len(counts)) if i not in failures]
    if not chosen:
        return Campaigned(None, len(counts), chosen, failures, protocol.potential, where)
    own = with_counts(protocol, [counts[i] for i in chosen])
    folder = Path(out) / _name_of(own, seed, BuiltIn(where).name)
    done = run_campaign(
        own, n=len(chosen), seed=seed, out=folder, device=where, batch_size=batch_size, progress=progress
    )
    failures |= {chosen[cell]: why for cell, why in done.failures.items()}
    return Campaigned(folder, len(counts), chosen, failures, protocol.potential, where)


def measure_quenched(
    done: Campaigned, names: Sequence[str], *, progress: Callable[[Measuring], None] = lambda _: None
) -> Requenched:
    """The second half of `requench`."""
    found, failures = _measured(done, names, progress), dict(done.failures)
    columns = {name: _spread(name, found, done.n) for name in _columns(names)}
    if found is not None:
        energy = columns[f"{REQUENCHED}potential_energy"]
        lost = [int(i) for i in found.properties[STRUCTURE].tolist() if energy[int(i)].isnan()]
        failures |= dict.fromkeys(lost, "its relaxation did not converge")
    return Requenched(found, columns, dict(sorted(failures.items())))


def _measured(done: Campaigned, names: Sequence[str], progress: Callable[[Measuring], None]) -> Structures | None:
    """What the campaign made, at rest and measured."""
    if done.folder is None:
        return None
    held = CampaignFolder(done.folder)
    shards = [load_shard(held.shard(cells)).structures for cells in held.shards()]
    frames = [each for each in shards if len(each)]
    if not frames:
        return None
    made = concatenate(frames).to(dtype=torch.float64)
    cells = made.properties["index"].long().tolist()
    bare, beside = replace(made, properties={}), done.folder.with_name(f"{done.folder.name}-measured")
    known, parts = kept_at_rest(
        bare, names, out=beside, device=done.device, potential=done.potential, progress=progress
    )
    parts.remove()
    place = torch.tensor([done.chosen[cell] for cell in cells], dtype=torch.float64)
    return replace(known, properties={**known.properties, STRUCTURE: place})


def _columns(names: Sequence[str]) -> list[str]:
    own = [column for name in names for column in PROPERTIES[name].columns]
    return [REQUENCHED + column for column in (*own, "potential_energy")]


def _spread(column: str, found: Structures | None, n: int) -> Float[Tensor, " systems"]:
    """Values of the structures at the places of their compositions."""
    values = torch.full((n,), torch.nan, dtype=torch.float64)
    if found is not None:
        values[found.properties[STRUCTURE].long()] = found.properties[column.removeprefix(REQUENCHED)].double()
    return values


def _name_of(protocol: Protocol, seed: int, engine: str) -> str:
    origin = origin_of(replace(protocol, doc=""), seed, engine)
    return f"{protocol.name}-{hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:8]}"


def _reduced(counts: Mapping[str, int]) -> dict[str, int]:
    unit = gcd(*counts.values())
    return {name: n // unit for name, n in counts.items()}


def _formula(counts: Mapping[str, int]) -> str:
    return "".join(f"{name}{n if n > 1 else ''}" for name, n in sorted(counts.items(), key=lambda each: each[0] == "O"))
