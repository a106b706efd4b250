"""Recall of injected sequences against what an edit by the same method leaves and costs: a point per method, ratio and model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinymem.report.figures.axes import MARKERS, distinct, legend_below, method_handles, method_look, panels, where
from tinymem.report.figures.figure import FigureData, Line, Skipped, numbers
from tinymem.report.figures.points import Inputs
from tinymem.report.figures.registry import report_figure
from tinymem.report.link import Linked, linked
from tinymem.report.tables.table import anchor
from tinymem.results.collect import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY, TITLE = "link", "Recall of injected sequences against unlearning"
AXES = {"left": "memorized forget rows left (%)\nlower is better", "cost": "performance worse by (%)\n0 is best"}
CAPTION = (
    "A point per method, ratio and model; circle, diamond, square, triangle: ratios from small to large. Recall is that of INJ with as "
    "much named as holds a sequence; dashed: recall of a random choice at each ratio."
)


@report_figure("link")
def figure_of_link(inputs: Inputs) -> list[FigureData | Skipped]:
    """The link, where INJ and edits of the same models were measured: a figure for each way of INJ."""
    found = [_figure(one) for one in linked(Results(inputs.rows, localization=inputs.localization)) if one.pairs]
    return [*found] or [Skipped(KEY, TITLE, "needs INJ and edits of the same models")]


def _figure(found: Linked) -> FigureData:
    lines: list[Line] = [
        {
            "unit": p.unit, "method": p.method, "ratio": p.ratio, "model": p.model, "recall": 100 * p.recall, "chance": 100 * p.chance,
            "left": p.left, "holdout": p.holdout, "cost": p.cost, "sources": p.sources,
        }
        for p in found.pairs
    ]  # fmt: skip
    key, title = (anchor(f"{KEY}-{found.words}"), f"{TITLE}, {found.words}") if found.words else (KEY, TITLE)
    return FigureData(key, title, " ".join([CAPTION, *found.notes]), lines, draw)


def draw(lines: list[Line]) -> Figure:
    """A row of panels for each unit: what is left, and what it costs."""
    units, names = distinct(lines, "unit"), distinct(lines, "method")
    figure, all_axes, width = panels(2 * len(units), 2, (4.6, 3.3))
    shown = [(unit, outcome) for unit in units for outcome in AXES]
    for axes, (unit, outcome) in zip(all_axes, shown, strict=True):
        those = where(lines, unit=unit)
        for index, ratio in enumerate(sorted(distinct(those, "ratio"))):
            here = where(those, ratio=ratio)
            axes.axvline(numbers(here, "chance")[0], color="#8A8A8A", linewidth=0.8, linestyle="--")
            for name in distinct(here, "method"):
                points = where(here, method=name)
                look = method_look(names, name, MARKERS[index % len(MARKERS)])
                axes.plot(numbers(points, "recall"), numbers(points, outcome), **look)
        axes.set_title(f"{unit}s", loc="left", fontsize=10)
        axes.set_xlabel("recall of injected sequences (%)")
        axes.set_ylabel(AXES[outcome])
    legend_below(figure, method_handles(names, lines), width)
    return figure
