"""What `--requench` does: the protocol it names, and the compositions of structures melt-quenched by it, with a bar."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from amden.analysis.parity import REQUENCHED
from amden.commands import err
from amden.elements import symbol
from amden.io import write_structures
from amden.model import Model
from amden.progress import campaign_bar, measuring_bar
from amden.properties import Device
from amden.requench import measure_quenched, quench_compositions
from amden.simulate.catalogue import find_protocol
from amden.simulate.potentials import POTENTIALS
from amden.simulate.protocol import Protocol
from amden.structure import Structures

FAILURE: Final = "requench_failure"
"""The column of reasons."""


def read_requench(name: str | None, model: Model) -> Protocol | None:
    """The protocol of that name.

    Errors: `ValueError` for one that cannot simulate all elements of the model.
    """
    if name is None:
        return None
    protocol, known = find_protocol(name), model.denoiser.config.vocabulary
    symbols = tuple(protocol.composition) or protocol.interaction.symbols
    strangers = [name for name in map(symbol, known.species) if name not in symbols]
    if strangers:
        raise ValueError(f"`--requench {name}` simulates {', '.join(symbols)}, the model makes {known}")
    return protocol


def measured_by(protocol: Protocol | None, model: Model) -> str | None:
    """The potential that structures of a model are measured with: that of the protocol which requenches them, else the
    first that has all elements of the model; None where none has."""
    if protocol is not None:
        return protocol.potential
    symbols = set(map(symbol, model.denoiser.config.vocabulary.species))
    return next((name for name, potential in POTENTIALS.items() if symbols <= set(potential.symbols)), None)


def requenched(
    structures: Structures, names: Sequence[str], *, protocol: Protocol, seed: int, out: Path, device: Device
) -> tuple[Structures, list[str]]:
    """The structures with `requenched_<property>` for each of these properties, and for each why there is none.

    The campaigns lie in `out/requenched`, what came of this one, at rest, in `out/requenched.extxyz`.
    """
    err.print(f"requenching {len(structures)} compositions by {protocol.name}, about {protocol.duration:g} ps each")
    folder = out / REQUENCHED.rstrip("_")
    with campaign_bar(protocol, len(structures), title="requenching") as show:
        done = quench_compositions(structures, protocol=protocol, seed=seed, out=folder, device=device, progress=show)
    with measuring_bar("measuring the requenched") as show:
        found = measure_quenched(done, names, progress=show)
    for place, reason in found.failures.items():
        err.print(f"  structure {place} not requenched: {reason}")
    if found.structures is not None:
        write_structures(folder.with_suffix(".extxyz"), found.structures, overwrite=True)
    together = replace(structures, properties={**structures.properties, **found.columns})
    return together, [found.failures.get(i, "") for i in range(len(structures))]
