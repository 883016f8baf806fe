"""Compilation by Numba for the CPU, in one place."""

import inspect
from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """`numba.njit` without the interpreter's lock, for plain functions.

    The tests' import hook wraps every function of amden in a check of its annotations, which Numba cannot compile, so
    the function underneath is taken.

    >>> compiled()(lambda x: 2 * x)(3)
    6
    """

    def jit(function: Callable) -> Any:
        return njit(nogil=True, **options)(inspect.unwrap(function))

    return jit
