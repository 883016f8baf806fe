"""Compilation by Numba for the CPU in one place, and the shelf where compiled functions are kept."""

import contextlib
import hashlib
import inspect
import os
import pickle
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from numba import njit
from numba.core.caching import CompileResultCacheImpl
from numba.core.serialize import dumps

from amden.storage import replacing

FORGOTTEN_AFTER: Final = 60 * 24 * 3600.0
"""Seconds after which a function that nobody asked for is kept no longer."""


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


def kept(*made_of: Any, **options: Any) -> Callable[[Callable], Any]:
    """The same, kept on disk for later processes, so that a kernel is compiled once on a machine.

    Numba's own cache never finds a function whose closure holds other compiled ones, and finds those whose callees in
    another file have changed. Here the caller says what the closure was `made_of`: potentials and plain values, told
    apart by their `repr`. What is kept belongs to them, to this processor, to these versions of Python and Numba, and
    to every line of amden but verbs and reports. A potential of somebody else's, whose code is not known here, is not
    kept.

    Where nothing can be written, or what was written is damaged, it is compiled. Constants of amden's modules that are
    changed at run time are not seen: whoever changes them keeps what is compiled in a folder of its own.

    >>> kept()(lambda x: 2 * x)(3)
    6
    """

    chosen = sorted((name, sorted(value) if isinstance(value, set) else value) for name, value in options.items())

    def jit(function: Callable) -> Any:
        dispatcher = compiled(**options)(function)
        if bool(dispatcher.py_func.__closure__) != bool(made_of):
            raise TypeError(f"`made_of` must say what the closure of {dispatcher.py_func.__qualname__} holds, if any")
        if all(type(each).__module__.partition(".")[0] in ("amden", "builtins") for each in made_of):
            with contextlib.suppress(RuntimeError):  # there is no folder that can be written
                dispatcher._cache = _Shelf(dispatcher.py_func, repr((made_of, chosen)))
        return dispatcher

    return jit


class _Shelf:
    """What Numba asks for a compiled function, and gives one to: a file for each function and signature."""

    def __init__(self, function: Callable, made_of: str) -> None:
        self._impl = CompileResultCacheImpl(function)
        self._made_of = made_of

    @property
    def cache_path(self) -> str:
        """The folder."""
        return self._impl.locator.get_cache_path()

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The compiled function, or None."""
        context.refresh()
        path = self._path(signature, context.codegen())
        try:
            content = path.read_bytes()
            digest, body = content[:32], content[32:]
            if hashlib.sha256(body).digest() != digest:
                return None
            found = self._impl.rebuild(context, pickle.loads(body))
            os.utime(path)
        except OSError:
            return None
        return found

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compiled function, and no longer those that were not asked for in a long time."""
        if not self._impl.check_cachable(result):
            return
        path, body = self._path(signature, result.codegen), dumps(self._impl.reduce(result))
        with contextlib.suppress(OSError):
            self._impl.locator.ensure_cache_path()
            with replacing(path) as new:
                new.write_bytes(hashlib.sha256(body).digest() + body)
            for other in path.parent.glob(f"{self._impl.filename_base}*"):
                if time.time() - other.stat().st_mtime > FORGOTTEN_AFTER:
                    other.unlink()

    def _path(self, signature: Any, codegen: Any) -> Path:
        told = repr((self._made_of, signature, codegen.magic_tuple(), _sources()))
        name = f"{self._impl.filename_base}-{hashlib.sha256(told.encode()).hexdigest()[:24]}.nbc"
        return Path(self.cache_path) / name


@lru_cache(maxsize=1)
def _sources() -> str:
    """Digest of all that compiled code is written in and compiled by; it imports nothing of the upper floors."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    for path in sorted(
        {*root.rglob("*.py")} - {*root.glob("cli/*"), *root.glob("report/*"), *root.glob("*_commands.py")}
    ):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    digest.update(" ".join(version(name) for name in ("numba", "llvmlite", "numpy")).encode())
    return digest.hexdigest()
