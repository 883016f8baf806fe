"""Compilation by Numba of the loops under `analysis`, in one place."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """The function compiled by Numba, free of the interpreter's lock, kept on disk where a folder can be written.

    The tests' import hook wraps annotated functions in a check that Numba cannot compile: leave annotations out, and
    say `no_type_check`.
    """
    return _compiled(function, frozenset())


def compiled_sums(function: Callable[..., Any]) -> Any:
    """The same for functions whose long sums may be taken in any order, so that they run on all lanes of a core."""
    return _compiled(function, frozenset({"reassoc", "contract", "nsz"}))


def _compiled(function: Callable[..., Any], fastmath: frozenset[str]) -> Any:
    options = {"nogil": True, "fastmath": set(fastmath)}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no place for the cache, as in a read-only installation without a home
        return numba.njit(**options)(function)
