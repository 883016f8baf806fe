"""The protocols of the package by name, and the same for other cells.

What a protocol is, is written in `protocol`; what its stages are, in `stages`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from amden.simulate.protocol import GRID, Protocol
from amden.simulate.stages import Adapted, Evaporation, Quench, Relative, SoftStart, Stage

_MELT: Final = Stage(20.0, (2500.0, 2500.0))
_SILICON: Final = {
    "n_atoms": 256,
    "composition": {"Si": 1.0},
    "density": 2.4,
    "min_distance": 2.0,
    "potential": "stillinger-weber-si",
}

_MELTED, _UNDER, _ROOM = Relative(0.75), Relative(0.75, -500.0), Relative(offset=300.0)
_SLUGGISH, _FROZEN = Relative(0.45), Relative(0.2)
_FAR: Final = 20.0
"""Å that the atoms of each element move in the melt."""


def _multi_element(
    name: str,
    *,
    doc: str,
    equilibration: float,
    evaporation: float,
    melt: tuple[Adapted, ...],
    quench: tuple[Adapted, ...],
    hold: float,
) -> Protocol:
    return Protocol(
        name=name,
        doc=doc,
        n_atoms=400,
        density=None,
        min_distance=None,
        potential="bmp-shrm",
        compositions=GRID,
        stages=(
            SoftStart(0.4, (300.0, 300.0), max_displacement=0.03),
            Stage(equilibration, (2200.0, 2200.0)),
            Evaporation(evaporation, (2200.0, 9000.0), stretch=2.0),
            *melt,
            *quench,
            Stage(hold, (300.0, 300.0)),
        ),
    )


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="si-melt",
            doc="Liquid silicon: 20 ps at 2500 K and 0 bar from a random start (5 to 10 ps decorrelate a melt).",
            stages=(_MELT,),
            **_SILICON,
        ),
        Protocol(
            name="si-quench",
            doc="Quenched silicon: the melt, then the thermostat set to 300 K at once and held for 10 ps at 0 bar.",
            stages=(_MELT, Stage(10.0, (300.0, 300.0))),
            **_SILICON,
        ),
        Protocol(
            name="si-anneal",
            doc="Annealed silicon: the melt, then 2500 to 300 K at 1 K/ps and 10 ps at 300 K, all at 0 bar.",
            stages=(_MELT, Stage(2200.0, (2500.0, 300.0)), Stage(10.0, (300.0, 300.0))),
            **_SILICON,
        ),
        Protocol(
            name="sio2",
            doc="Silica glass of 81 to 249 atoms: 200 ps at 3500 K, the nearest minimum, 10 ps at 300 K, at 0 bar.",
            n_atoms=(80, 250),
            composition={"Si": 1.0, "O": 2.0},
            density=2.2,
            min_distance=2.0,
            potential="tersoff-sio",
            stages=(
                Stage(200.0, (3500.0, 3500.0), timestep=0.0005),
                Quench("variable", force_tolerance=0.05),
                Stage(10.0, (300.0, 300.0), timestep=0.001),
            ),
        ),
        _multi_element(
            "meg",
            doc="Glasses of eleven elements, as published: melted at 0.75 of the temperature at which each evaporates, "
            "then 5 K/ps to 300 K, at 0 bar.",
            equilibration=20.0,
            evaporation=120.0,
            melt=(
                Adapted((_UNDER, _MELTED), duration=200.0),
                Adapted((_MELTED, _MELTED), duration=400.0, least_displacement=_FAR),
            ),
            quench=(Adapted((_MELTED, _ROOM), rate=5.0),),
            hold=300.0,
        ),
        _multi_element(
            "meg-short",
            doc="The same in a third of the time: evaporation tried in 60 ps, melts held until all elements have moved "
            "20 Å, 5 K/ps only where it counts, from 0.45 to 0.2 of the evaporation temperature, else 20 K/ps.",
            equilibration=10.0,
            evaporation=60.0,
            melt=(
                Adapted((_UNDER, _MELTED), duration=10.0),
                Adapted(
                    (_MELTED, _MELTED),
                    duration=400.0,
                    least_displacement=_FAR,
                    until_displaced=True,
                    typical_duration=60.0,
                ),
            ),
            quench=(
                Adapted((_MELTED, _SLUGGISH), rate=20.0),
                Adapted((_SLUGGISH, _FROZEN), rate=5.0),
                Adapted((_FROZEN, _ROOM), rate=20.0),
            ),
            hold=20.0,
        ),
    )
}
"""The protocols of the package.

The hold of `si-quench` counts: 10 ps at 300 K lower the energy by 0.02 eV an atom. So does the melt of `sio2`: a random
start needs 100 ps at 3500 K to come to its plateau. Its time step: without thermostat the melt heats by 0.2 ± 0.3 meV
an atom and ps at 0.5 fs, by 24 at 1 fs (the cutoff functions of Tersoff's potential are short and steep; LAMMPS finds
the same), the glass at 300 K by 0.1 at 1 fs.

`meg` and `meg-short`: the publication does not say how a melt begins; here ions are put down at random, begin softly
and melt at 2200 K. What `meg-short` leaves out was looked at in one cell of 256 atoms of 0.6 SiO2 0.4 Li2O: at 300 K
the energy stays what it is within 2 meV an atom from the first to the last of 20 ps. From one melt, quenches at 20, 10
and 5 K/ps end at -12.206, -12.216 and -12.209 eV an atom and 2.36, 2.37 and 2.35 g/cm³, that of `meg-short` at -12.217
and 2.37: no order by rate, and the spread between cells is not known. How far the two protocols agree in the mean was
not measured.
"""


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    >>> find_protocol("si-quench").duration
    30.0
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def with_glasses(
    protocol: Protocol, *, compositions: Sequence[Mapping[str, float]] = (), n_atoms: int | None = None
) -> Protocol:
    """The protocol with compositions that are asked for in the place of its own, or with other sizes.

    Errors: `ValueError` for a protocol of one composition, and whatever `Protocol` refuses.

    >>> glass = with_glasses(find_protocol("meg"), compositions=[{"Li": 2.0, "Si": 1.0, "O": 3.0}], n_atoms=600)
    >>> glass.counts(0), glass.counts(1) == glass.counts(0)
    ({'Li': 200, 'Si': 100, 'O': 300}, True)
    """
    if compositions and protocol.compositions is None:
        choices = ", ".join(name for name, other in PROTOCOLS.items() if other.compositions is not None)
        raise ValueError(f"protocol {protocol.name!r} has one composition: only {choices} take others")
    protocol = replace(protocol, compositions=tuple(compositions)) if compositions else protocol
    return replace(protocol, n_atoms=n_atoms) if n_atoms is not None else protocol


def with_counts(protocol: Protocol, counts: Sequence[Mapping[str, int]]) -> Protocol:
    """The protocol for cells of just these atoms, one cell after the other, in the place of its own compositions.

    Whether it is made for them, is for the caller to know. Errors: `ValueError` for elements that the potential lacks.

    >>> silica = with_counts(find_protocol("sio2"), [{"Si": 40, "O": 80}, {"Si": 3, "O": 6}])
    >>> silica.counts(1), silica.size
    ({'Si': 3, 'O': 6}, '9 to 120')
    """
    own = tuple({name: float(n) for name, n in each.items()} for each in counts)
    return replace(protocol, n_atoms=None, composition={}, compositions=own)
