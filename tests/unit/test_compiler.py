"""Compiled functions that are kept for later processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest

from amden.compiler import FORGOTTEN_AFTER, compiled, kept


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where functions are kept."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept"


def run(factor: int) -> list[int]:
    """As a new process: a result, how many functions were found, how many were compiled."""
    inner = compiled()(lambda x: factor * x)

    def outer(x):
        return inner(x) + 1

    function = kept(factor)(outer)
    result = function(10)
    return [result, sum(function.stats.cache_hits.values()), sum(function.stats.cache_misses.values())]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_compiled_is_found_for_the_same_values_only(folder):
    assert run(3) == [31, 0, 1]
    assert run(3) == [31, 1, 0]
    assert run(4) == [41, 0, 1]  # though Python's bytecode is the same
    assert run(3) == [31, 1, 0]
    assert len(files(folder)) == 2


@pytest.mark.parametrize("damage", [lambda content: content[:-10], lambda content: b"", lambda content: content[::-1]])
def test_what_is_damaged_is_compiled_again(folder, damage):
    assert run(3) == [31, 0, 1]
    (path,) = files(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert run(3) == [31, 0, 1]
    assert run(3) == [31, 1, 0]


def test_another_code_of_amden_finds_nothing(folder, monkeypatch):
    assert run(3) == [31, 0, 1]
    monkeypatch.setattr("amden.compiler._sources", lambda: "others")
    assert run(3) == [31, 0, 1]
    assert len(files(folder)) == 2


def test_what_nobody_asked_for_is_forgotten(folder):
    run(3)
    (path,) = files(folder)
    long_ago = time.time() - FORGOTTEN_AFTER - 100.0
    os.utime(path, (long_ago, long_ago))
    run(3)
    assert path.stat().st_mtime > long_ago + 50.0  # asked for
    os.utime(path, (long_ago, long_ago))
    run(4)
    assert path not in files(folder)
    assert len(files(folder)) == 1


def test_where_nothing_can_be_written_it_is_compiled(folder, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/kept")
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")
    assert run(3) == [31, 0, 1]
    assert files(folder) == []


def test_a_later_process_finds_the_kernel_of_a_potential():
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
