"""All figures, in the order of a report."""

from __future__ import annotations

from tinymem.report.figures.figure import FigureData, Skipped
from tinymem.report.figures.points import inputs_of
from tinymem.report.figures.registry import FIGURES
from tinymem.results.collect import Results

LAYERS = ("layer-heat", "layer-weights", "layer-curves", "layer-centroids")
FIRST = ("6", "7", "2", "3", "5", "pareto", "8-11", "12-15", "layers", "16-19", "20", "21", "22", "4", "confusion", "link")
ORDER = (*FIRST, *LAYERS, "classes")
"""The order of a report; figures that are not named here follow by name."""


def figures_of(results: Results) -> tuple[list[FigureData], list[Skipped]]:
    """Make the figures that the rows and curves allow, and list those that they do not, with the reason."""
    inputs = inputs_of(results)
    made = [figure for registered in FIGURES.in_order(ORDER) for figure in registered.figures(inputs)]
    return [f for f in made if isinstance(f, FigureData)], [f for f in made if isinstance(f, Skipped)]
