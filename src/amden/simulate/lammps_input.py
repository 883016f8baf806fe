"""A protocol as LAMMPS input: the same start, stages and potential parameters, in files that any LAMMPS can run.

The thermostat is the engine's own (stochastic velocity rescaling, `fix temp/csvr`). LAMMPS has no stochastic cell
rescaling; its Langevin piston (`fix press/langevin`) samples the same ensemble, and follows a sudden change of
temperature in its own way: means of what is no equilibrium, such as the density of a quench, differ a little.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np

from amden.elements import MASSES, symbol
from amden.simulate.engine import MDState
from amden.simulate.potentials import ChargedNetwork, Potential, ScreenedAngles, StillingerWeber, Tersoff
from amden.simulate.protocol import Protocol
from amden.simulate.stages import Quench, Stage
from amden.storage import replacing

SCRIPT, START, FINAL, PARAMETERS = "in.lammps", "start.data", "final.data", "potential.txt"

_BAR_PER_GPA = 1e4
_MOST_SEED = 900_000_000
_SAMPLES_EVERY = 10
_ROUNDS = 10
"""Minimisations in a row: `fix box/relax` measures strain from where each began."""


@dataclass(frozen=True)
class Deck:
    """Input files of one cell by their names; `in.lammps` is the script, which writes `final.data`."""

    files: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Into a folder, made if need be."""
        for name, text in self.files.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def lammps_deck(protocol: Protocol, start: MDState) -> Deck:
    """The input for one cell that begins with `start`, as `random_start` makes it.

    Errors: `ValueError` for a potential that LAMMPS is not told about here, or a protocol that adapts to its cells.
    """
    commands, parameters = pair_commands(protocol.interaction)
    seed = int(start.seed[0])
    lines = [
        f"# {protocol.name}: {protocol.doc}",
        "units metal",
        f"atom_style {_atom_style(protocol.interaction)}",
        "boundary p p p",
        f"read_data {START}",
        *commands,
        "neighbor 1.0 bin",
        "neigh_modify every 1 delay 0 check yes",
        "compute kelvin all temp",
        "thermo 1000",
        "thermo_style custom step temp pe press density fmax",
    ]
    steps = 0
    for number, stage in enumerate(protocol.plain_stages("LAMMPS")):
        mixed = (seed ^ (seed >> 31)) + 7919 * (number + 1)
        seeds = mixed % _MOST_SEED + 1, (mixed + 104729) % _MOST_SEED + 1
        lines += ["", f"# stage {number + 1}"]
        if isinstance(stage, Quench):
            lines += [*_minimisation(stage), f"variable {force_left(number)} equal $(fmax)"]
            if protocol.temperature_after(number) > 0.0:
                kelvin = f"{protocol.temperature_after(number):.17g}"
                lines.append(f"velocity all create {kelvin} {seeds[0]} mom yes rot no dist gaussian")
            continue
        last = number == len(protocol.stages) - 1
        lines += _dynamics(stage, seeds, steps if last else None)
        steps += stage.segment().n_steps
    lines += ["", f"write_data {FINAL}", ""]
    return Deck({SCRIPT: "\n".join(lines), START: _data(protocol, start), PARAMETERS: parameters})


def _dynamics(stage: Stage, seeds: tuple[int, int], measured_from: int | None) -> list[str]:
    """Commands of a stage of molecular dynamics; of the last, which begins at a step, with its mean temperature."""
    segment = stage.segment()
    hot, cold = stage.temperature
    lines = [
        f"timestep {stage.timestep:.17g}",
        "fix move all nve",
        f"fix heat all temp/csvr {hot:.17g} {cold:.17g} {stage.tau_T:.17g} {seeds[0]}",
    ]
    if stage.pressure is not None:
        bar = stage.pressure * _BAR_PER_GPA
        piston = f"{bar:.17g} {bar:.17g} {stage.tau_P:.17g} temp {hot:.17g} {cold:.17g} {seeds[1]}"
        lines.append(f"fix press all press/langevin iso {piston}")
    if measured_from is not None:
        half = measured_from + segment.n_steps // 2
        lines.append(f"fix mean all ave/time {_SAMPLES_EVERY} 1 {_SAMPLES_EVERY} c_kelvin ave running start {half}")
    lines.append(f"run {segment.n_steps}")
    if measured_from is not None:
        lines += ["variable mean_temperature equal f_mean", 'print "mean temperature ${mean_temperature} K"']
    fixes = ("heat", "move", *(["press"] if stage.pressure is not None else []))
    return lines + [f"unfix {fix}" for fix in fixes]


def force_left(number: int) -> str:
    """The variable that holds the largest force, in eV/Å, at the end of stage `number`, a quench."""
    return f"force_left_{number + 1}"


def _minimisation(stage: Quench) -> list[str]:
    """Commands that relax the atoms, and the cell if it is variable."""
    once = f"minimize 0 {stage.force_tolerance:.17g} {stage.max_steps} {2 * stage.max_steps}"
    lines = ["min_style cg", "min_modify line quadratic"]
    if stage.cell == "fixed":
        return [*lines, once]
    with_cell = ["fix relax all box/relax tri 0 vmax 0.001", once, "unfix relax"]
    return ["change_box all triclinic", *lines, *(_ROUNDS * with_cell)]


def _data(protocol: Protocol, start: MDState) -> str:
    """The start as a LAMMPS data file; the cell of a random start is a cube."""
    cell, species = start.cell[0], start.species
    if np.count_nonzero(cell - np.diag(np.diagonal(cell))):
        raise ValueError("`start` must have a rectangular cell")
    lines = [f"start of {protocol.name}, seed {int(start.seed[0])}", "", f"{len(species)} atoms"]
    lines += [f"{len(protocol.elements)} atom types", ""]
    lines += [f"0 {length:.17g} {x}lo {x}hi" for length, x in zip(np.diagonal(cell), "xyz", strict=True)]
    lines += ["", "Masses", ""]
    lines += [f"{k + 1} {MASSES[z]:.17g}  # {symbol(int(z))}" for k, z in enumerate(protocol.elements)]
    style = _atom_style(protocol.interaction)
    charge = " 0" if style == "charge" else ""  # `pair_commands` sets them
    lines += ["", f"Atoms # {style}", ""]
    atoms = enumerate(zip(species, start.positions, strict=True))
    lines += [f"{i + 1} {s + 1}{charge} {_numbers(r)}" for i, (s, r) in atoms]
    lines += ["", "Velocities", ""]
    lines += [f"{i + 1} {_numbers(v)}" for i, v in enumerate(start.velocities.astype(np.float64))]
    return "\n".join([*lines, ""])


def _atom_style(potential: Potential) -> str:
    return "charge" if isinstance(potential, ChargedNetwork) else "atomic"


def pair_commands(potential: Potential, *, parameters: str = PARAMETERS) -> tuple[list[str], str]:
    """Commands that set the potential of types in the order of its species, and the text of the file they read.

    Atoms of a potential with charges are of style `charge` and get them here.
    """
    elements = " ".join(potential.symbols)
    if isinstance(potential, StillingerWeber):
        return ["pair_style sw", f"pair_coeff * * {parameters} {elements}"], _stillinger_weber(potential)
    if isinstance(potential, Tersoff):
        return ["pair_style tersoff", f"pair_coeff * * {parameters} {elements}"], _tersoff(potential)
    if isinstance(potential, ChargedNetwork):
        return _charged_network(potential, parameters), _screened_angles(potential.angles)
    raise ValueError(f"LAMMPS input is not written for the potential {type(potential).__name__}")


def _charged_network(potential: ChargedNetwork, parameters: str) -> list[str]:
    """Contact terms with exp(-2ar) are written in the parameters of Morse's potential, the others as Buckingham's."""
    sums, n = potential.pair_sums, len(potential.symbols)
    reach = f"{sums.contact_cutoff:.17g}"
    style = f"hybrid/overlay coul/dsf {sums.damping:.17g} {sums.cutoff:.17g} pedone {reach} buck {reach} nb3b/screened"
    lines = [f"set type {k + 1} charge {charge:.17g}" for k, charge in enumerate(sums.charges)]
    lines += [f"pair_style {style}", "pair_coeff * * coul/dsf"]
    for s in range(n):
        for t in range(s, n):
            c = sums.contacts[s * n + t]
            if c.P > 0.0:
                numbers = c.Q**2 / (4.0 * c.P), c.a, log(-2.0 * c.P / c.Q) / c.a, c.B
                lines.append(f"pair_coeff {s + 1} {t + 1} pedone {_numbers(numbers)}")
            elif c.Q > 0.0:
                lines.append(f"pair_coeff {s + 1} {t + 1} buck {_numbers((c.Q, 1.0 / c.a, 0.0))}")
    return [*lines, f"pair_coeff * * nb3b/screened {parameters} {' '.join(potential.symbols)}"]


def _screened_angles(angles: ScreenedAngles) -> str:
    """Entry i j k: the centre is of i; the cutoff of i and j is read where j = k."""
    n, lines = len(angles.symbols), ["# K theta0 rho cutoff"]
    for i, center in enumerate(angles.symbols):
        bends = max(angles.strengths[i * n * n : (i + 1) * n * n]) > 0.0
        for j, one in enumerate(angles.symbols):
            for k, other in enumerate(angles.symbols):
                strength = angles.strengths[(i * n + j) * n + k]
                reach = min(angles.cutoffs[i][j], angles.cutoffs[i][k]) if bends else 0.0
                lines.append(f"{center} {one} {other} {_numbers((strength, angles.theta0, angles.rho, reach))}")
    return "\n".join([*lines, ""])


def _stillinger_weber(sw: StillingerWeber) -> str:
    numbers = sw.eps, sw.sigma, sw.a, sw.lam, sw.gamma, sw.cos_theta0, sw.A, sw.B, float(sw.p), float(sw.q), 0.0
    return f"# epsilon sigma a lambda gamma cos_theta0 A B p q tol\n{' '.join([sw.symbol] * 3)} {_numbers(numbers)}\n"


def _tersoff(potential: Tersoff) -> str:
    """Entry i j k: the centre is of i, the cutoff of i and k, and the pair functions of i and j, read where j = k."""
    n, lines = len(potential.symbols), ["# m gamma lambda3 c d cos_theta0 n beta lambda2 B R D lambda1 A"]
    for i, center in enumerate(potential.centers):
        for j in range(n):
            for k in range(n):
                bond, reach = potential.pairs[i * n + j], potential.pairs[i * n + k]
                names = " ".join(potential.symbols[species] for species in (i, j, k))
                middle, half = 0.5 * (reach.R + reach.S), 0.5 * (reach.S - reach.R)
                around = 3.0, 1.0, 0.0, center.c, center.d, center.h, center.n, center.beta
                lines.append(f"{names} {_numbers((*around, bond.lambda2, bond.B, middle, half, bond.lambda1, bond.A))}")
    return "\n".join([*lines, ""])


def _numbers(values: object) -> str:
    return " ".join(f"{float(x):.17g}" for x in np.asarray(values, np.float64))
