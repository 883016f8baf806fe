"""Relaxation with any ASE calculator, for the engine that runs protocols with one and for elastic constants.

`relaxation` is for the built-in potentials, and much faster.
"""

import numpy as np
from ase import Atoms
from jaxtyping import Float64
from scipy.optimize import minimize


def relax_atoms(atoms: Atoms, *, variable_cell: bool, force_tolerance: float, max_steps: int) -> bool:
    """Moves the atoms, and the cell if it is variable, to a minimum of the energy; returns whether they are there.

    That is where no force exceeds `force_tolerance` (eV/Å), nor V |σ|/N in eV if the cell is variable. With `max_steps`
    of 0 nothing moves. L-BFGS over q and √N F with r = q F, cell = cell₀ F: the factor gives the cell the stiffness of
    an atom.

        ∂E/∂q = -f Fᵀ,  ∂E/∂F = V F⁻ᵀ σ

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> copper = bulk("Cu", cubic=True, a=3.7)
    >>> copper.calc = EMT()
    >>> relax_atoms(copper, variable_cell=True, force_tolerance=1e-4, max_steps=100), round(float(copper.cell[0, 0]), 2)
    (True, 3.59)
    """
    n, cell = len(atoms), atoms.cell.array.copy()
    stiffness = np.sqrt(n)

    def place(x: Float64[np.ndarray, " numbers"]) -> Float64[np.ndarray, "3 3"]:
        deformation = x[3 * n :].reshape(3, 3) / stiffness if variable_cell else np.eye(3)
        atoms.set_cell(cell @ deformation)
        atoms.set_positions(x[: 3 * n].reshape(n, 3) @ deformation)
        return deformation

    def energy_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        deformation = place(x)
        gradient = [(-atoms.get_forces() @ deformation.T).ravel()]
        if variable_cell:
            stress = atoms.get_volume() * atoms.get_stress(voigt=False)
            gradient.append(np.linalg.solve(deformation.T, stress).ravel() / stiffness)
        return atoms.get_potential_energy(), np.concatenate(gradient)

    def at_rest() -> bool:
        largest = np.linalg.norm(atoms.get_forces(), axis=1).max()
        if variable_cell:
            stress = np.linalg.norm(atoms.get_stress(voigt=False), axis=1).max()
            largest = max(largest, stress * atoms.get_volume() / n)
        return bool(largest <= force_tolerance)

    x = np.concatenate([atoms.positions.ravel(), stiffness * np.eye(3).ravel() if variable_cell else []])
    while max_steps > 0 and not at_rest():
        options = {"maxiter": max_steps, "maxfun": 2 * max_steps + 20, "gtol": force_tolerance / 2.0, "ftol": 0.0}
        found = minimize(energy_and_gradient, x, jac=True, method="L-BFGS-B", options={**options, "maxcor": 30})
        x = found.x
        place(x)
        max_steps = max_steps - found.nit if found.nit > 0 else 0
    return at_rest()
