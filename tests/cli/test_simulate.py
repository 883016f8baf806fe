import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amden.dataset import load_dataset

SILICON = ["simulate", "si-melt", "--device", "cpu"]


HEEDING_INTERRUPTS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from amden.cli import main
main()
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    # a job in the background may have been told to ignore Ctrl-C, and hands that on
    command = [sys.executable, "-c", HEEDING_INTERRUPTS, *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def assert_one_line(result: tuple[int, str, str], message: str) -> None:
    status, _, err = result
    assert status == 1
    assert err.splitlines()[-1].startswith("amden: error: ")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_an_unknown_protocol_gets_the_choices(tmp_path):
    result = finish(start(tmp_path, "simulate", "si-melts", "--n", "1", "--out", "d"))
    assert_one_line(result, "unknown protocol 'si-melts': expected one of si-melt, si-quench")
    assert not (tmp_path / "d").exists()


def test_a_folder_of_another_seed_is_left_alone(tmp_path):
    (tmp_path / "d").mkdir()
    manifest = tmp_path / "d" / "manifest.json"
    manifest.write_text(json.dumps({"protocol": {}, "seed": 3}))
    (tmp_path / "d" / ".cells-0000000-0000001.state").write_text("under way")
    result = finish(start(tmp_path, *SILICON, "--n", "1", "--seed", "4", "--out", "d"))
    assert_one_line(result, "d: holds a campaign of seed 3, not 4; choose another folder")
    assert json.loads(manifest.read_text()) == {"protocol": {}, "seed": 3}


@pytest.mark.slow
def test_interrupted_and_run_again_it_goes_on(tmp_path):
    command = [*SILICON, "--n", "6", "--batch-size", "1", "--seed", "5", "--out", "d"]
    first = start(tmp_path, *command)
    shard = tmp_path / "d" / "cells-0000000-0000001.safetensors"
    waited = time.monotonic()
    while not shard.exists() and first.poll() is None and time.monotonic() - waited < 240:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    status, _, err = finish(first)
    assert status == 130
    assert "Traceback" not in err
    bytes_before = shard.read_bytes()

    status, out, _ = finish(start(tmp_path, *command))
    assert status == 0
    assert "6 structures" in out
    assert shard.read_bytes() == bytes_before
    melt = load_dataset(tmp_path / "d")
    assert melt.n_atoms.tolist() == [256] * 6
    # 2500 K within 5 σ of the mean of 1,000 samples 0.02 ps apart; 0.1 ps and 255·3 degrees of freedom: σ ≈ 15 K
    assert (abs(melt.properties["temperature"] - 2500.0) < 75.0).all()
    assert [path.name for path in (tmp_path / "d").glob(".*")] == [".lock"]
