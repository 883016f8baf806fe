"""The GPU finds what the CPU finds, and a planned step never waits for it."""

from dataclasses import replace

import pytest
import torch

from amden.neighbors import neighbor_list, neighbor_matrix, neighbor_plan
from amden.structure import Structures
from amden.testing import diamond, random_structures, supercell

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

BATCHES = {
    "equal": (random_structures([100] * 4), 4.0),
    "mixed": (random_structures([1, 90, 7, 300]), 4.0),
    "smaller than the cutoff": (random_structures([2, 5, 9]), 6.5),
    "ties": (supercell(diamond(), (2, 2, 2)), 5.5),
    "skewed": (random_structures([60, 60], skew=0.4), 5.0),
}


@pytest.fixture(params=BATCHES)
def case(request) -> tuple[Structures, float]:
    return BATCHES[request.param]


@pytest.mark.parametrize("dense", [True, False])
def test_list_is_that_of_the_cpu(case, dense):
    structures, cutoff = case
    found = []
    for device in ("cpu", "cuda"):
        batch = structures.to(device)
        plan = replace(neighbor_plan(batch.cell, batch.n_atoms, cutoff=cutoff), dense=dense)
        edges = neighbor_list(batch, cutoff=cutoff, plan=plan)
        rows = torch.cat([edges.source[:, None], edges.target[:, None], edges.shift], 1).cpu()
        found.append(sorted(map(tuple, rows.tolist())))
    assert found[0] == found[1]


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("capacity", [None, 16])
def test_matrix_is_that_of_the_cpu(case, dense, capacity):
    structures, cutoff = case
    found = []
    for device in ("cpu", "cuda"):
        batch = structures.to(device)
        plan = neighbor_plan(batch.cell, batch.n_atoms, cutoff=cutoff, capacity=capacity)
        plan = replace(plan, dense=dense)
        found.append(neighbor_matrix(batch.positions, batch.cell, batch.n_atoms, cutoff=cutoff, plan=plan))
    cpu, gpu = found
    assert torch.equal(cpu.n_neighbors, gpu.n_neighbors.cpu())
    assert torch.equal(cpu.overflow, gpu.overflow.cpu())
    lengths = [
        (p[m.target] - p[:, None] + m.offset).norm(dim=-1).cpu()
        for m, p in zip(found, (structures.positions, structures.positions.cuda()), strict=True)
    ]
    assert torch.allclose(*lengths, atol=1e-3)  # places of equal distances may change by rounding
    assert torch.allclose(*(x.sort(1).values for x in lengths), atol=1e-9) or capacity


def test_planned_matrix_does_not_synchronise(case):
    structures, cutoff = case
    batch = structures.to("cuda", dtype=torch.float32)
    plan = neighbor_plan(batch.cell, batch.n_atoms, cutoff=cutoff, capacity=64)
    plan = replace(plan, dense=True)
    neighbor_matrix(batch.positions, batch.cell, batch.n_atoms, cutoff=cutoff, plan=plan)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        neighbor_matrix(batch.positions, batch.cell, batch.n_atoms, cutoff=cutoff, plan=plan)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rows_do_not_depend_on_the_batch_to_the_last_bit():
    parts = [random_structures([256], seed=i, dtype=torch.float32) for i in range(32)]
    together = [torch.cat([getattr(p, name) for p in parts]).cuda() for name in ("positions", "cell", "n_atoms")]
    whole = neighbor_matrix(*together, cutoff=6.5, capacity=128)
    for i, part in enumerate(parts):
        alone = neighbor_matrix(part.positions.cuda(), part.cell.cuda(), part.n_atoms.cuda(), cutoff=6.5, capacity=128)
        rows = slice(256 * i, 256 * (i + 1))
        assert torch.equal(alone.target, whole.target[rows] - 256 * i)
        assert torch.equal(alone.offset, whole.offset[rows])


def test_autocast_and_tf32_do_not_touch_geometry():
    batch = random_structures([256] * 4, dtype=torch.float32).to("cuda")
    plain = neighbor_matrix(batch.positions, batch.cell, batch.n_atoms, cutoff=6.5, capacity=128)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            cast = neighbor_matrix(batch.positions, batch.cell, batch.n_atoms, cutoff=6.5, capacity=128)
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(plain.target, cast.target)
    assert torch.equal(plain.offset, cast.offset)
