"""Relaxation of a batch of systems to their inherent structures, atoms and cell, on CPU and CUDA from one source."""

from amden.simulate.relaxation.minimum import Relaxation, relax
from amden.simulate.relaxation.structures import RelaxedStructures, relax_structures

__all__ = ["Relaxation", "RelaxedStructures", "relax", "relax_structures"]
