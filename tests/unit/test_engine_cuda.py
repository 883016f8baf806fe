"""The CUDA path where there is no GPU: in Numba's simulator, and its errors."""

import sys
from dataclasses import fields, replace

import jaxtyping
import numpy as np
import pytest

from amden.simulate.engine import MDState, Segment, run, thermal_state
from amden.simulate.engine.cuda import driver_errors
from amden.simulate.engine.cuda_memory import Memory
from amden.simulate.packing import random_packing
from amden.simulate.potentials import StillingerWeber, bmp_shrm, munetoh_silica
from amden.simulate.relaxation import relax

GLASS = bmp_shrm()
SW, SILICA = StillingerWeber(), munetoh_silica()
SEGMENT = Segment(5, temperature=(2000.0, 1000.0), pressure=1.0, interval=2)
OWN = [SEGMENT, Segment(4, temperature=(500.0, 1000.0), interval=3)]
"""The second system has one of its own, and less to do."""
SIMULATION = f"""
import sys
import jaxtyping
import numpy as np
from amden.simulate.engine import MDState, Segment, cuda, run
from amden.simulate.potentials import StillingerWeber, bmp_shrm, munetoh_silica

state, potential, cuda.MOST_THREADS = MDState(**np.load(sys.argv[1])), eval(sys.argv[2]), int(sys.argv[3])
segment = {OWN!r}[: state.n_systems]
state, _ = run(state, potential, segment, device="cuda", n_steps=3)
state, record = run(state, potential, segment, device="cuda", first_step=3)
np.savez(sys.argv[1], failure=record.failure, pressure=record.final.pressure, **vars(state))
"""


@pytest.fixture
def state():
    """A cube, and a skewed cell of more atoms than a warp has threads."""
    starts = [random_packing(n, volume=8.5**3, min_distance=2.0, seed=n) for n in (20, 33)]
    skewed = np.array([[9.0, 0.0, 0.0], [1.0, 8.5, 0.0], [-1.0, 0.5, 9.0]])
    return thermal_state(
        SW,
        np.concatenate([starts[0][0], starts[1][0] / 8.5 @ skewed]),
        cell=np.stack([starts[0][1], skewed]),
        n_atoms=np.array([20, 33]),
        seed=np.array([1, 2]),
        temperature=2000.0,
    )


def ions():
    """Of all elements, in a cell so small that images beyond the nearest count."""
    positions, cell = random_packing(22, volume=14.5**3, min_distance=1.9, seed=1)
    return thermal_state(
        GLASS,
        positions,
        cell=cell[None],
        n_atoms=np.array([22]),
        seed=np.array([1]),
        temperature=2000.0,
        species=(np.arange(22) % 11).astype(np.uint8),
    )


@pytest.mark.parametrize(
    ("potential", "most_threads"),
    [(SW, 1024), (SW, 10), (SILICA, 10), (GLASS, 10)],
    ids=["StillingerWeber()-a thread an atom", "StillingerWeber()", "munetoh_silica()", "bmp_shrm()"],
)
def test_simulated_blocks_of_threads_do_what_the_cpu_does(
    state, potential, most_threads, request, simulated_cuda, tmp_path
):
    """With few threads too, each of which has several atoms, as in systems larger than a block."""
    if potential is SILICA:
        kinds = (np.arange(len(state.species)) % 3 > 0).astype(np.uint8)
        state = replace(state, species=kinds)
    if potential is GLASS:
        state = ions()
    path, name = tmp_path / "state.npz", request.node.callspec.id.split("-")[0]
    np.savez(path, **vars(state))
    simulated_cuda(SIMULATION, path, name, most_threads)
    simulated = np.load(path)
    compiled, record = run(state, potential, OWN[: state.n_systems])
    assert not simulated["failure"].any()
    for array, atol in {"positions": 1e-5, "velocities": 1e-3, "cell": 1e-5, "step": 0.0}.items():
        np.testing.assert_allclose(simulated[array], getattr(compiled, array), rtol=0.0, atol=atol)
    np.testing.assert_allclose(simulated["pressure"], record.final.pressure, atol=1e-3)
    assert {field.name for field in fields(MDState)} <= set(simulated)


@pytest.mark.parametrize("potential", [SW, SILICA], ids=["silicon", "silica"])
def test_what_is_read_most_lies_in_shared_memory(potential):
    assert [Memory.of(potential, n).shared_lists for n in (64, 192, 256, 384, 512)] == [True, True, True, False, False]
    assert Memory.of(potential, 512).shared_moments == (potential is SW)
    for n in (64, 256, 512):
        lists, near, moments, *_ = Memory.of(potential, n).elsewhere(7)
        assert {lists[0][0], near[0][0]} == {1 if n < 300 else 7}
        assert moments[0][0] == (7 if n == 512 and potential is SILICA else 1)


def test_a_thousand_ions_leave_room_in_shared_memory():
    """Long lists lie in global memory; what is read once a step goes there when it must."""
    for n, motion in ((512, True), (768, True), (896, False), (1024, False)):
        memory = Memory.of(GLASS, n)
        assert (memory.shared_lists, memory.shared_motion) == (False, motion)
        _, _, _, origin, _, far, contacts, counts = memory.elsewhere(5)
        assert origin[0] == (1 if motion else 5, 3, n)
        assert [shape for shape, _ in (far, contacts, counts)] == [(5, 1200, n), (5, 320, n), (5, 3, n)]
    assert Memory.of(SW, 1024).elsewhere(5)[5][0] == (1, 1200, 1)


class Exhausted:
    """Numba's CUDA on a GPU without any memory left."""

    def __getattr__(self, name):
        from numba.cuda.cudadrv.driver import CudaAPIError

        raise CudaAPIError(2, "Call to cuMemAlloc results in\nCUDA_ERROR_OUT_OF_MEMORY")


@pytest.mark.usefixtures("numba_cuda")
@pytest.mark.parametrize("work", ["engine", "relaxation"])
def test_errors_of_the_driver_are_one_line_of_the_users(work, state, monkeypatch):
    monkeypatch.setattr(f"amden.simulate.{work}.cuda.load_cuda", Exhausted)
    message = r"the GPU failed: .*cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY; a smaller batch needs less memory"
    call = {
        "engine": lambda: run(state, SW, SEGMENT, device="cuda"),
        "relaxation": lambda: relax(SW, state.positions, state.cell, state.n_atoms, device="cuda"),
    }
    with pytest.raises(OSError, match=message):
        call[work]()


@pytest.mark.usefixtures("numba_cuda")
def test_a_driver_that_cannot_be_used_is_named():
    from numba.cuda.cudadrv.error import CudaSupportError

    with pytest.raises(OSError, match="the GPU failed: no driver; a smaller batch"), driver_errors():
        raise CudaSupportError("no driver")


@pytest.mark.usefixtures("numba_cuda")
def test_a_missing_device_is_named(state, monkeypatch):
    from numba import cuda

    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="`device` is 'cuda', but no CUDA device was found"):
        run(state, SW, SEGMENT, device="cuda")


def test_a_missing_extra_is_named(state, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    with pytest.raises(ValueError, match=r"`device` 'cuda' needs numba-cuda: pip install 'amden\[cuda\]'"):
        run(state, SW, SEGMENT, device="cuda")


def test_unknown_devices_are_named(state, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="`device` must be 'cpu' or 'cuda', got 'tpu'"):
        run(state, SW, SEGMENT, device="tpu")
