"""Times of the neighbour search: `python benchmarks/neighbors.py [--device cuda] [--threads 2]`."""

import argparse
import time
from collections.abc import Callable

import torch

from amden.neighbors import expected_capacity, neighbor_list, neighbor_matrix, neighbor_plan
from amden.structure import Structures

DENSITY = 0.0521
"""Atoms per Å³ of amorphous silicon."""

CASES = [
    # systems, atoms each, cutoff in Å
    (1, 256, 6.5),
    (32, 256, 6.5),
    (8, 800, 6.5),
    (1, 4000, 6.5),
    (500, 256, 3.0),
    (1, 100_000, 3.0),
]


def random_batch(n_systems: int, n: int, device: str) -> Structures:
    edge = (n / DENSITY) ** (1 / 3)
    generator = torch.Generator().manual_seed(0)
    return Structures(
        edge * torch.rand(n_systems * n, 3, generator=generator),
        torch.full((n_systems * n,), 14),
        edge * torch.eye(3).repeat(n_systems, 1, 1),
        torch.full((n_systems,), n),
    ).to(device)


def best_ms(function: Callable[[], object], device: str, *, repeats: int) -> float:
    """Shortest time of a call, after one to warm up; ten calls at a time on a GPU."""
    n = 10 if device == "cuda" else 1
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(n):
            function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / n)
    return 1e3 * min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'systems':>8}{'atoms':>8}{'cutoff':>8}{'search':>8}{'list ms':>10}{'matrix ms':>11}{'planned ms':>12}")
    for n_systems, n, cutoff in CASES:
        batch = random_batch(n_systems, n, options.device)
        arguments = batch.positions, batch.cell, batch.n_atoms
        capacity = expected_capacity(batch.cell, batch.n_atoms, cutoff=cutoff)
        plan = neighbor_plan(batch.cell, batch.n_atoms, cutoff=cutoff, capacity=capacity)
        searches = (
            lambda b=batch, c=cutoff: neighbor_list(b, cutoff=c),
            lambda a=arguments, c=cutoff: neighbor_matrix(*a, cutoff=c),
            lambda a=arguments, c=cutoff, p=plan: neighbor_matrix(*a, cutoff=c, plan=p),
        )
        figures = [best_ms(search, options.device, repeats=options.repeats) for search in searches]
        kind = "dense" if plan.dense else "binned"
        print(
            f"{n_systems:8}{n:8}{cutoff:8}{kind:>8}{figures[0]:10.2f}{figures[1]:11.2f}{figures[2]:12.2f}", flush=True
        )


if __name__ == "__main__":
    main()
