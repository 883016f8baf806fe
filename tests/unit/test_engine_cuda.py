"""The CUDA path where there is no GPU: in Numba's simulator, and its errors."""

import os
import subprocess
import sys
from dataclasses import fields

import jaxtyping
import numpy as np
import pytest

from amden.simulate.engine import MDState, Segment, run, thermal_state
from amden.simulate.packing import random_packing
from amden.simulate.potentials import StillingerWeber

SW = StillingerWeber()
SEGMENT = Segment(5, temperature=(2000.0, 1000.0), pressure=1.0, interval=2)
SIMULATION = f"""
import sys
import jaxtyping
import numpy as np
from amden.simulate.engine import MDState, Segment, run
from amden.simulate.potentials import StillingerWeber

state, segment, silicon = MDState(**np.load(sys.argv[1])), {SEGMENT!r}, StillingerWeber()
state, _ = run(state, silicon, segment, device="cuda", n_steps=3)
state, record = run(state, silicon, segment, device="cuda", first_step=3)
np.savez(sys.argv[1], failure=record.failure, pressure=record.final.pressure, **vars(state))
"""


@pytest.fixture
def state():
    """A cube and a skewed cell."""
    starts = [random_packing(n, volume=8.5**3, min_distance=2.2, seed=n) for n in (20, 22)]
    skewed = np.array([[9.0, 0.0, 0.0], [1.0, 8.5, 0.0], [-1.0, 0.5, 9.0]])
    return thermal_state(
        SW,
        np.concatenate([starts[0][0], starts[1][0] / 8.5 @ skewed]),
        cell=np.stack([starts[0][1], skewed]),
        n_atoms=np.array([20, 22]),
        seed=np.array([1, 2]),
        temperature=2000.0,
    )


def test_simulated_blocks_of_threads_do_what_the_cpu_does(state, tmp_path):
    pytest.importorskip("numba_cuda")
    path = tmp_path / "state.npz"
    np.savez(path, **vars(state))
    # -W: integers of numpy complain when they wrap around, as they should here
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SIMULATION, path],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    simulated = np.load(path)
    compiled, record = run(state, SW, SEGMENT)
    assert not simulated["failure"].any()
    for name, atol in {"positions": 1e-5, "velocities": 1e-3, "cell": 1e-5, "step": 0.0}.items():
        np.testing.assert_allclose(simulated[name], getattr(compiled, name), rtol=0.0, atol=atol)
    np.testing.assert_allclose(simulated["pressure"], record.final.pressure, atol=1e-3)
    assert {field.name for field in fields(MDState)} <= set(simulated)


def test_a_missing_device_is_named(state, monkeypatch):
    pytest.importorskip("numba_cuda")
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
