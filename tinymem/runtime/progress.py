"""Progress of a stage with time left: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tinymem.runtime.words import duration

LOG_EVERY_SECONDS = 15.0


class Bar(Protocol):
    """Interface of the progress bar of one stage."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Count finished steps; `note` is shown next to the bar."""

    def expect(self, total: float) -> None:
        """Set the number of steps of the stage, where it was not known at its start."""


class SilentBar:
    """A bar that shows nothing (the library's default)."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Do nothing."""

    def expect(self, total: float) -> None:
        """Do nothing."""


class _LogBar:
    def __init__(self, name: str, total: float, done: float) -> None:
        self.name, self.total, self.done, self.before = name, total, done, done
        self.started = self.last = time.monotonic()

    def expect(self, total: float) -> None:
        self.total = total

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.last >= LOG_EVERY_SECONDS:
            self.last = now
            spent = now - self.started
            left = spent * (self.total - self.done) / max(self.done - self.before, 1e-9)
            print(
                f"{self.name}: {self.done / self.total:.0%}, {duration(spent)}, {duration(left)} left  {note}", file=sys.stderr, flush=True
            )


class _RichBar:
    def __init__(self, progress: object, task: object) -> None:
        self._progress, self._task = progress, task

    def expect(self, total: float) -> None:
        self._progress.update(self._task, total=total)  # type: ignore[attr-defined]

    def advance(self, steps: float = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=steps, note=note)  # type: ignore[attr-defined]


class Progress:
    """Factory of the bar of each stage; `show=False` shows nothing."""

    def __init__(self, *, show: bool = False) -> None:
        self.show = show

    def say(self, text: str) -> None:
        """Print a line on standard error, separate from the bar."""
        if self.show:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str, total: float = 1, done: float = 0) -> Iterator[Bar]:
        """A bar for `total` steps; the `done` ones of an earlier start are not used to estimate the time left."""
        if not self.show:
            yield SilentBar()
        elif not sys.stderr.isatty():
            yield _LogBar(name, total, done)
        else:
            with _rich_progress() as progress:
                yield _RichBar(progress, progress.add_task(name, total=total, completed=done, note=""))  # type: ignore[attr-defined]


@contextmanager
def _rich_progress() -> Iterator[object]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as progress:
        yield progress
