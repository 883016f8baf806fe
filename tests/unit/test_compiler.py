"""Compiled functions that are kept for later processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amden.compiler import FORGOTTEN_AFTER, kept

MODULE = """
import sys
from amden.compiler import compiled, kept

def times(factor, *made_of):
    inner = compiled()(lambda x: factor * x)
    def outer(x):
        return inner(x) + 1
    return kept(*made_of)(outer)

factor = int(sys.argv[1])
function = times(factor, factor)
print(function(10), sum(function.stats.cache_hits.values()), sum(function.stats.cache_misses.values()))
"""


@pytest.fixture
def run(tmp_path):
    """Runs the module in a new process: result, kept functions found, functions compiled."""
    (tmp_path / "module.py").write_text(MODULE)

    def process(factor: int, **environment: str) -> list[int]:
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept"), **environment}
        command = [sys.executable, "module.py", str(factor)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    return process


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "kept").rglob("*") if path.is_file())


def test_a_later_process_finds_what_one_compiled_for_the_same_values_only(run, tmp_path):
    assert run(3) == [31, 0, 1]
    assert run(3) == [31, 1, 0]
    assert run(4) == [41, 0, 1]  # though Python's bytecode is the same
    assert run(3) == [31, 1, 0]
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("damage", [lambda content: content[:-10], lambda content: b"", lambda content: content[::-1]])
def test_what_is_damaged_is_compiled_again(run, tmp_path, damage):
    assert run(3) == [31, 0, 1]
    (path,) = files(tmp_path)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert run(3) == [31, 0, 1]
    assert run(3) == [31, 1, 0]


def test_what_nobody_asked_for_is_forgotten(run, tmp_path):
    run(3)
    (path,) = files(tmp_path)
    long_ago = time.time() - FORGOTTEN_AFTER - 100.0
    os.utime(path, (long_ago, long_ago))
    run(3)
    assert path.stat().st_mtime > long_ago + 50.0  # asked for
    os.utime(path, (long_ago, long_ago))
    run(4)
    assert path not in files(tmp_path)
    assert len(files(tmp_path)) == 1


def test_where_nothing_can_be_written_it_is_compiled(run, tmp_path):
    nowhere = {"NUMBA_CACHE_DIR": "/dev/null/kept", "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    assert run(3, **nowhere) == [31, 0, 1]
    assert files(tmp_path) == []


def test_the_kernels_of_a_potential_are_kept():
    code = """
import numpy as np
from amden.simulate.potentials import StillingerWeber, evaluate
from amden.simulate.potentials.evaluation import _compiled
cell, diamond = 5.431 / 2 * (1.0 - np.eye(3)), np.array([[0.0, 0.0, 0.0], [5.431 / 4] * 3])
found = [evaluate(StillingerWeber(), diamond, cell[None], np.array([2])).energy[0] for _ in range(2)]
stats = _compiled(StillingerWeber()).stats
print(found[0] / 2, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    energy, hits, misses = done.stdout.split()
    assert float(energy) == pytest.approx(-4.33663, abs=1e-4)
    assert (hits, misses) == ("1", "0")


def test_a_closure_must_be_told_of():
    factor = 3

    def outer(x):
        return factor * x

    with pytest.raises(TypeError, match=r"`made_of` must say what the closure of .*outer holds"):
        kept()(outer)


class Foreign:
    """A potential of somebody else's."""


def test_what_is_made_of_somebody_elses_code_is_not_kept():
    factor = 3

    def outer(x):
        return factor * x

    function = kept(Foreign())(outer)
    assert function(10) == 30
    assert function.stats.cache_path is None
