"""Relaxation beside ASE's PreconLBFGS + FrechetCellFilter: `python benchmarks/relaxation.py [--n 200] [--device cuda]`.

Both relax the same glasses, atoms and cell, to forces of 0.005 eV/Å, on one core each, ASE with the built-in potential
as its calculator. A minimiser that takes another path may end in another minimum of a glass: what that amounts to is
shown by ASE against itself from positions displaced by 1e-6 Å (`--floor`). A minute on the CPU with the default of 10
cells, of which two thirds go into making them; `--device cuda` times the GPU alone, on the cells repeated to `--batch`.

`--structures examples/oxide-glasses --rattle 0.2` takes simulated glasses instead, displaced at random. ASE is left out
where the energy has steps, as that of BMP-shrm has: `relax` holds the terms of a pair, ASE does not.
"""

import argparse
import os
import time
import warnings
from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize.precon import PreconLBFGS

from amden.dataset import load_dataset
from amden.io import to_ase
from amden.properties import fitting_potential
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.catalogue import find_protocol
from amden.simulate.potentials import POTENTIALS, Potential
from amden.simulate.potentials.pair_sums import LongRanged
from amden.simulate.relaxation import Relaxation, relax
from amden.simulate.runs import run_protocol

FORCE = 0.005
"""eV/Å."""
STRESS = 0.01
"""GPa; ASE's criterion, the virial an atom below `FORCE`, is 0.04 GPa for silicon."""
MOST_STEPS = 2000
DISPLACEMENT = 1e-6
"""Å."""


@dataclass(frozen=True)
class Measured:
    """What one relaxation of all cells found."""

    energy: np.ndarray
    """eV an atom."""
    n_steps: np.ndarray
    converged: np.ndarray
    seconds: float
    """A cell."""


def flat(cells: list[Atoms], potential: Potential, repeats: int = 1) -> tuple:
    species = np.concatenate([[potential.symbols.index(s) for s in atoms.get_chemical_symbols()] for atoms in cells])
    n_atoms = np.tile([len(atoms) for atoms in cells], repeats)
    positions = np.tile(np.concatenate([atoms.positions for atoms in cells]), (repeats, 1))
    return (
        positions,
        np.tile([atoms.cell.array for atoms in cells], (repeats, 1, 1)),
        n_atoms,
        np.tile(species, repeats),
    )


def rattled(source: str, n: int, displacement: float) -> tuple[list[Atoms], Potential]:
    """The first cells of a dataset, displaced, and a potential that has all their elements."""
    dataset = load_dataset(source)
    name = fitting_potential(dataset)
    if name is None:
        raise SystemExit(f"no built-in potential has the elements of {source}")
    cells, rng = to_ase(dataset.select(range(min(n, len(dataset))))), np.random.default_rng(0)
    for atoms in cells:
        atoms.positions += displacement * rng.normal(size=atoms.positions.shape)
    return cells, POTENTIALS[name]


def by_relax(cells: list[Atoms], potential: Potential, device: Literal["cpu", "cuda"], repeats: int = 1) -> Measured:
    positions, lattices, n_atoms, species = flat(cells, potential, repeats)

    def run(max_steps: int) -> Relaxation:
        return relax(
            potential, positions, lattices, n_atoms, species=species, device=device,
            force_tolerance=FORCE, stress_tolerance=STRESS, max_steps=max_steps,
        )  # fmt: skip

    run(1)
    start = time.perf_counter()
    found = run(MOST_STEPS)
    seconds = (time.perf_counter() - start) / len(n_atoms)
    return Measured(found.energy / n_atoms, found.n_steps, found.converged, seconds)


def by_ase(cells: list[Atoms], potential: Potential, displacement: float = 0.0) -> Measured:
    rng, energy, n_steps, converged = np.random.default_rng(0), [], [], []
    PotentialCalculator(potential).get_potential_energy(cells[0])  # compiles
    start = time.perf_counter()
    for atoms in cells:
        atoms = atoms.copy()
        atoms.positions += displacement * rng.normal(size=atoms.positions.shape)
        atoms.calc = PotentialCalculator(potential)
        optimizer = PreconLBFGS(FrechetCellFilter(atoms), precon="Exp", logfile=os.devnull)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converged.append(bool(optimizer.run(fmax=FORCE, steps=MOST_STEPS)))
        energy.append(atoms.get_potential_energy() / len(atoms))
        n_steps.append(optimizer.get_number_of_steps())
    seconds = (time.perf_counter() - start) / len(cells)
    return Measured(np.array(energy), np.array(n_steps), np.array(converged), seconds)


def show(name: str, found: Measured, reference: Measured) -> None:
    difference = 1000.0 * (found.energy - reference.energy)
    print(
        f"{name:34s} {found.converged.mean():9.1%} {found.n_steps.mean():6.0f} {found.n_steps.max():5d} "
        f"{found.seconds:9.4f} {(abs(difference) <= 1.0).mean():10.1%} {difference.mean():+8.3f} "
        f"{np.median(abs(difference)):8.4f} {abs(difference).max():7.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Relaxation beside ASE.")
    parser.add_argument("--n", type=int, default=10, help="cells")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; the others follow")
    parser.add_argument("--protocol", default="si-quench", help="what makes them")
    parser.add_argument("--structures", help="a dataset or structure file in its place")
    parser.add_argument("--rattle", type=float, default=0.1, help="standard deviation of their displacements, Å")
    parser.add_argument("--floor", action="store_true", help="also ASE against itself, slightly displaced")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=2048, help="cells on cuda: the n cells over and over")
    options = parser.parse_args()
    numba.set_num_threads(1)
    seeds = range(options.seed, options.seed + options.n)
    if options.structures is not None:
        cells, potential = rattled(options.structures, options.n, options.rattle)
    else:
        protocol = find_protocol(options.protocol)
        cells = to_ase(run_protocol(protocol, seeds, device=options.device).structures)
        potential = protocol.interaction
    print(
        f"{len(cells)} cells of {len(cells[0])} atoms from {options.structures or options.protocol}, forces to "
        f"{FORCE} eV/Å; differences in meV/atom"
    )
    print(f"{'':34s} converged  steps  most  s a cell  within 1 meV  mean  median  largest")
    if options.device == "cuda":
        repeats = max(options.batch // len(cells), 1)
        host, device = by_relax(cells, potential, "cpu"), by_relax(cells, potential, "cuda", repeats)
        show("relax, CPU", host, host)
        n = len(cells)
        first = Measured(device.energy[:n], device.n_steps[:n], device.converged[:n], device.seconds)
        show(f"relax, GPU, {len(cells) * repeats} cells", first, host)
        return
    if isinstance(potential, LongRanged):
        found = by_relax(cells, potential, "cpu")
        show("relax", found, found)
        return
    ase = by_ase(cells, potential)
    show("ASE PreconLBFGS, FrechetCellFilter", ase, ase)
    show("relax", by_relax(cells, potential, "cpu"), ase)
    if options.floor:
        show(f"ASE, displaced by {DISPLACEMENT} Å", by_ase(cells, potential, DISPLACEMENT), ase)


if __name__ == "__main__":
    main()
