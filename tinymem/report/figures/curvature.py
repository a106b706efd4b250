"""How strongly memorized rows drive each band of a model's curvature spectrum: what `tinymem curvature` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinymem.report.figures.axes import distinct, grid, where
from tinymem.report.figures.figure import FigureData, Line, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY, TITLE = "curvature", "Memorized rows by band of the curvature spectrum"
PANELS = {"ratio": ("memorized / clean", 1.0), "auc": ("AUC, memorized over clean", 0.5)}
"""Quantities with their axes' titles and the value that says nothing."""


def curvature_figure(lines: list[Line]) -> FigureData:
    """The ratio of memorized to clean rows and the AUC of each detector, a line for each artifact."""
    caption = (
        "Activation of each band of the spectrum, from the most curvature (left) to the least, by memorized rows over clean ones; and how "
        "well it tells them apart (0.5 is chance). tr F: the row's own curvature."
    )
    return FigureData(KEY, TITLE, caption, lines, draw_curvature)


def draw_curvature(lines: list[Line]) -> Figure:
    """A panel for each quantity: detectors along, a line for each artifact."""
    detectors = distinct(lines, "detector")
    figure, [panels] = grid(1, len(PANELS), (4.4 * len(PANELS), 3.4))
    for axes, (quantity, (title, nothing)) in zip(panels, PANELS.items(), strict=True):
        for artifact in distinct(lines, "artifact"):
            of = where(lines, artifact=artifact)
            axes.plot(range(len(of)), [number(line, quantity) for line in of], marker="o", label=str(artifact))
        axes.axhline(nothing, color="0.6", linewidth=0.8)
        axes.set_xticks(range(len(detectors)), [str(name) for name in detectors], rotation=40, ha="right", fontsize=8)
        axes.set_ylabel(title)
    panels[0].legend(frameon=False)
    return figure
