"""The cells of a batch that are still running, and what is known of them; how some leave it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int64

from amden.simulate.engine import FAILURES, MDState, Record
from amden.simulate.snapshot import Snapshot

_CELLS, _ATOMS = "cells.", "atoms."


@dataclass(frozen=True, eq=False)
class Batch:
    """A state, and by name what was noted of its cells and of its atoms.

    Every cell has `potential_energy` (eV an atom), and `temperature`, a sum over the `n_samples` since the last
    `forgetting`. Once no cell is left, the state is that of the last launch.
    """

    state: MDState
    places: Int64[np.ndarray, " alive"]
    """Of the cells in the batch that was begun."""
    of_cells: Mapping[str, np.ndarray]
    """Arrays with a row a cell."""
    of_atoms: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arrays with a row an atom."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """Why the others were lost, by their places."""

    @staticmethod
    def begun(state: MDState) -> "Batch":
        """With all cells, before anything was measured."""
        n = state.n_systems
        measured = {"temperature": np.zeros(n), "n_samples": np.zeros(n, np.int64), "potential_energy": np.zeros(n)}
        return Batch(state, np.arange(n), measured)

    @staticmethod
    def of(kept: Snapshot) -> "Batch":
        """That of which `measured` was kept."""
        cells, atoms = (
            {name.removeprefix(kind): values for name, values in kept.measured.items() if name.startswith(kind)}
            for kind in (_CELLS, _ATOMS)
        )
        return Batch(kept.state, cells.pop("places"), cells, atoms, kept.failures)

    @property
    def measured(self) -> dict[str, np.ndarray]:
        """All that a snapshot must keep beside state and failures."""
        cells = {_CELLS + name: values for name, values in {**self.of_cells, "places": self.places}.items()}
        return cells | {_ATOMS + name: values for name, values in self.of_atoms.items()}

    def __len__(self) -> int:
        return len(self.places)

    def noting(self, **of_cells: np.ndarray) -> "Batch":
        """With more, or newer, known of the cells."""
        return replace(self, of_cells={**self.of_cells, **of_cells})

    def noting_atoms(self, **of_atoms: np.ndarray) -> "Batch":
        """With more, or newer, known of the atoms."""
        return replace(self, of_atoms={**self.of_atoms, **of_atoms})

    def dropping(self, *names: str) -> "Batch":
        """Without what was noted under these names."""
        cells, atoms = (
            {name: values for name, values in all_.items() if name not in names}
            for all_ in (self.of_cells, self.of_atoms)
        )
        return replace(self, of_cells=cells, of_atoms=atoms)

    def forgetting(self) -> "Batch":
        """Without samples of the temperature."""
        zeros = {name: np.zeros_like(self.of_cells[name]) for name in ("temperature", "n_samples")}
        return self.noting(**zeros)

    def without(self, lost: Mapping[int, str]) -> "Batch":
        """Without some cells: the reasons by their numbers among those still running."""
        if not lost:
            return self
        ok = np.ones(len(self), bool)
        ok[list(lost)] = False
        atoms = np.repeat(ok, self.state.n_atoms[: len(self)])
        return Batch(
            selected(self.state, ok),
            self.places[ok],
            {name: values[ok] for name, values in self.of_cells.items()},
            {name: values[atoms] for name, values in self.of_atoms.items()},
            {**self.failures, **{int(self.places[i]): why for i, why in lost.items()}},
        )

    def after(self, state: MDState, record: Record, *, ran: Bool[np.ndarray, " alive"]) -> "Batch":
        """After a launch of the cells that `ran`, of which are `state` and `record`: with them, without what failed."""
        known = {name: self.of_cells[name].copy() for name in ("temperature", "n_samples", "potential_energy")}
        with np.errstate(invalid="ignore"):
            known["temperature"][ran] += record.mean.temperature * record.n_samples
        known["n_samples"][ran] += record.n_samples
        known["potential_energy"][ran] = record.final.potential_energy
        place = np.flatnonzero(ran)
        lost = {int(place[i]): FAILURES[int(f)] for i, f in enumerate(record.failure) if f}
        return replace(self, state=_put(self.state, state, ran)).noting(**known).without(lost)


def _put(whole: MDState, part: MDState, chosen: Bool[np.ndarray, " systems"]) -> MDState:
    """A state in which the chosen systems are those of another."""
    if chosen.all():
        return part
    atoms = np.repeat(chosen, whole.n_atoms)
    new = {name: getattr(whole, name).copy() for name in ("positions", "velocities", "cell", "step")}
    for name, values in new.items():
        values[atoms if name in ("positions", "velocities") else chosen] = getattr(part, name)
    return replace(whole, **new)


def selected(state: MDState, chosen: Bool[np.ndarray, " systems"]) -> MDState:
    """The chosen systems of a state, or all where none is chosen; a failed one would be refused by the next launch."""
    if chosen.all() or not chosen.any():
        return state
    atoms = np.repeat(chosen, state.n_atoms)
    return MDState(
        positions=state.positions[atoms],
        velocities=state.velocities[atoms],
        cell=state.cell[chosen],
        species=state.species[atoms],
        n_atoms=state.n_atoms[chosen],
        seed=state.seed[chosen],
        step=state.step[chosen],
    )
