"""What precision the Metropolis test of HMC needs: `python benchmarks/precision.py [--model M --data D]`.

Chains are noised from data to a time t and brought to the model's own distribution by some iterations in float32. Then
each iteration is done in every precision, from the same start with the same momenta:

- `error`: root mean square of ΔE(precision) - ΔE(float64) between the ends of the trajectory in float64, in k_B T
- `acceptance`: mean of min(1, exp(-ΔH)) along the precision's own trajectory
- `wrong`: mean of |min(1, exp(-ΔH)) - min(1, exp(-ΔH in float64))| between the ends of its own trajectory, the share
  of decisions that float64 energies would turn round
- `⟨exp(-ΔH)⟩`: 1 for any exact energy and chains distributed accordingly, however long the steps are; with its error

Without a model a random one stands for it, without data a diamond of 64 atoms.
"""

import argparse
import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch

from amden.dataset import load_dataset
from amden.diffusion.corruption import corrupt, encode, gaussian_noise
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.hmc import HMC_DRAW, Chain, hmc_iteration
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.model import Model, load_model
from amden.neighbors import neighbor_plan
from amden.nn.egnn import EGNNConfig
from amden.nn.energy import EnergyModel
from amden.nn.score import ScoreConfig
from amden.pretrained import model_path
from amden.random import Streams, spawn_seeds
from amden.structure import Structures
from amden.testing import diamond


@contextmanager
def tensor_float():
    """Matrix products of float32 by TF32 cores."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Evaluated:
    """The model in one precision; remembers where it was asked last."""

    def __init__(self, denoiser: EnergyModel, how: Callable[[], AbstractContextManager], *, atoms: int | None) -> None:
        self.denoiser, self.how, self.atoms = denoiser, how, atoms
        self.dtype = next(denoiser.parameters()).dtype

    def __call__(self, sample: Sample, t: torch.Tensor) -> Noise:
        return self.energy_and_noise(sample, t)[1]

    def energy_and_noise(self, sample: Sample, t: torch.Tensor) -> tuple[torch.Tensor, Noise]:
        self.last = cast = converted(sample, self.dtype)
        plan = neighbor_plan(cast.cell, cast.n_atoms, cutoff=self.denoiser.config.egnn.cutoff)
        with self.how():
            energy, noise = self.denoiser.energy_and_noise(cast, t.to(self.dtype), plan=plan, chunk=self.atoms)
        return energy, Noise(noise.positions.to(sample.positions), noise.elements.to(sample.elements))


def converted(sample: Sample, dtype: torch.dtype) -> Sample:
    """The sample in another precision."""
    parts = {name: getattr(sample, name).to(dtype) for name in ("positions", "elements", "cell")}
    return replace(sample, **parts)


def precisions(denoiser: EnergyModel, device: torch.device) -> dict[str, Evaluated]:
    """The model in every precision that the device has."""
    atoms = None if device.type == "cuda" else 32
    kinds = {"float32": nullcontext, "bfloat16": lambda: torch.autocast(device.type, dtype=torch.bfloat16)}
    if device.type == "cuda":
        kinds["TF32"] = tensor_float
    found = {name: Evaluated(denoiser, how, atoms=atoms) for name, how in kinds.items()}
    return {"float64": Evaluated(copy.deepcopy(denoiser).double(), nullcontext, atoms=atoms), **found}


def random_model() -> Model:
    """An energy model of random weights, large enough to be rough."""
    torch.manual_seed(0)
    config = ScoreConfig(Vocabulary((14,)), egnn=EGNNConfig(layers=3, hidden=64, channels=4), energy=True)
    denoiser = EnergyModel(config, Diffusion())
    with torch.no_grad():
        for name, p in denoiser.named_parameters():
            if "coordinate.out" in name:
                p.copy_(0.05 * torch.randn(p.shape))
    return Model(denoiser.eval().requires_grad_(False), Diffusion())


class Chains:
    """Some chains at one time t."""

    def __init__(self, model: Model, data: Structures, t: float, options: argparse.Namespace) -> None:
        self.model, self.options = model, options
        self.streams = Streams.of(spawn_seeds(options.seed, len(data)).to(data.device), data.n_atoms)
        clean = encode(data, model.denoiser.config.vocabulary)
        self.t = torch.full((len(data),), t, dtype=torch.float64, device=data.device)
        self.sample = corrupt(clean, self.t, gaussian_noise(clean, self.streams), model.diffusion)

    def moved(self, denoiser: Evaluated, number: int):
        """One iteration from where the chains are."""
        sample = converted(self.sample, denoiser.dtype)
        return hmc_iteration(
            denoiser,
            Chain.at(denoiser, sample, self.t),
            t=self.t,
            step=torch.full_like(self.t, self.options.step),
            n_verlet=self.options.verlet,
            diffusion=self.model.diffusion,
            streams=self.streams,
            draw=HMC_DRAW + 2 * number,
        )

    def advance(self, denoiser: Evaluated, number: int) -> None:
        """Go on to where an iteration leads."""
        self.sample = converted(self.moved(denoiser, number).chain.sample, torch.float32)


def measure(chains: Chains, known: dict[str, Evaluated]) -> dict[str, list[torch.Tensor]]:
    """Of each precision: errors, acceptance, wrong decisions, exp(-ΔH), for all chains and iterations."""
    options, exact = chains.options, known["float64"]
    found: dict[str, list[torch.Tensor]] = {name: [] for name in known}
    for number in range(options.burn):
        chains.advance(known["float32"], number)
    for number in range(options.burn, options.burn + options.iterations):
        moves = {name: (chains.moved(denoiser, number), denoiser.last) for name, denoiser in known.items()}
        ends = chains.sample, moves["float64"][1]
        true = difference(exact, *ends, chains.t)
        for name, denoiser in known.items():
            move, own_end = moves[name]
            own = difference(denoiser, chains.sample, own_end, chains.t)
            better = move.change + difference(exact, chains.sample, own_end, chains.t) - own
            wrong = torch.exp(-better.clamp(min=0)) - torch.exp(-move.change.clamp(min=0))
            error = difference(denoiser, *ends, chains.t) - true
            found[name].append(torch.stack([error, move.probability, wrong.abs(), torch.exp(-move.change)]))
        chains.advance(known["float32"], number)
    return found


def difference(denoiser: Evaluated, start: Sample, end: Sample, t: torch.Tensor) -> torch.Tensor:
    """ΔE between two samples."""
    (before, _), (after, _) = (denoiser.energy_and_noise(sample, t) for sample in (start, end))
    return after - before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint or run folder of an energy model")
    parser.add_argument("--data", help="dataset or structure file to start from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--times", type=float, nargs="+", default=[0.02, 0.1, 0.3])
    parser.add_argument("--chains", type=int, default=0, help="[default: 2 on a CPU, 16 on a GPU]")
    parser.add_argument("--burn", type=int, default=3, help="iterations before the first measurement")
    parser.add_argument("--iterations", type=int, default=2, help="iterations that are measured")
    parser.add_argument("--step", type=float, default=0.4, help="dt₀")
    parser.add_argument("--verlet", type=int, default=15, help="velocity Verlet steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = torch.device(options.device)
    chains = options.chains or (16 if device.type == "cuda" else 2)
    model = load_model(model_path(options.model)) if options.model else random_model()
    data = load_dataset(options.data) if options.data else diamond((2, 2, 2))
    data = data.select([i % len(data) for i in range(chains)]).to(device, dtype=torch.float32)
    known = precisions(model.denoiser.to(device), device)  # pyright: ignore[reportArgumentType]
    print(f"{options.model or 'random model'} on {device}, {chains} chains of {int(data.n_atoms[0])} atoms, {options}")
    print("   t  precision    error/kT  acceptance   wrong       ⟨exp(-ΔH)⟩   seconds", flush=True)
    for t in options.times:
        start = time.perf_counter()
        with torch.no_grad():
            found = measure(Chains(model, data, t, options), known)
        seconds = time.perf_counter() - start
        for name, rows in found.items():
            error, accepted, wrong, weight = torch.cat(rows, 1).cpu()
            spread = float(weight.std() / len(weight) ** 0.5)
            line = f"{t:5.2f} {name:9s} {float(error.square().mean().sqrt()):11.2e} {float(accepted.mean()):10.3f}"
            line += f" {float(wrong.mean()):9.4f} {float(weight.mean()):9.3f} ± {spread:.3f} {seconds:9.0f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
