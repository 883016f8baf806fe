"""What was measured on real glasses, to be put beside what is computed: few numbers, each with its source.

Models of a few hundred atoms, quenched a million times faster than glasses are, need not agree with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Measured:
    """One measured value."""

    quantity: str
    """As `Si-O bond length`, or the name of an observable of amden: `density`, `coordination`."""
    value: float
    unit: str
    source: str
    uncertainty: float | None = None
    """As the source states it, or by how much sources differ; None where it is not known."""
    read: bool = True
    """Whether the number stands in the summary of the source itself; False: it is quoted after works that cite it."""


_MOZZI: Final = "R. L. Mozzi and B. E. Warren, J. Appl. Cryst. 2, 164 (1969), X-rays"
_MAURI: Final = "F. Mauri et al., Phys. Rev. B 62, R4786 (2000), from 29Si NMR"
_WRIGHT: Final = "A. C. Wright, J. Non-Cryst. Solids 179, 84 (1994), neutrons"
_BANSAL: Final = "N. P. Bansal and R. H. Doremus, Handbook of Glass Properties (Academic Press, 1986)"
_LAAZIRI: Final = "K. Laaziri et al., Phys. Rev. Lett. 82, 3460 (1999), X-rays, implanted, annealed at 600 °C"
_FORTNER: Final = "J. Fortner and J. S. Lannin, Phys. Rev. B 39, 5527 (1989), neutrons"
_CUSTER: Final = "J. S. Custer et al., Appl. Phys. Lett. 64, 437 (1994), implanted"

MEASURED: Final[Mapping[str, tuple[Measured, ...]]] = MappingProxyType(
    {
        "SiO2": (
            Measured("Si-O bond length", 1.62, "Å", _MOZZI),
            Measured("Si-O-Si angle", 144.0, "°", f"{_MOZZI}; most probable"),
            Measured("Si-O-Si angle", 151.0, "°", f"{_MAURI}; mean"),
            Measured("Si-O-Si angle, standard deviation", 11.0, "°", _MAURI),
            Measured("first sharp diffraction peak", 1.52, "1/Å", _WRIGHT, read=False),
            Measured("density", 2.20, "g/cm³", _BANSAL, read=False),
            Measured("Young's modulus", 73.0, "GPa", _BANSAL, 1.0, read=False),
            Measured("shear modulus", 31.0, "GPa", _BANSAL, 1.0, read=False),
            Measured("bulk modulus", 37.0, "GPa", _BANSAL, 1.0, read=False),
        ),
        "Si": (
            Measured("coordination", 3.88, "", _LAAZIRI),
            Measured("density", 2.285, "g/cm³", f"{_CUSTER}; 4.90e22 atoms/cm³", 0.002),
            Measured("bond angle", 108.6, "°", _FORTNER, 0.4, read=False),
            Measured("bond angle, standard deviation", 10.0, "°", _FORTNER, 1.0, read=False),
        ),
    }
)
"""By the formula of the glass."""


def measured(glass: str, quantity: str | None = None) -> tuple[Measured, ...]:
    """What is known of a glass, or of one quantity of it; empty where nothing is.

    >>> [m.value for m in measured("SiO2", "Si-O-Si angle")], measured("GeO2")
    ([144.0, 151.0], ())
    """
    return tuple(m for m in MEASURED.get(glass, ()) if quantity in (None, m.quantity))
