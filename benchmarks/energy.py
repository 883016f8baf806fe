"""Time and memory of the energy model: `python benchmarks/energy.py [--device cuda|cpu] [--layers 4] [--channels 8]`.

`score` is the forward pass of a score model of the same size, `energy` the energy with its gradient, `hmc` an iteration
of Hamiltonian Monte Carlo with 15 evaluations, `step` a training step, which differentiates the gradient once more.
Energies take the fused kernels where there are such, steps cannot.
Samples, ceilings and the floor are those of `network.py`: a gradient costs twice the forward pass, and the derivative
of both twice as much again, so a step is nine forward passes.
"""

import argparse
import time

import torch
import torch._functorch.config as functorch
from network import N_ATOMS, SIDE, ceilings, operations, timed, traffic

from amden.denoising import CPU_CHUNK
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.hmc import HMC_DRAW, Chain, hmc_iteration
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.neighbors import expected_capacity, neighbor_plan
from amden.nn.egnn import EGNNConfig
from amden.nn.energy import EnergyModel
from amden.nn.score import ScoreConfig, ScoreModel
from amden.random import Streams, spawn_seeds

N_VERLET = 15


class Runs:
    """The energy model, eager or compiled, on random silicon-like samples."""

    def __init__(self, config: EGNNConfig, device: torch.device, *, compiled: bool, fused: bool) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = EnergyModel(ScoreConfig(Vocabulary((14,)), egnn=config, energy=True), Diffusion()).to(device)
        self.plain = ScoreModel(ScoreConfig(Vocabulary((14,)), egnn=config)).to(device)
        self.plain.egnn.fuse(device)
        self.model.egnn.fuse(device, fused_kernels=fused)
        if compiled:
            self.model.network.compile(dynamic=False)
            self.plain.network.compile(dynamic=False)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(parameters, lr=1e-3, fused=device.type == "cuda")

    def batch(self, systems: int) -> None:
        """Take this many samples from now on."""
        self.sample = Sample(
            SIDE * torch.rand(systems * N_ATOMS, 3, device=self.device),
            torch.zeros(systems * N_ATOMS, 0, device=self.device),
            SIDE * torch.eye(3, device=self.device).repeat(systems, 1, 1),
            torch.full((systems,), N_ATOMS, device=self.device),
        )
        self.t = torch.linspace(0.05, 0.5, systems, device=self.device)
        cutoff = self.model.config.egnn.cutoff
        room = expected_capacity(self.sample.cell, self.sample.n_atoms, cutoff=cutoff, deviations=3.5)
        self.plan = neighbor_plan(self.sample.cell, self.sample.n_atoms, cutoff=cutoff, capacity=room)

    def score(self) -> torch.Tensor:
        with torch.no_grad(), self._precision():
            return self.plain(self.sample, self.t, plan=self.plan, chunk=self._chunk).positions

    def hmc(self) -> None:
        """An iteration as a denoising does it, from a chain whose energy is known."""
        with torch.no_grad(), self._precision():
            noise = Noise(torch.zeros_like(self.sample.positions), self.sample.elements)
            hmc_iteration(
                self,
                Chain(self.sample, torch.zeros_like(self.t, dtype=torch.float64), noise),
                t=self.t,
                step=torch.full_like(self.t, 0.1),
                n_verlet=N_VERLET,
                diffusion=Diffusion(),
                streams=Streams.of(spawn_seeds(0, len(self.sample)), self.sample.n_atoms),
                draw=HMC_DRAW,
            )

    def __call__(self, sample: Sample, t: torch.Tensor) -> Noise:
        return self.energy_and_noise(sample, t)[1]

    def energy_and_noise(self, sample: Sample, t: torch.Tensor) -> tuple[torch.Tensor, Noise]:
        return self.model.energy_and_noise(sample, t, plan=self.plan, chunk=self._chunk)

    def energy(self) -> torch.Tensor:
        with torch.no_grad():
            return self._evaluated()[0]

    def step(self) -> None:
        loss = (self._evaluated()[1].positions - 1.0).square().mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    def _evaluated(self):
        with self._precision():
            return self.energy_and_noise(self.sample, self.t)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    @property
    def _chunk(self) -> int | None:
        return None if self.device.type == "cuda" or torch.is_grad_enabled() else CPU_CHUNK


def report(runs: Runs, mode: str, systems: int, rates: tuple[float, float], what: list[str]) -> None:
    """One line of the table for each of the calls."""
    runs.batch(systems)
    config, cuda = runs.model.config.egnn, runs.device.type == "cuda"
    neighbors = N_ATOMS / SIDE**3 * 4.18879 * config.cutoff**3
    factors = {"score": 1, "energy": 3, "hmc": 3 * N_VERLET, "step": 9}
    for name in what:
        call, factor = getattr(runs, name), factors[name]
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        call()
        first = time.perf_counter() - start
        seconds = timed(call, runs.device, repeats=11 if cuda else 2, warmup=2 if cuda else 0) / systems
        work = factor * operations(config, neighbors)
        evaluations = N_VERLET if name == "hmc" else 1
        bytes_ = traffic(config, neighbors, step=name == "step", systems=systems)
        floor = max(work / rates[0], evaluations * bytes_ / rates[1])
        memory = torch.cuda.max_memory_allocated() / 2**30 / systems if cuda else float("nan")
        print(f"{mode:9s} {name:7s} {systems:5d} {1e3 * seconds:10.3f} {memory:11.3f} {work / 1e9:8.2f}", end=" ")
        print(f"{1e3 * floor:9.4f} {seconds / floor:7.1f} {first:8.1f}", flush=True)


def main() -> None:
    """Measure until the time is used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 8], help="samples at a time on a GPU")
    parser.add_argument("--what", nargs="+", default=["score", "energy", "hmc", "step"], help="lines of the table")
    parser.add_argument("--tf32", action="store_true", help="matrix products of float32 by TF32 cores, as in training")
    parser.add_argument("--plain", action="store_true", help="energies without fused kernels")
    parser.add_argument("--activations", type=float, help="share of the activations of a compiled step to keep")
    parser.add_argument("--budget", type=float, default=150.0, help="seconds after which no further line is begun")
    options = parser.parse_args()
    if options.tf32:
        torch.set_float32_matmul_precision("high")
    if options.activations is not None:
        functorch.activation_memory_budget = options.activations
    device, start = torch.device(options.device), time.perf_counter()
    rates = ceilings(device)
    config = EGNNConfig(layers=options.layers, channels=options.channels)
    print(f"{device}: {rates[0] / 1e12:.2f} TFLOP/s in a product, {rates[1] / 1e9:.0f} GB/s in a copy; {config}")
    print("mode      what    batch  ms/sample  GiB/sample   GFLOP  floor/ms  ×floor  first/s")
    plan = [("compiled", options.batches), ("eager", (8,))] if device.type == "cuda" else [("eager", (1,))]
    for mode, batches in plan:
        runs = Runs(config, device, compiled=mode == "compiled", fused=not options.plain)
        for systems in batches:
            if time.perf_counter() - start > options.budget:
                print(f"{mode:9s} batch {systems}: no time left")
                continue
            report(runs, mode, systems, rates, options.what)


if __name__ == "__main__":
    main()
