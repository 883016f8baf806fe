"""Melt-quench simulation: interatomic potentials, batched molecular dynamics, random starts.

Knows nothing of the model.
"""
