"""All figures, in the order of a report."""

from __future__ import annotations

from collections.abc import Callable

from tinymem.report.plots.boxes import figure_2, figure_3
from tinymem.report.plots.by_layer import edited_by_layer
from tinymem.report.plots.curves import figure_6, figure_7
from tinymem.report.plots.data import FigureData, Skipped
from tinymem.report.plots.density import figure_21
from tinymem.report.plots.landscape import stored_landscapes
from tinymem.report.plots.over_training import figures_8_to_11
from tinymem.report.plots.points import Inputs, inputs_of
from tinymem.report.plots.scatters import figure_5, figures_12_to_15, pareto_fronts
from tinymem.report.plots.zeroed import figures_16_to_19
from tinymem.report.results import Results

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
