"""Share of a model that the best runs zero, by model size and by training data: Figures 16 to 19."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinymem.report.configurations import in_order
from tinymem.report.figures.axes import MARKERS, distinct, grid, handle, legend_below, logarithmic, rising, where
from tinymem.report.figures.figure import FigureData, Line, Skipped, Value, numbers
from tinymem.report.figures.points import Inputs, Point, in_paper_order
from tinymem.report.figures.registry import report_figure
from tinymem.report.figures.svg import PALETTE, Style
from tinymem.report.means import mean_of
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEURONS = "feed-forward neurons zeroed (%)"
WEIGHTS = "feed-forward weights zeroed (%)"
SMALLEST = 0.001  # percent; below this the axis is linear, so that 0 has a place


@report_figure("16-19")
def figures_16_to_19(inputs: Inputs) -> list[FigureData | Skipped]:
    """Share of neurons (16, 18) or weights (17, 19) that the best run of each method zeroes, counted in the edited model.

    16 and 17 by number of layers or, of models trained elsewhere, by name, 18 and 19 by data and artifact; means over training times,
    data sizes and seeds. The paper draws the configured ratio; an edit may zero less, where weights were zero before.
    """
    sizes: Callable[[Point], Value] = lambda p: p.n_layer or p.series  # noqa: E731
    kinds: Callable[[Point], Value] = lambda p: p.kind  # noqa: E731
    return [
        _figure(inputs, "16", "neurons by model size", "neuron", sizes, 2, "numbers of layers"),
        _figure(inputs, "17", "weights by model size", "weight", sizes, 2, "numbers of layers"),
        _figure(inputs, "18", "neurons by data and artifact", "neuron", kinds, 1, "kinds of models"),
        _figure(inputs, "19", "weights by data and artifact", "weight", kinds, 1, "kinds of models"),
    ]


def _figure(inputs: Inputs, number: str, what: str, unit: str, by: Callable[[Point], Value], least: int, of: str) -> FigureData | Skipped:
    title = f"Zeroed {what}"
    lines = zeroed_lines([p for p in inputs.best if p.unit == unit], unit, by)
    if len({line["group"] for line in lines}) < least:
        need = f"{unit}-level methods" + (f" on models with two {of}" if least > 1 else "")
        return Skipped(f"figure-{number}", title, f"needs results of {need}, with the column edited_by_layer", f"Figure {number}")
    caption = (
        f"Share of the feed-forward {unit}s that the best run of each {unit}-level method zeroes, mean over models. Less is a finer cut."
    )
    return FigureData(f"figure-{number}", title, caption, lines, draw_zeroed, f"Figure {number}")


def zeroed_lines(points: list[Point], unit: str, by: Callable[[Point], Value]) -> list[Line]:
    """Means over the models of each group and method."""
    alike: dict[tuple[Value, str], list[tuple[Point, float]]] = defaultdict(list)
    for p in points:
        share = p.neurons_zeroed if unit == "neuron" else p.weights_zeroed
        if share is not None:
            alike[by(p), p.method].append((p, share))
    lines: list[Line] = []
    for (group, method), same in alike.items():
        mean = mean_of(share for _, share in same)
        sources = tuple(s for p, _ in same for s in p.sources)
        lines.append(
            {"group": group, "method": method, "unit": unit, "zeroed": mean.mean if mean else None, "models": len(same), "sources": sources}
        )
    return lines


def draw_zeroed(lines: list[Line]) -> Figure:
    """A row per method, a marker per group."""
    names, found = in_order(distinct(lines, "method")), distinct(lines, "group")
    groups = in_paper_order(found) if all(isinstance(group, str) for group in found) else rising(found)
    figure, [[axes]] = grid(1, 1, (5.6, 0.9 + (0.2 + 0.13 * len(groups)) * len(names)))
    for k, group in enumerate(groups):
        those = where(lines, group=group)
        lower = 0.6 * (k + 0.5) / len(groups) - 0.3  # below each other, or equal shares would hide each other
        axes.plot(numbers(those, "zeroed"), [names.index(str(line["method"])) + lower for line in those], **_look(k))
    logarithmic(axes, "x", SMALLEST)
    axes.set_xlim(0, max(numbers(lines, "zeroed")) * 2 + SMALLEST)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(NEURONS if lines[0]["unit"] == "neuron" else WEIGHTS)
    words = [counted(group, "layer") if isinstance(group, int) else str(group or "of unknown size") for group in groups]
    legend_below(figure, [handle(w, **_look(k)) for k, w in enumerate(words)], 5.6)
    return figure


def _look(k: int) -> Style:
    return {"marker": MARKERS[k % len(MARKERS)], "color": PALETTE[k % len(PALETTE)], "markersize": 7, "alpha": 0.85, "linestyle": "none"}
