"""Figures of a report are registered by name: ours in this folder, a user's with `--plugin` or an entry point of `tinymem.figures`.

@report_figure("mine")
def mine(inputs):
lines = [{"method": p.method, "memorized": p.memorized, "sources": p.sources} for p in inputs.points]
return [FigureData("mine", "Mine", "What it shows.", lines, draw)] if lines else [Skipped("mine", "Mine", "needs results")]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinymem.errors import UserError
from tinymem.registry import Registry, origin_of
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
        return origin_of(self.function)

    def figures(self, inputs: Inputs) -> list[FigureData | Skipped]:
        """The figures that the rows allow, and why there is none of others.

        Raises:
            UserError: no list of them.
        """
        found = self.function(inputs)
        found = list(found) if isinstance(found, Iterator) else found  # of a function that yields them
        if not isinstance(found, list | tuple) or not all(isinstance(figure, FigureData | Skipped) for figure in found):
            raise UserError(f"expected a list of FigureData or Skipped of {self.origin}, got {found!r}; return one")
        return list(found)


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
