"""Interatomic potentials: parameters, kernels, and their exact evaluation in any periodic cell.

A potential is a frozen dataclass that satisfies `Potential`; nothing here knows of dynamics.
"""

from amden.simulate.potentials.bmp import ChargedNetwork, ScreenedAngles, bmp_shrm
from amden.simulate.potentials.catalogue import POTENTIALS
from amden.simulate.potentials.evaluation import Evaluation, evaluate
from amden.simulate.potentials.potential import Potential, Tools
from amden.simulate.potentials.stillinger_weber import StillingerWeber
from amden.simulate.potentials.tersoff import Tersoff, TersoffBond, TersoffCenter, munetoh_silica

__all__ = [
    "POTENTIALS",
    "ChargedNetwork",
    "Evaluation",
    "Potential",
    "ScreenedAngles",
    "StillingerWeber",
    "Tersoff",
    "TersoffBond",
    "TersoffCenter",
    "Tools",
    "bmp_shrm",
    "evaluate",
    "munetoh_silica",
]
