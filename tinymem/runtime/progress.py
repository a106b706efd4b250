"""Progress of a stage with time left: a bar in a terminal or a notebook, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

from tinymem.runtime.streams import echo
from tinymem.runtime.words import duration

LOG_EVERY_SECONDS = 15.0
NOTEBOOK_EVERY_SECONDS = 0.2


class Bar(Protocol):
    """Interface of the progress bar of one stage."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Count finished steps; `note` is shown next to the bar."""

    def expect(self, total: float) -> None:
        """Set the number of steps of the stage, where it was not known at its start."""


class SilentBar:
    """A bar that shows nothing."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Do nothing."""

    def expect(self, total: float) -> None:
        """Do nothing."""


class _LogBar:
    def __init__(self, name: str, total: float, done: int) -> None:
        self.name, self.total, self.done, self.before = name, total, float(done), done
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
            so_far = f"{self.done / self.total:.0%}" if self.total else f"{self.done:,.0f}"
            rest = f", {duration(left)} left" if self.total else ""
            echo(f"{self.name}: {so_far}, {duration(spent)}{rest}  {note}", err=True)


class _RichBar:
    def __init__(self, progress: RichProgress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def expect(self, total: float) -> None:
        self._progress.update(self._task, total=total)

    def advance(self, steps: float = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=steps, note=note)


class _NotebookBar(_RichBar):
    """The same bar as a cell's output that IPython replaces; rich's own way there would need ipywidgets."""

    def __init__(self, progress: RichProgress, task: TaskID) -> None:
        from IPython.display import display

        super().__init__(progress, task)
        self._shown, self._last = display(progress, display_id=True), time.monotonic()

    def advance(self, steps: float = 1, note: str = "") -> None:
        super().advance(steps, note)
        if time.monotonic() - self._last >= NOTEBOOK_EVERY_SECONDS:
            self.refresh()

    def refresh(self) -> None:
        self._last = time.monotonic()
        self._shown.update(self._progress)


class Progress:
    """Factory of the bar of each stage; `show=False` shows nothing, and where neither terminal nor notebook is, lines are logged."""

    def __init__(self, *, show: bool = False) -> None:
        self.show = show

    def say(self, text: str) -> None:
        """Print a line apart from the bar: on standard error, or in a notebook as output of its cell."""
        if self.show:
            echo(text, err=not in_notebook())

    @contextmanager
    def stage(self, name: str, total: float = 1, done: int = 0) -> Iterator[Bar]:
        """A bar for `total` steps; the `done` ones of an earlier start are not used to estimate the time left."""
        if not self.show:
            yield SilentBar()
        elif in_notebook():
            progress = _rich_progress()
            bar = _NotebookBar(progress, progress.add_task(name, total=total, completed=done, note=""))
            try:
                yield bar
            finally:
                bar.refresh()
        elif not sys.stderr.isatty():
            yield _LogBar(name, total, done)
        else:
            with _rich_progress() as progress:
                yield _RichBar(progress, progress.add_task(name, total=total, completed=done, note=""))


def progress_of(wanted: Progress | bool) -> Progress:
    """Where a function of the library shows its progress: as given; for True in a terminal or a notebook, and nowhere else."""
    if isinstance(wanted, Progress):
        return wanted
    return Progress(show=wanted and (in_notebook() or sys.stderr.isatty()))


def in_notebook() -> bool:
    """Whether cells of a notebook show what is printed: a kernel of Jupyter, Colab or Databricks runs this."""
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


def _rich_progress() -> RichProgress:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    from tinymem.runtime.console import Console

    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    return RichProgress(*columns, console=Console(stderr=True))
