"""How far a simulation or a measurement is: a bar on the terminal, and where there is none a line now and then."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.markup import escape

from amden.commands import err, progress_bar
from amden.properties import Progress as Measuring
from amden.simulate.campaign import Progress
from amden.simulate.protocol import Protocol

SAY_EVERY: Final = 60.0
"""Seconds between lines about the progress where there is no terminal to show a bar."""


@contextmanager
def campaign_bar(protocol: Protocol, total: int, title: str = "simulating") -> Iterator[Callable[[Progress], None]]:
    """A bar for a campaign of so many cells; what it gives is told the progress."""
    with progress_bar("cells", "{task.fields[batch]}") as bar:
        task, lines = bar.add_task(title, total=total, batch=""), Lines()

        def show(now: Progress) -> None:
            share = now.steps / protocol.n_steps
            batch = f"{now.batch} under way: {100 * share:.0f} %" if now.batch else ""
            work = now.done + share * now.batch
            if now.note:
                err.print(f"  [yellow]note:[/] {escape(now.note)}", highlight=False)
            bar.update(task, completed=round(work), batch=batch)
            lines.say(f"{now.done} of {now.n} cells{', ' if batch else ''}{batch}", work, now.n)

        yield show


@contextmanager
def measuring_bar(title: str = "measuring") -> Iterator[Callable[[Measuring], None]]:
    """What it gives is told the progress; warnings are told at the end."""
    with warnings.catch_warnings(record=True) as said, progress_bar("structures", "{task.fields[what]}") as bar:
        task, lines = bar.add_task(title, total=None, what=""), Lines()

        def show(now: Measuring) -> None:
            what = now.what if now.what == "relaxed" else f"with {now.what}" if now.what else "done"
            bar.update(task, completed=now.done, total=now.total, what=what)
            lines.say(f"{now.done} of {now.total} structures {what}", float(now.done), now.total)

        yield show
    for warning in said:
        err.print(f"  [yellow]note:[/] {escape(str(warning.message))}")


class Lines:
    """Now and then a line about the progress, where there is no terminal for a bar."""

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None
        self._said = time.monotonic()

    def say(self, what: str, work: float, total: int) -> None:
        """A line, if it is time for one, with the time that is left by what was done since the first call, which must
        have all that was done before."""
        now = time.monotonic()
        since, before = self._start = self._start or (now, work)
        if err.is_terminal or now - self._said < SAY_EVERY:
            return
        self._said = now
        left = f", {time_left((now - since) * (total - work) / (work - before))}" if work > before else ""
        err.print(f"  {what}{left}", highlight=False)


def time_left(seconds: float) -> str:
    """In words.

    >>> time_left(50.0), time_left(4000.0), time_left(1e5)
    ('50 s left', '67 min left', '27.8 h left')
    """
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 7200 else f"{seconds / 3600:.1f} h left"
