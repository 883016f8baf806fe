"""The ASE face of the built-in potentials: energies, forces and stresses for relaxation by ASE's optimisers."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from amden.simulate.potentials import Potential, evaluate


class PotentialCalculator(Calculator):
    """An ASE calculator on `evaluate`: float64, any periodic cell, however small or skewed.

    >>> from ase.build import bulk
    >>> from amden.simulate.potentials import StillingerWeber
    >>> silicon = bulk("Si", a=5.431)
    >>> silicon.calc = PotentialCalculator(StillingerWeber())
    >>> round(silicon.get_potential_energy() / len(silicon), 5)
    -4.3366
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self._potential = potential

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: Any = all_changes
    ) -> None:
        """All properties at once, in ASE's units and signs."""
        super().calculate(atoms, properties or ["energy"], system_changes)
        atoms = self.atoms
        assert atoms is not None
        if not atoms.pbc.all():
            raise ValueError(f"`atoms` must be periodic in all directions, got pbc {atoms.pbc.tolist()}")
        result = evaluate(
            self._potential,
            atoms.positions,
            atoms.cell.array[None],
            np.array([len(atoms)]),
            species=self._species(atoms),
        )
        self.results = {
            "energy": float(result.energy[0]),
            "free_energy": float(result.energy[0]),
            "energies": result.energies,
            "forces": result.forces,
            "stress": full_3x3_to_voigt_6_stress(result.stress[0]),
        }

    def _species(self, atoms: Atoms) -> np.ndarray:
        known = self._potential.symbols
        species = np.full(len(atoms), -1)
        for number, symbol in enumerate(known):
            species[atoms.symbols == symbol] = number
        if species.min() < 0:
            stranger = atoms.symbols[int(species.argmin())]
            raise ValueError(f"the potential does not know {stranger}, it knows {', '.join(known)}")
        return species
