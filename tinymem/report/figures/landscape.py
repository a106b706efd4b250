"""The loss on a plane through each model: Figure 4."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from tinymem.report.figures.axes import distinct, grid, where
from tinymem.report.figures.figure import FigureData, Line, Skipped, number
from tinymem.report.figures.points import Inputs
from tinymem.report.figures.registry import report_figure
from tinymem.report.tables.table import anchor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "landscape"
"""Folder of a run's landscapes, shown on its page: `tinymem landscape RUN/checkpoint --out RUN/landscape`."""
KEY, TITLE, PAPER = "figure-04", "Loss landscape", "Figure 4"
LEVELS = 12


def figure_4(lines: list[Line], run: str = "") -> FigureData:
    """Loss around each model along two random filter-normalized directions; the model is in the middle of its panel.

    The paper compares a model with a good and a bad edit of it: does the edit leave the valley where it was?
    """
    of = "clean test rows" if lines[0]["rows"] == "test" else f"{lines[0]['rows']} rows, their suffixes"
    caption = (
        f"Mean loss per token on {of} (lower is better), along two random directions, each filter scaled to the model's own "
        "(Li et al. 2018): at ±1 the step is as long as the filter. The star is the model. One scale for all panels."
    )
    key, title = (f"{KEY}-{anchor(run)}", f"{TITLE}, {run}") if run else (KEY, TITLE)
    return FigureData(key, title, caption, lines, draw_landscape, PAPER)


@report_figure("4")
def stored_landscapes(inputs: Inputs) -> list[FigureData | Skipped]:
    """The figures that `tinymem landscape` left in the folders of runs."""
    found: list[FigureData | Skipped] = []
    for record in inputs.records:
        try:
            lines: list[Line] = json.loads((record.path / FOLDER / f"{KEY}.json").read_text(encoding="utf-8"))["lines"]
            found.append(figure_4(lines, record.name if len(inputs.records) > 1 else ""))
        except (OSError, ValueError, KeyError, IndexError, TypeError):  # not measured, or not by us
            continue
    return found or [Skipped(KEY, TITLE, "needs a measurement: tinymem landscape RUN/checkpoint EDITED... --out RUN/landscape", PAPER)]


def draw_landscape(lines: list[Line]) -> Figure:
    """A panel per model: contours of the loss."""
    models = distinct(lines, "model")
    levels = contour_levels([loss for line in lines if not math.isnan(loss := number(line, "loss"))])
    figure, [panels] = grid(1, len(models), (3.1 * len(models) + 1.2, 3.9), sharex=True, sharey=True)
    figure.set_layout_engine("compressed")
    filled: Any = None
    for axes, model in zip(panels, models, strict=True):
        those = where(lines, model=model)
        a, b = distinct(those, "a"), distinct(those, "b")
        losses = [[number(line, "loss") for line in where(those, b=y)] for y in b]
        filled = axes.contourf(a, b, losses, levels=levels, cmap="cividis", extend="both")
        axes.contour(a, b, losses, levels=levels, colors="#ffffff", linewidths=0.4, alpha=0.6)
        center = losses[len(b) // 2][len(a) // 2]
        axes.plot([0], [0], marker="*", markersize=13, color="#ffffff", markeredgecolor="#000000", markeredgewidth=0.8)
        axes.set_title(f"{model}\nloss {center:.3f}", fontsize=10)
        axes.set_xlabel("step along direction 1\n(filter lengths)")
        axes.set_aspect("equal")
        axes.grid(visible=False)
    panels[0].set_ylabel("step along direction 2 (filter lengths)")
    bar = figure.colorbar(filled, ax=panels, label="loss (nats per token)", format="%.3g")
    bar.ax.grid(visible=False)
    return figure


def contour_levels(losses: list[float]) -> list[float]:
    """Levels from the lowest to nearly the highest loss, closer together at the bottom: that is where models live.

    >>> [round(level, 2) for level in contour_levels([0.0, 1.0])][:3]
    [0.0, 0.01, 0.03]
    """
    ordered = sorted(losses)
    low, high = ordered[0], ordered[int(0.98 * (len(ordered) - 1))]
    if high <= low:
        high = low + 1e-6
    return [low + (high - low) * (i / LEVELS) ** 2 for i in range(LEVELS + 1)]
