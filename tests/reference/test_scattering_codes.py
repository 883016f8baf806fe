"""S(q) of a silica glass in a skewed cell against two other codes, whose numbers are kept here.

dynasor 2.5 (Berger et al., Comput. Phys. Commun. 316, 109759 (2025)): `compute_static_structure_factors` of
all lattice vectors in bins of 0.5 1/Å, an atom, and `NeutronScatteringLengths`. sovapy 0.8.3 (Shiga and Morita):
`partial_structure_factor` and `structure_factor_neutron` of g(r) to 6.955 Å in bins of 0.01 Å, without a window.
"""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import iread

from amden.analysis.scattering import structure_factor, structure_factor_from_rdf
from amden.elements import scattering_length
from amden.io import from_ase

DYNASOR = """
O-O 0.350116977 0.18708272 0.306263236 0.264605423 0.481841645 0.944683204
  0.765861614 0.609813158 0.598394735 0.66282891 0.719308962 0.661583692 ;
O-Si 0.111251464 0.100974999 0.213073605 0.232162988 -0.101764157 -0.297897069
  -0.164597363 0.021571266 0.096309008 0.111478916 0.052985263 -0.02510392 ;
Si-Si 0.043638638 0.063478802 0.166600739 0.280772058 0.39148775 0.383403571
  0.294595792 0.312484071 0.359228868 0.332188173 0.321199014 0.332661624 ;
neutron 17.8993653 12.2557918 23.4431708 24.9253317 18.065841 24.0677434
  22.9362508 26.9547189 30.9742273 33.4090727 32.3049329 26.7977389 ;
"""
"""By pair, and for neutrons; the first twelve bins."""
SOVA_Q = [1.525, 3.025, 4.525, 6.025, 7.525, 9.025, 10.525, 12.025, 13.525]
SOVA = {
    "O-O": [0.2715, 1.4463, 0.9190, 0.8860, 1.0004, 1.0100, 1.0261, 0.9672, 0.9803],
    "O-Si": [2.1425, -0.0763, 1.4927, 0.7664, 1.0651, 0.9772, 1.0134, 1.0396, 0.9593],
    "Si-Si": [0.1502, 0.8097, 1.0928, 1.1733, 1.1933, 0.9553, 0.9891, 0.9750, 0.9767],
}
SOVA_NEUTRON = [0.9893, 0.8110, 1.1538, 0.8595, 1.0389, 0.9934, 1.0186, 0.9959, 0.9719]


@pytest.fixture(scope="module")
def glass():
    path = Path(__file__).parents[1] / "data" / "tersoff_sio2.extxyz"
    return from_ase([a for a in iread(path, "3:4") if isinstance(a, Atoms)])


def test_exact_partials_and_neutrons_are_those_of_dynasor(glass):
    found = structure_factor(glass, q_max=6.0, bin_width=0.5, most=10**9)
    c = {name: float(values[0]) for name, values in found.concentrations.items()}
    theirs = {row.split()[0]: np.array(row.split()[1:], np.float64) for row in DYNASOR.split(";") if row.strip()}
    for pair in found.partials:
        a, b = pair.split("-")
        scattered = (found.partials[pair][0] - 1.0) * c[a] * c[b] + c[a] * (a == b)
        np.testing.assert_allclose(scattered, theirs[pair], atol=2e-9)
    f = {"O": scattering_length(8), "Si": scattering_length(14)}
    mean, square = (sum(c[n] * f[n] ** k for n in f) for k in (1, 2))
    intensity = found.total("neutron")[0] * mean**2 + square - mean**2
    np.testing.assert_allclose(intensity, theirs["neutron"], rtol=1e-4)  # natural b from isotopes there: 4.1494 for Si


def test_transforms_of_g_of_r_are_those_of_sovapy(glass):
    found = structure_factor_from_rdf(glass, r_max=6.955, r_width=0.005, window="none")
    at = np.searchsorted(found.q, np.array(SOVA_Q) - 1e-6)
    for pair, expected in SOVA.items():
        np.testing.assert_allclose(found.partials[pair][0, at], expected, atol=0.004)  # bins of another width
    np.testing.assert_allclose(found.total("neutron")[0, at], SOVA_NEUTRON, atol=0.002)
