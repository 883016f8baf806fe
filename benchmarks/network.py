"""Time, memory and distance from the floor of the network: `python benchmarks/network.py [--device cuda|cpu]`.

A sample is 256 atoms at the density of silicon, cutoff 6.5 Å. `forward` has no gradients (a denoising step but for the
neighbour search), `step` is forward, backward and Adam. The floor is the larger of two times: operations on real
neighbours over the rate of a large matrix product, and bytes that must be read or written over the rate of a large
copy, both measured here first. On a GPU products are bfloat16 (autocast), on a CPU float32.
"""

import argparse
import time
from collections.abc import Callable

import torch

from amden.neighbors import neighbor_matrix
from amden.nn.egnn import EGNN, EGNNConfig

N_ATOMS, SIDE = 256, 17.25
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def timed(call: Callable[[], object], device: torch.device, *, repeats: int, warmup: int) -> float:
    """Median time of a call in seconds."""
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def ceilings(device: torch.device) -> tuple[float, float]:
    """Operations and bytes a second of a large product and a large copy."""
    gpu = device.type == "cuda"
    n = 8192 if gpu else 1024
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if gpu else torch.float32)
    b = torch.randn(2**28 if gpu else 2**24, device=device)
    product = timed(lambda: a @ a, device, repeats=5, warmup=2)
    return 2 * n**3 / product, 8 * b.numel() / timed(b.clone, device, repeats=5, warmup=2)


def inputs(systems: int, cutoff: float, device: torch.device) -> tuple[Inputs, float]:
    """A batch and its mean number of neighbours."""
    torch.manual_seed(0)
    positions = SIDE * torch.rand(systems * N_ATOMS, 3, device=device)
    cell = SIDE * torch.eye(3, device=device).repeat(systems, 1, 1)
    sizes = torch.full((systems,), N_ATOMS, device=device)
    found = neighbor_matrix(positions, cell, sizes, cutoff=cutoff)
    features = torch.rand(len(positions), 1, device=device)
    return (features, positions, found.target, found.offset), float(found.n_neighbors.float().mean())


def operations(config: EGNNConfig, neighbors: float) -> float:
    """Multiplications and additions of a forward pass, for a sample: products alone."""
    h, k = config.hidden, config.channels
    edge = 2 * h * (k + 1) * 2 + 2 * h * h + 2 * h * k * k + 6 * k * k
    atom = 4 * 2 * h * h + 2 * 2 * h * h + 2 * h * h
    return config.layers * N_ATOMS * (edge * neighbors + atom)


def traffic(config: EGNNConfig, neighbors: float, *, step: bool, systems: int) -> float:
    """Bytes for a sample: neighbours and positions in, h and u out, parameters; a step has Adam's state, twice."""
    parameters = config.layers * (10 * config.hidden**2 + config.hidden * config.channels**2)
    shared = parameters * 4 * (7 if step else 1) / systems
    return N_ATOMS * (neighbors * 20 + 12 + config.hidden * 2 + config.channels * 12) + shared


class Runs:
    """The network in one mode, called forward and for a training step."""

    def __init__(self, mode: str, config: EGNNConfig, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self.net = EGNN(config, features=1).to(device)
        if mode.startswith("fused"):
            self.net.fuse(device)
        self.call = torch.compile(self.net) if "compiled" in mode else self.net
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-3, fused=True)

    def forward(self, given: Inputs) -> torch.Tensor:
        with torch.no_grad():
            return self._displaced(given)

    def step(self, given: Inputs) -> None:
        loss = (self._displaced(given)[:, 0] - given[1]).square().mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    def _displaced(self, given: Inputs) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.call(*given)[1]


def report(runs: Runs, mode: str, systems: int, rates: tuple[float, float]) -> None:
    """One line of the table for each of forward and step."""
    config, device = runs.net.config, runs.device
    given, neighbors = inputs(systems, config.cutoff, device)
    for name, call, factor in (("forward", runs.forward, 1), ("step", runs.step, 3)):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        call(given)
        first = time.perf_counter() - start
        repeats, warmup = (15, 2) if device.type == "cuda" else (3, 0)
        seconds = timed(lambda c=call: c(given), device, repeats=repeats, warmup=warmup) / systems
        work = factor * operations(config, neighbors)
        moved = traffic(config, neighbors, step=factor > 1, systems=systems)
        floor = max(work / rates[0], moved / rates[1])
        memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
        print(f"{mode:15s} {name:8s} {systems:5d} {1e3 * seconds:10.4f} {memory:8.2f} {work / 1e9:8.2f}", end=" ")
        print(f"{moved / 1e6:7.2f} {1e3 * floor:9.4f} {seconds / floor:7.1f} {first:8.1f}", flush=True)


def main() -> None:
    """Measure until the time is used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", type=float, default=80.0, help="seconds after which no further line is begun")
    options = parser.parse_args()
    device, start = torch.device(options.device), time.perf_counter()
    rates = ceilings(device)
    print(f"{device}: {rates[0] / 1e12:.2f} TFLOP/s in a product, {rates[1] / 1e9:.0f} GB/s in a copy")
    print("mode            what     batch  ms/sample      GiB   GFLOP      MB  floor/ms ×floor  first/s")
    plan = [("fused compiled", (32, 8, 1)), ("eager", (32, 8, 1)), ("compiled", (32, 8, 1))]
    for mode, batches in plan if device.type == "cuda" else [("fused", (1,)), ("eager", (1,))]:
        runs = Runs(mode, EGNNConfig(), device)
        for systems in batches:
            if time.perf_counter() - start > options.budget:
                print(f"{mode:15s} batch {systems}: no time left")
                continue
            report(runs, mode, systems, rates)


if __name__ == "__main__":
    main()
