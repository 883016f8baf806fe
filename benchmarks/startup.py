"""Seconds to the first step of a simulation, compiled or kept by an earlier process: `python benchmarks/startup.py`."""

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

PROTOCOLS = ("si-melt", "sio2", "meg-short")
FIRST_STEP = """
import sys, time
from dataclasses import replace
started = time.perf_counter()
from amden.simulate.catalogue import find_protocol
from amden.simulate.runs import run_protocol
from amden.simulate.stages import Stage
imported = time.perf_counter()
protocol = replace(find_protocol(sys.argv[1]), stages=(Stage(0.002, (2500.0, 2500.0)),))
run_protocol(protocol, [1], numbers=[0], device="cpu")
print(imported - started, time.perf_counter() - imported)
"""


def main() -> None:
    table = Table("protocol", "imports, s", "first step compiled, s", "first step with what was kept, s")
    with TemporaryDirectory() as folder:
        for protocol in PROTOCOLS:
            (_, cold), (imports, warm) = (seconds(protocol, folder) for _ in range(2))
            table.add_row(protocol, f"{imports:.1f}", f"{cold:.1f}", f"{warm:.2f}")
    Console().print(table)


def seconds(protocol: str, folder: str) -> list[float]:
    """Of a new process, for its imports and then to its first step."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP, protocol], env=environment, capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
