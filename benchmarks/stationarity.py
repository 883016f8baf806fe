"""Whether a model's dynamics leave real glass as it is: `python benchmarks/stationarity.py [MODEL REFERENCE]`.

Real structures are noised to time t, moved by Langevin dynamics in the model's score there, denoised and relaxed with
their cells. With the true score the noised data are the equilibrium of those dynamics, so nothing may change however
long they are: what does is the model's error at that t, in the terms of a glass. It also tells up to which t it is safe
to relax samples while they are denoised. The first line is the data, relaxed.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch

from amden.analysis.rdf import rdf
from amden.commands import pick_device
from amden.dataset import load_dataset
from amden.diffusion.corruption import add_ghosts, corrupt, decode, encode, gaussian_noise
from amden.diffusion.denoiser import Sample
from amden.diffusion.langevin import LANGEVIN_DRAW, LangevinConfig, langevin_dynamics
from amden.diffusion.sampler import STEP_DRAW, euler_maruyama
from amden.model import Model, load_model
from amden.neighbors import neighbor_matrix
from amden.pretrained import model_path
from amden.properties import at_rest
from amden.random import Streams, spawn_seeds
from amden.structure import Structures

DENOISING_STEPS = 25


def moved(model: Model, data: Sample, streams: Streams, *, t: float, n_steps: int) -> Structures:
    """The data after that many steps of the dynamics at time t, denoised again."""
    now = data.positions.new_full((len(data),), t)
    sample = corrupt(data, now, gaussian_noise(data, streams, draw=0), model.diffusion)
    if n_steps:
        config = LangevinConfig(n_steps=n_steps)
        how = {"config": config, "diffusion": model.diffusion, "streams": streams, "draw": LANGEVIN_DRAW}
        sample, _, _ = langevin_dynamics(model.denoiser, sample, t=t, **how)
    times = torch.cat([torch.linspace(t, model.diffusion.t_min, DENOISING_STEPS), torch.zeros(1)])
    how = {"diffusion": model.diffusion, "streams": streams, "first_draw": STEP_DRAW}
    end = euler_maruyama(model.denoiser, sample, times=times, **how)
    made = decode(end, model.denoiser.config.vocabulary).without_ghosts().wrapped()
    return replace(made.to("cpu", dtype=torch.float64), properties={})


def noiseless(model: Model, reference: Structures, seed: int, device: torch.device) -> tuple[Sample, Streams]:
    """The structures as the model is given them, with ghosts if it has them, and random numbers for them."""
    seeds, ghosts = spawn_seeds(seed, len(reference)), model.denoiser.config.ghost_density
    if ghosts is not None:
        reference = add_ghosts(reference, density=ghosts, streams=Streams.of(seeds, reference.n_atoms))
    streams = Streams.of(seeds.to(device), reference.n_atoms.to(device))
    return encode(reference.to(device), model.denoiser.config.vocabulary), streams


def row(made: Structures, g: np.ndarray | None, bond: float, *, moduli: bool) -> tuple[list[str], np.ndarray]:
    """Numbers of the structures at rest, and their g(r)."""
    made = at_rest(made, ["density", *(["moduli"] if moduli else [])])
    energy = made.properties["potential_energy"].double()
    energy = energy[energy.isfinite()]
    bonds = neighbor_matrix(made.positions, made.cell, made.n_atoms, cutoff=bond).n_neighbors.double().mean()
    own = rdf(made).g
    off = "" if g is None else f"{np.sqrt(np.mean((own - g) ** 2)):.3f}"
    error = 1000.0 * energy.std().item() / len(energy) ** 0.5
    density = made.properties["density"].double().nanmean()
    stiffness = [f"{made.properties['youngs_modulus'].double().nanmean():.1f}"] if moduli else []
    return [f"{energy.mean():.4f}", f"{error:.1f}", f"{density:.3f}", f"{bonds:.2f}", off, *stiffness], own


def line(*columns: str) -> None:
    """Print a line of the table."""
    print("".join(f"{text:>15}" for text in columns), flush=True)


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="si-melt")
    parser.add_argument("reference", nargs="?", default="examples/si-melt-reference.extxyz")
    gpu = torch.cuda.is_available()
    parser.add_argument("--n", type=int, default=64 if gpu else 2, help="structures")
    parser.add_argument("--t", type=float, nargs="+", default=[0.1, 0.13, 0.16, 0.2, 0.3] if gpu else [0.1, 0.3])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 60, 240] if gpu else [0, 30])
    parser.add_argument("--bond", type=float, default=2.9, help="bonds are shorter than this, in Å")
    parser.add_argument("--moduli", action="store_true", help="tell Young's modulus too")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    device = pick_device("auto")
    model = load_model(model_path(options.model), device=device)
    model.denoiser.egnn.fuse(device)
    reference = replace(load_dataset(options.reference), properties={})
    reference = reference.select(range(min(options.n, len(reference))))
    data, streams = noiseless(model, reference, options.seed, device)
    line("t", "steps", "eV/atom", "± meV", "g/cm³", "bonds an atom", "g(r), RMSD", *(["E, GPa"] * options.moduli))
    numbers, g = row(reference.to("cpu", dtype=torch.float64), None, options.bond, moduli=options.moduli)
    line("data", "", *numbers)
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda"):
        for t in options.t:
            for n_steps in options.steps:
                made = moved(model, data, streams, t=t, n_steps=n_steps)
                line(f"{t:g}", f"{n_steps}", *row(made, g, options.bond, moduli=options.moduli)[0])


if __name__ == "__main__":
    main()
