"""How well a melt's score knows the forces: `python benchmarks/forces.py [--model si-melt] [--n 4]`.

A melt is Boltzmann distributed, so at small noise the exact score is the force over k_B T (eq. 1, 2 with the physical
temperature). The table compares the model's score with Stillinger-Weber forces on unseen melts: their correlation, and
the slope of the model's against the exact, which falls below 1 as the noise smooths the distribution. Seconds on a CPU.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from amden.dataset import load_dataset
from amden.diffusion.corruption import encode
from amden.model import load_model
from amden.pretrained import model_path
from amden.simulate.potentials import StillingerWeber, evaluate
from amden.units import KB

TEMPERATURE = 2500.0
REFERENCE = Path(__file__).parent.parent / "examples" / "si-melt-reference.extxyz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="si-melt")
    parser.add_argument("--n", type=int, default=4, help="melts")
    arguments = parser.parse_args()
    model = load_model(model_path(arguments.model))
    melts = load_dataset(REFERENCE, dtype=torch.float64).select(range(arguments.n))
    found = evaluate(StillingerWeber(), melts.positions.numpy(), melts.cell.numpy(), melts.n_atoms.numpy())
    exact = found.forces / (KB * TEMPERATURE)
    sample = encode(melts.to(dtype=torch.float32), model.denoiser.config.vocabulary)
    print(f"{'t':>5} {'σ (Å)':>6} {'correlation':>11} {'slope':>6}")
    for t in (0.01, 0.02, 0.03, 0.05):
        sigma = float(model.diffusion.positions.sigma(torch.tensor(t)))
        with torch.inference_mode():
            noise = model.denoiser(sample, torch.full((len(melts),), t), chunk=128)
        score = -noise.positions.double().numpy() / sigma
        product = (score * exact).sum()
        correlation = product / np.sqrt((score**2).sum() * (exact**2).sum())
        print(f"{t:5.2f} {sigma:6.3f} {correlation:11.3f} {product / (exact**2).sum():6.2f}")


if __name__ == "__main__":
    main()
