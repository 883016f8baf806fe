"""Batched molecular dynamics: many independent periodic systems at once, on the CPU or on CUDA.

`run` takes a state and a segment and returns the new state and what was measured. The engine sees of the physics only
a potential; what is run, and where results go, is decided elsewhere (`protocol`, `campaign`).

| file | what lives there |
|---|---|
| `state` | `MDState`, `Segment`, `Record` |
| `run` | `run` and `thermal_state`: checks, units, the way to the device |
| `kernel` | the dynamics of one system, one source for CPU and CUDA |
| `verlet` | positions as integer fractions, neighbour lists |
| `coupling` | thermostat, barostat, samples |
| `stream` | random numbers |
| `cpu`, `cuda` | the two machines |
"""

from amden.simulate.engine.run import run, thermal_state
from amden.simulate.engine.state import FAILURES, MDState, Observables, Record, Segment

__all__ = ["FAILURES", "MDState", "Observables", "Record", "Segment", "run", "thermal_state"]
