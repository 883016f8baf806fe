"""A campaign killed (SIGKILL) at random moments and run again ends with the bytes of one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from amden.simulate import engine, runs
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.engine import MDState
from amden.simulate.packing import random_packing
from amden.simulate.stages import Stage

PROTOCOL = replace(
    find_protocol("si-quench"), n_atoms=64, stages=(Stage(0.6, (2500.0, 2500.0)), Stage(0.6, (300.0, 300.0)))
)


def run(folder: Path) -> None:
    runs.LAUNCH = {"cpu": 100}
    run_campaign(PROTOCOL, n=14, seed=3, out=folder, device="cpu", batch_size=4, save_every=0.0)


def compile_engine() -> None:
    """Without a single operation of PyTorch, whose threads a fork does not survive."""
    positions, cell = random_packing(64, volume=1244.0, min_distance=2.0, seed=1)
    one = np.ones(1, np.int64)
    state = MDState(
        positions, np.zeros((64, 3), np.float32), cell[None], np.zeros(64, np.uint8), 64 * one, seed=one, step=0 * one
    )
    engine.run(state, PROTOCOL.interaction, PROTOCOL.stages[0].segment(), n_steps=1)


def forked(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        run(folder)
        os._exit(0)
    return child


def killed_at_random(folder: Path, seed: int) -> dict[str, int]:
    """Runs the campaign in processes that are killed until one comes to its end; what the kills left behind."""
    draw = random.Random(seed)
    told = {"seed": seed, "kills": 0, "found half-written": 0, "found a state": 0, "found shards": 0}
    while True:
        child = forked(folder)
        time.sleep(draw.uniform(0.0, 0.1 + 0.01 * told["kills"]))
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return told
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told["kills"] += 1
        told["found half-written"] += any(folder.glob(".*.tmp"))
        told["found a state"] += any(folder.glob(".*.state"))
        told["found shards"] += any(folder.glob("*.safetensors"))


def main(straight: Path, killed: Path, seed: int) -> None:
    compile_engine()
    assert os.waitpid(forked(straight), 0)[1] == 0
    print(json.dumps(killed_at_random(killed, seed)))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    seed = 1 if os.environ.get("CI") else random.randrange(10**6)  # the gate's is always the same
    command = [sys.executable, __file__, str(straight), str(killed), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (seed, done.stderr)
    told = json.loads(done.stdout)
    assert told["kills"] > 2, told
    assert content(killed) == content(straight), told
    assert len(content(straight)) == 6  # four shards, the manifest, the lock


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
