"""Figures of a report are registered by name: ours in this folder, a user's with `--plugin` or an entry point of `tinymem.figures`.

@report_figure("mine")
def mine(inputs):
lines = [{"method": p.method, "memorized": p.memorized, "sources": p.sources} for p in inputs.points]
return [FigureData("mine", "Mine", "What it shows.", lines, draw)] if lines else [Skipped("mine", "Mine", "needs results")]
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from tinymem.registry import Registry
from tinymem.report.figures.figure import FigureData, Skipped
from tinymem.report.figures.points import Inputs

Make = Callable[[Inputs], list[FigureData | Skipped]]


@dataclass(frozen=True)
class ReportFigure:
    """A registered figure, or several that one function makes."""

    function: Make

    @property
    def origin(self) -> str:
        """File and name of the defining function; registering the same origin again is no clash of names."""
        return f"{inspect.getsourcefile(self.function)}:{self.function.__qualname__}"


FIGURES: Registry[ReportFigure] = Registry("figure", eager=("tinymem.report.figures",), entry_points="tinymem.figures")


def report_figure(name: str) -> Callable[[Make], Make]:
    """Register a function `(inputs) -> figures`; a figure that the rows do not allow is a `Skipped` with the reason.

    Raises:
        UserError: another figure has the name.
    """

    def register(function: Make) -> Make:
        FIGURES.register(name, ReportFigure(function))
        return function

    return register
