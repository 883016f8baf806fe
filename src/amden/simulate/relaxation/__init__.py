"""Relaxation of a batch of systems to their inherent structures, atoms and cell, on CPU and CUDA from one source."""

from amden.simulate.relaxation.minimum import Relaxation, relax

__all__ = ["Relaxation", "relax"]
