"""Which files pytest looks into for doctests: the Triton kernels cannot be imported where Triton is missing."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("triton") else ["amden/nn/fused_kernels.py"]
