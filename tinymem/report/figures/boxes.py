"""Box plots of the best runs: Figures 2 and 3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tinymem.report.configurations import in_order
from tinymem.report.figures.axes import MEMORIZED_CHANGE, distinct, grid, performance_change_label, where, widen
from tinymem.report.figures.figure import FigureData, Line, Skipped, number
from tinymem.report.figures.points import Inputs, Point, in_paper_order
from tinymem.report.figures.registry import report_figure
from tinymem.report.figures.svg import INK, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNITS = {"neuron": PALETTE[0], "weight": PALETTE[1], "model": PALETTE[6]}
STATISTICS = {"whislo": "low", "q1": "q1", "med": "median", "q3": "q3", "whishi": "high"}
LEAST = 3  # a box of fewer values has no meaning
BOX = " Box: quartiles and median; whiskers: lowest and highest; n: models, each averaged over its seeds."


@report_figure("2")
def figure_2(inputs: Inputs) -> list[FigureData | Skipped]:
    """Neuron-level against weight-level methods: change in memorization and in performance of their best runs.

    The paper shows Pythia models at four training times; here it is whatever models the rows are of.
    """
    title = "Neurons or weights?"
    points = [p for p in inputs.best if p.unit in ("neuron", "weight")]
    if min(sum(p.unit == unit for p in points) for unit in ("neuron", "weight")) < LEAST:
        return [Skipped("figure-02", title, f"needs at least {LEAST} best runs of neuron-level and of weight-level methods", "Figure 2")]
    lines = list(_lines(points, lambda p: str(p.unit), ""))
    caption = "Best run of each method on each model, by what the method edits. A perfect edit has −100 and 0."
    return [FigureData("figure-02", title, caption + BOX, lines, draw_boxes, "Figure 2")]


@report_figure("3")
def figure_3(inputs: Inputs) -> list[FigureData | Skipped]:
    """All methods over all model sizes, training times and data sizes, for each kind of model and artifact."""
    title = "Methods over all models"
    points = inputs.best
    if len({p.model for p in points}) < 2:
        return [Skipped("figure-03", title, "needs results on at least two models that differ in size, data or training time", "Figure 3")]
    lines: list[Line] = []
    for kind in in_paper_order(p.kind for p in points):
        lines += _lines([p for p in points if p.kind == kind], lambda p: p.method, kind)
    caption = "Best run of each method on each model: sizes, training times and data sizes together. A perfect edit has −100 and 0."
    return [FigureData("figure-03", title, caption + BOX, lines, draw_boxes, "Figure 3")]


def _lines(points: Sequence[Point], name: Callable[[Point], str], kind: str) -> Iterable[Line]:
    """Yield a box per quantity and name."""
    quantities: list[tuple[str, list[Point]]] = [("memorized", list(points))]
    quantities += [(m, [p for p in points if p.metric == m]) for m in ("accuracy", "perplexity") if any(p.metric == m for p in points)]
    for quantity, those in quantities:
        for label in in_order(name(p) for p in those):
            same = [p for p in those if name(p) == label]
            changes = [p.memorized_change if quantity == "memorized" else p.performance_change for p in same]
            yield {
                "kind": kind, "quantity": quantity, "name": label, "unit": same[0].unit, **box([c for c in changes if c is not None]),
                "sources": tuple(s for p in same for s in p.sources),
            }  # fmt: skip


def box(values: Sequence[float]) -> dict[str, float]:
    """Count, extremes and quartiles (linear between values, as numpy and matplotlib do).

    >>> box([1.0, 2.0, 3.0, 10.0])
    {'n': 4, 'low': 1.0, 'q1': 1.75, 'median': 2.5, 'q3': 4.75, 'high': 10.0}
    """
    import numpy as np

    low, q1, median, q3, high = (float(q) for q in np.percentile(values, (0, 25, 50, 75, 100)))
    return {"n": len(values), "low": low, "q1": q1, "median": median, "q3": q3, "high": high}


def draw_boxes(lines: list[Line]) -> Figure:
    """A row of panels for each kind: memorization, then performance."""
    kinds = distinct(lines, "kind")
    panels = [_quantities(lines, kind) for kind in kinds]
    columns = max(map(len, panels))
    heights = [0.9 + 0.24 * len(distinct(where(lines, kind=kind), "name")) for kind in kinds]
    figure, all_axes = grid(len(kinds), columns, (3.7 * columns, sum(heights)), height_ratios=heights)
    for kind, row, quantities in zip(kinds, all_axes, panels, strict=True):
        for i, axes in enumerate(row):
            if i < len(quantities):
                _draw(axes, where(lines, kind=kind, quantity=quantities[i]), quantities[i], kind if not i else "")
            else:
                axes.set_visible(False)
    return figure


def _quantities(lines: list[Line], kind: str) -> list[str]:
    return distinct(where(lines, kind=kind), "quantity")


def _draw(axes: Axes, lines: list[Line], quantity: str, title: str) -> None:
    for place, line in enumerate(lines):
        stats = {key: number(line, name) for key, name in STATISTICS.items()}
        color = UNITS.get(str(line["unit"]), PALETTE[6])
        style = {"color": color, "linewidth": 1.3}
        axes.bxp(
            [stats], positions=[place], widths=0.6, orientation="horizontal", showfliers=False, patch_artist=True, manage_ticks=False,
            boxprops={"facecolor": color, "alpha": 0.45, "edgecolor": color}, medianprops={"color": INK, "linewidth": 1.6},
            whiskerprops=style, capprops=style,
        )  # fmt: skip
    axes.set_yticks(range(len(lines)), [f"{line['name']} (n={line['n']})" for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    widen(axes, "x", [number(line, end) for line in lines for end in ("low", "high")])
    axes.axvline(-100 if quantity == "memorized" else 0, color=INK, linewidth=0.9, linestyle=":")
    axes.set_xlabel(MEMORIZED_CHANGE if quantity == "memorized" else performance_change_label(quantity))
    axes.set_title(title, loc="left", fontsize=10)
