"""When a run is asked to end before its last step: by Ctrl-C, by a batch system's SIGTERM, by a limit of time.

What is asked for is looked at between steps, so that none is left half done; what then becomes of the run is its own
matter.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """What has been asked for so far."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self.signalled = False
        """Whether a signal came."""

    @property
    def due(self) -> bool:
        """Whether to end: a signal came, or the deadline (of the monotonic clock) is over."""
        return self.signalled or (self._deadline is not None and time.monotonic() > self._deadline)

    def note(self) -> None:
        """A signal came."""
        self.signalled = True


@contextmanager
def stopping(*, seconds: float | None = None, on_signal: Callable[[], None] = lambda: None) -> Iterator[Stopping]:
    """Looks out for signals while the block lasts; the second one ends the process as it would without this.

    `seconds` is the limit of time; `on_signal` is called at the first signal. A signal that the process ignores stays
    ignored. In threads other than the main one, which cannot look out for signals, there is the limit alone.
    """
    stop = Stopping(None if seconds is None else time.monotonic() + seconds)
    before = {}

    def handle(number: int, frame: FrameType | None) -> None:
        _restore(before)
        stop.note()
        on_signal()

    if threading.current_thread() is threading.main_thread():
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield stop
    finally:
        _restore(before)


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
