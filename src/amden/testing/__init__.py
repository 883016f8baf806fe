"""For tests of amden and of denoisers written elsewhere: builders, exact scores, and the contract of a denoiser."""

from amden.testing.builders import diamond, random_sample, random_structures, supercell
from amden.testing.contract import check_denoiser
from amden.testing.oracles import GaussianOracle, MixtureOracle, PairDenoiser

__all__ = [
    "GaussianOracle",
    "MixtureOracle",
    "PairDenoiser",
    "check_denoiser",
    "diamond",
    "random_sample",
    "random_structures",
    "supercell",
]
