"""Time and memory an atom over the size of the cell: `python benchmarks/sizes.py [MODEL] [--atoms 500 20000]`.

One evaluation of a shipped model as generation calls it, neighbour search included, of cells of that many atoms (and
the ghosts of a model that has them) from its prior, and of batches of small cells as large as the largest. A local
network costs the same an atom whatever the cell: what grows is overhead. Times are the shortest of some, on a CPU the
seconds of all its threads, as other work on a machine only adds to them. Memory is that of the process at its most, on
a GPU as the allocator counts it; so sizes go up.
"""

import argparse
import resource
import time

import torch
from rich.console import Console
from rich.table import Table

from amden.blank import Blank, cubic_blank
from amden.commands import pick_device
from amden.denoising import BatchRun
from amden.model import Model, load_model
from amden.neighbors import expected_capacity
from amden.pretrained import model_path
from amden.random import Streams, spawn_seeds


def evaluation(model: Model, device: torch.device, *, atoms: int, n: int, repeats: int) -> tuple[float, int, float]:
    """Least seconds of one evaluation, atoms with ghosts, GiB at its most."""
    blank, gpu = cubic_blank(model, n, atoms=atoms), device.type == "cuda"
    cutoff = model.denoiser.config.egnn.cutoff
    capacity = expected_capacity(blank.cell, blank.n_atoms, cutoff=cutoff) if gpu else None
    blank = Blank(blank.cell.to(device), blank.n_atoms.to(device))
    streams = Streams.of(spawn_seeds(0, n).to(device), blank.n_atoms)
    run = BatchRun(model, blank, streams, capacity, None, {})
    sample = run.start
    t = sample.positions.new_full((n,), 0.3)
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    times, clock = [], time.perf_counter if gpu else time.process_time
    with torch.no_grad(), run.precision():
        for _ in range(repeats + 1):
            began = clock()
            run(sample, t)
            if gpu:
                torch.cuda.synchronize()
            times.append(clock() - began)
    kib = torch.cuda.max_memory_allocated() / 1024 if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return min(times[1:]), len(sample.positions), kib / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="sio2")
    parser.add_argument("--atoms", type=int, nargs="+", default=[500, 2000, 20000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    model = load_model(model_path(args.model))
    model.denoiser.to(device).egnn.fuse(device)
    sizes = sorted(args.atoms)
    shapes = [(atoms, 1) for atoms in sizes] + [(sizes[0], max(sizes[-1] // sizes[0], 1))]
    table = Table("cells × atoms", "with ghosts", "ms", "µs an atom", "relative", "GiB at most")
    first = None
    for atoms, n in shapes:
        seconds, total, peak = evaluation(model, device, atoms=atoms, n=n, repeats=args.repeats)
        first = first or seconds / total
        row = f"{1e3 * seconds:.1f}", f"{1e6 * seconds / total:.2f}", f"{seconds / total / first:.2f}"
        table.add_row(f"{n} × {atoms}", str(total), *row, f"{peak:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
