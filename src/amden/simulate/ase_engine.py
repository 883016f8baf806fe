"""Campaigns with any ASE calculator: the protocol of the built-in engine, thermostat, barostat and random numbers too.

A step is that of `engine.kernel` in float64, on forces and stress of the calculator, so with a calculator of the
built-in potential a run follows that of the engine until rounding has grown. Slow: a cell at a time, one process.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import ase
import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from jaxtyping import Float64

from amden.compiler import compiled
from amden.simulate.ase_relaxation import relax_atoms
from amden.simulate.engine import FAILURES, MDState, Segment, thermal_state
from amden.simulate.engine import coupling as c
from amden.simulate.engine.run import segment_plan
from amden.simulate.engines import processor, versions
from amden.simulate.one_by_one import CellFailed, Finished, run_one_by_one
from amden.simulate.protocol import Protocol
from amden.simulate.runs import Runs
from amden.simulate.snapshot import Keeper
from amden.simulate.stages import Quench
from amden.units import AMU_A2_PER_PS2

_WHO = "a calculator"


@dataclass(frozen=True)
class CalculatorEngine:
    """Runs cells with a calculator that `factory`, such as "mymodule:make", makes when called."""

    factory: str

    @property
    def name(self) -> str:
        """Calculators are told apart by the name of their factory."""
        return f"ase {self.factory}"

    def batch_size(self, protocol: Protocol) -> int:
        """Few, so that little is lost when a run is interrupted."""
        return 4

    def about(self) -> Mapping[str, Any]:
        """Processor and versions; that of the calculator's own package is not known here."""
        return {"device": processor(), "versions": versions(ase=ase.__version__)}

    def run(
        self,
        protocol: Protocol,
        seeds: Sequence[int],
        *,
        on_launch: Callable[[int, int], None],
        numbers: Sequence[int] | None = None,
        keeper: Keeper | None = None,
    ) -> Runs:
        """A cell for each seed; nothing is kept in between.

        Errors: `ValueError` for a calculator that lacks what is needed, or does not know an element; for a protocol
        that adapts to its cells.
        """
        protocol.plain_stages(_WHO)
        calculator = load_calculator(self.factory)
        return run_one_by_one(
            lambda start: run_with_calculator(protocol, start, calculator), protocol, seeds, on_launch, numbers
        )


def load_calculator(factory: str) -> BaseCalculator:
    """What the function "module:function" returns; modules of the working directory are found.

    Errors: `ValueError` that names what is missing.

    >>> load_calculator("ase.calculators.emt:EMT").implemented_properties[:2]
    ['energy', 'free_energy']
    """
    module_name, _, function = factory.partition(":")
    if not (module_name and function):
        raise ValueError(f"`calculator` must be module:function, such as mymodule:make, got {factory!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"calculator {factory!r}: {error}") from error
    make = getattr(module, function, None)
    if not callable(make):
        raise ValueError(f"calculator {factory!r}: the module has no function {function!r}")
    calculator = make()
    if not isinstance(calculator, BaseCalculator):
        raise ValueError(f"calculator {factory!r}: {function} returned a {type(calculator).__name__}, no calculator")
    return calculator


def run_with_calculator(protocol: Protocol, start: MDState, calculator: BaseCalculator) -> Finished:
    """All stages of a cell.

    Errors: `ValueError` where the calculator cannot compute the start; `CellFailed` where it fails later on, or the
    cell is no longer physical.
    """
    atoms = Atoms(protocol.elements[start.species], start.positions, cell=start.cell[0], pbc=True)
    atoms.calc = calculator
    try:
        atoms.get_forces()
        if any(isinstance(stage, Quench) or stage.pressure is not None for stage in protocol.plain_stages(_WHO)):
            atoms.get_stress()
    except PropertyNotImplementedError as error:
        raise ValueError(f"the calculator has no {error}, which protocol {protocol.name} needs") from error
    except Exception as error:  # calculators raise whatever comes up
        raise ValueError(f"the calculator cannot compute {atoms.get_chemical_formula()}: {error}") from error
    try:
        return _through_stages(protocol, start, atoms)
    except (ArithmeticError, RuntimeError, ValueError) as error:
        raise CellFailed(f"the calculator failed: {error}") from error


def _through_stages(protocol: Protocol, start: MDState, atoms: Atoms) -> Finished:
    velocities, step, temperature = start.velocities.astype(np.float64), 0, 0.0
    for number, stage in enumerate(protocol.plain_stages(_WHO)):
        if isinstance(stage, Quench):
            _relax(atoms, stage)
            velocities, temperature = _new_velocities(protocol, start, atoms, number), 0.0
        else:
            segment = stage.segment()
            velocities, temperature = _advance(atoms, velocities, segment, seed=int(start.seed[0]), step=step)
            step += segment.n_steps
    return Finished(atoms.positions, atoms.cell.array, float(atoms.get_potential_energy()), temperature)


def _relax(atoms: Atoms, stage: Quench) -> None:
    variable = stage.cell == "variable"
    tolerance, most = stage.force_tolerance, stage.max_steps
    if not relax_atoms(atoms, variable_cell=variable, force_tolerance=tolerance, max_steps=most):
        raise CellFailed("its relaxation did not converge")


def _new_velocities(protocol: Protocol, start: MDState, atoms: Atoms, number: int) -> Float64[np.ndarray, "atoms 3"]:
    """Thermal velocities after stage `number`."""
    state = thermal_state(
        protocol.interaction,
        atoms.positions,
        cell=atoms.cell.array[None],
        n_atoms=start.n_atoms,
        seed=start.seed,
        temperature=protocol.temperature_after(number),
        species=start.species,
        occasion=number + 1,
    )
    return state.velocities.astype(np.float64)


class _Work(NamedTuple):
    """The part of `engine.kernel.Workspace` that thermostat and barostat read and write."""

    total: Any
    control: Any
    metric: Any
    drift: Any


@lru_cache(maxsize=1)
def _attendant() -> Any:
    return c.attendant(compiled())


def _advance(
    atoms: Atoms, velocities: Float64[np.ndarray, "atoms 3"], segment: Segment, *, seed: int, step: int
) -> tuple[Float64[np.ndarray, "atoms 3"], float]:
    """Moves the atoms through a segment; returns velocities and the mean temperature of the second half."""
    n, plan, attend = len(atoms), segment_plan(segment), _attendant()
    cell, fractions = atoms.cell.array.copy(), atoms.get_scaled_positions(wrap=False)
    kick = 0.5 * segment.timestep / (atoms.get_masses()[:, None] * AMU_A2_PER_PS2)
    work = _Work(np.zeros(c.N_SUMS), np.ones(c.N_CONTROLS), np.zeros(9), np.zeros(9))
    record, reaches = np.zeros(c.RECORD), (0.0, 0.0, 0.0, 0.0)
    for local in range(segment.n_steps + 1):
        push = kick * atoms.get_forces()
        if local > 0:
            velocities = velocities + push
        if local == segment.n_steps // 2:
            record[:] = 0.0
        last, coupled = local == segment.n_steps, (step + local) % segment.interval == 0
        if coupled or last:
            _measure(atoms, velocities, push, segment, work.total)
            when = step + local, local / segment.n_steps, segment.interval * segment.timestep
            failure = attend(n, seed, when, last, reaches, plan, cell, record, work)
            if failure:
                raise CellFailed(FAILURES[failure])
            if last:
                break
        velocities = (velocities + push) * (work.control[c.SCALE] if coupled else 1.0)
        fractions += segment.timestep * velocities @ np.linalg.inv(cell)
        atoms.set_cell(cell)
        atoms.set_positions(fractions @ cell)
    return velocities, float(record[3 * c.N_OBSERVABLES] + record[0] / record[c.N_SAMPLES])


def _measure(atoms: Atoms, velocities: np.ndarray, push: np.ndarray, segment: Segment, total: np.ndarray) -> None:
    """Fills the sums over the atoms."""
    mass = atoms.get_masses()[:, None] * AMU_A2_PER_PS2
    after = velocities + push
    total[c.KINETIC] = 0.5 * np.sum(mass * after**2)
    total[c.KINETIC_ON_STEP] = 0.5 * np.sum(mass * velocities**2)
    total[c.ENERGY] = atoms.get_potential_energy()
    if segment.pressure is not None:
        total[c.VIRIAL] = np.trace(atoms.get_stress(voigt=False)) * atoms.get_volume()
    total[c.MASS] = np.sum(mass)
    total[[c.PX, c.PY, c.PZ]] = np.sum(mass * after, axis=0)
