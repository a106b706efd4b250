"""All figures, in the order of a report."""

from __future__ import annotations

from collections.abc import Callable

from tinymem.report.figures.boxes import figure_2, figure_3
from tinymem.report.figures.by_layer import edited_by_layer
from tinymem.report.figures.curves import figure_6, figure_7
from tinymem.report.figures.density import figure_21
from tinymem.report.figures.figure import FigureData, Skipped
from tinymem.report.figures.landscape import stored_landscapes
from tinymem.report.figures.over_training import figures_8_to_11
from tinymem.report.figures.points import Inputs, inputs_of
from tinymem.report.figures.scatters import figure_5, figures_12_to_15, pareto_fronts
from tinymem.report.figures.zeroed import figures_16_to_19
from tinymem.results.collect import Results

FIGURES: tuple[Callable[[Inputs], list[FigureData | Skipped]], ...] = (
    figure_6,
    figure_7,
    figure_2,
    figure_3,
    figure_5,
    pareto_fronts,
    figures_8_to_11,
    figures_12_to_15,
    edited_by_layer,
    figures_16_to_19,
    figure_21,
)


def figures_of(results: Results) -> tuple[list[FigureData], list[Skipped]]:
    """What the rows and curves allow, and what they do not."""
    inputs = inputs_of(results)
    made = [figure for make in FIGURES for figure in make(inputs)]
    made += stored_landscapes(results.records)
    return [f for f in made if isinstance(f, FigureData)], [f for f in made if isinstance(f, Skipped)]
