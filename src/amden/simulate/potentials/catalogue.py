"""The potentials of the package, by name."""

from collections.abc import Mapping
from typing import Final

from amden.simulate.potentials.bmp import bmp_shrm
from amden.simulate.potentials.potential import Potential
from amden.simulate.potentials.stillinger_weber import StillingerWeber
from amden.simulate.potentials.tersoff import munetoh_silica

POTENTIALS: Final[Mapping[str, Potential]] = {
    "stillinger-weber-si": StillingerWeber(),
    "tersoff-sio": munetoh_silica(),
    "bmp-shrm": bmp_shrm(),
}
"""Potentials a protocol may name."""
