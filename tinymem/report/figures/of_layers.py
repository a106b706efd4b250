"""Pictures of localization by layer: heat maps of windows, weights by layer, centroids and probes (as Dankers and Titov 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from tinymem.localization.layers.windows import heat
from tinymem.report.figures.axes import distinct, grid, handle, legend_below, line_look, where
from tinymem.report.figures.figure import FigureData, Line, Skipped, number, numbers
from tinymem.report.figures.points import Inputs
from tinymem.report.figures.registry import report_figure
from tinymem.report.tables.layered import OfModel, models_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = {
    "noise-probes": ("f1",), "label-probes": ("f1_planted", "f1_original", "f1_clean"), "centroids": ("noised", "planted", "original"),
}  # fmt: skip
"""Numbers of a technique that are drawn over the layers, the embedding included."""
WINDOWED = ("layer-swapping", "layer-retraining")


@report_figure("layer-heat")
def heat_maps(inputs: Inputs) -> list[FigureData | Skipped]:
    """Error of planted decisions by width of the window and layer, a panel for swapping and for retraining; a figure a model."""
    caption = (
        "Share of planted decisions that are undone when so many consecutive layers are swapped with the counterfactual's, or retrained "
        "on clean rows: mean over the windows that hold the layer, over the error of all layers. Higher: the layer matters more."
    )
    return _each(inputs, "layer-heat", "Windows of layers", caption, heat_lines, draw_heat)


@report_figure("layer-weights")
def weight_curves(inputs: Inputs) -> list[FigureData | Skipped]:
    """Weight of each layer by each technique; a figure a model."""
    caption = "Share of each technique's weight in each layer. Higher: more of what was memorized is there, by that technique."
    return _each(inputs, "layer-weights", "Weight of each layer", caption, weight_lines, draw_weights)


@report_figure("layer-curves")
def layer_curves(inputs: Inputs) -> list[FigureData | Skipped]:
    """F1 of probes behind each layer; a figure a model."""
    caption = (
        "F1 of probes that read the states behind each layer (0: the embedding), mean over seeds, the band from the least to the greatest: "
        "f1 tells planted decisions from clean ones; f1_planted and f1_original name a planted decision's targets, f1_clean a clean one's."
    )
    return _each(
        inputs, "layer-curves", "Probes by layer", caption, partial(curve_lines, techniques=("noise-probes", "label-probes")), draw_curves
    )


@report_figure("layer-centroids")
def centroid_plots(inputs: Inputs) -> list[FigureData | Skipped]:
    """Places between two targets' centroids behind each layer, as trained and with half of the layers swapped; a figure a model."""
    caption = (
        "States behind each layer (0: the embedding) on the line from the planted target's centroid (0) to the original one's (1): planted "
        "decisions (noised) and clean ones of both targets; mean over pairs of targets, the bands hold three quarters. Decisions that are "
        "remembered as planted end near 0."
    )
    return _each(
        inputs,
        "layer-centroids",
        "From the original to the planted target",
        caption,
        partial(curve_lines, techniques=("centroids",)),
        draw_curves,
    )


def heat_lines(model: OfModel) -> Iterable[Line]:
    """A line for each technique, width and layer."""
    for method in WINDOWED:
        rows = [row for row in model.find(method, "error") if row.layer is not None and row.window is not None]
        errors = {(row.layer or 0, (row.layer or 0) + (row.window or 1) - 1): row.score or 0.0 for row in rows}
        depth = max((last + 1 for _, last in errors), default=0)
        full = errors.get((0, depth - 1), 0.0)
        widths = sorted({last - first + 1 for first, last in errors})
        for width, of_layers in zip(widths, heat(errors, depth).tolist() if full else (), strict=False):
            for layer, error in enumerate(of_layers, 1):
                yield {"technique": method, "window": width, "layer": layer, "error": error / full, "sources": (rows[0].source,)}


def weight_lines(model: OfModel) -> Iterable[Line]:
    """A line for each technique and layer."""
    for method in model.techniques:
        weights = model.weights(method)
        for layer, weight in enumerate(weights if sum(weights) else (), 1):
            share = 100 * weight / sum(weights)
            yield {"technique": method, "layer": layer, "weight": share, "sources": (model.find(method, "weight")[0].source,)}


def curve_lines(model: OfModel, techniques: tuple[str, ...]) -> Iterable[Line]:
    """A line for each number of a technique, variant and layer, from 0 for the embedding."""
    for row in model.rows:
        if row.method in techniques and row.score_name in CURVES.get(row.method, ()) and row.layer is not None:
            panel = f"{row.options['swapped']} half swapped" if row.options else "as trained" if row.method == "centroids" else row.method
            low, high = row.low, row.high
            yield {
                "panel": panel, "curve": row.score_name, "layer": row.layer + 1, "value": row.score, "low": low, "high": high,
                "sources": (row.source,),
            }  # fmt: skip


def draw_heat(lines: list[Line]) -> Figure:
    """A panel for each technique: widths down, layers across, the error in each cell."""
    names, layers = distinct(lines, "technique"), len(distinct(lines, "layer"))
    widths = distinct(lines, "window")
    figure, [panels] = grid(1, len(names), (max(4.2, 1.2 + 0.5 * layers) * len(names), 1.3 + 0.34 * len(widths)))
    for axes, name in zip(panels, names, strict=True):
        _cells(axes, where(lines, technique=name), widths)
        axes.set_title(f"{name}\nhigher: remembered there", loc="left", fontsize=10)
        axes.set_xlabel("layer (1 = bottom)")
        axes.set_ylabel("layers at once")
    return figure


def _cells(axes: Axes, lines: list[Line], widths: list[int]) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    for line in lines:
        error, x, y = number(line, "error"), number(line, "layer") - 0.5, widths.index(int(number(line, "window"))) - 0.5
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colormaps["cividis"](min(1.0, error)), edgecolor="#8A8A8A", linewidth=0.5))
        axes.text(x + 0.5, y + 0.5, f"{error:.2f}", ha="center", va="center", fontsize=8, color="#ffffff" if error < 0.55 else "#000000")
    axes.set_xlim(0.5, len(distinct(lines, "layer")) + 0.5)
    axes.set_ylim(len(widths) - 0.5, -0.5)
    axes.set_xticks(range(1, len(distinct(lines, "layer")) + 1))
    axes.set_yticks(range(len(widths)), [str(width) for width in widths])
    axes.grid(visible=False)


def draw_weights(lines: list[Line]) -> Figure:
    """A curve over the layers for each technique."""
    names = distinct(lines, "technique")
    figure, [[axes]] = grid(1, 1, (6.0, 3.2))
    for index, name in enumerate(names):
        those = where(lines, technique=name)
        axes.plot(numbers(those, "layer"), numbers(those, "weight"), **line_look(index))
    axes.set_xlabel("layer (1 = bottom)")
    axes.set_ylabel("weight (% of all layers)\nhigher: more is remembered there")
    axes.set_xticks(distinct(lines, "layer"))
    legend_below(figure, [handle(name, **line_look(index)) for index, name in enumerate(names)], 6.0)
    return figure


def draw_curves(lines: list[Line]) -> Figure:
    """A panel for each technique or variant, a curve with its band for each number."""
    panels, curves = distinct(lines, "panel"), distinct(lines, "curve")
    width = max(5.0, 3.2 * len(panels))
    figure, [all_axes] = grid(1, len(panels), (width, 3.2), sharex=True)
    for axes, panel in zip(all_axes, panels, strict=True):
        for curve in distinct(where(lines, panel=panel), "curve"):
            those, look = where(lines, panel=panel, curve=curve), line_look(curves.index(curve))
            axes.fill_between(
                numbers(those, "layer"), numbers(those, "low"), numbers(those, "high"), alpha=0.15, color=look["color"], linewidth=0
            )
            axes.plot(numbers(those, "layer"), numbers(those, "value"), **look)
        axes.set_title(panel, loc="left", fontsize=10)
        axes.set_xlabel("layer (0 = embedding)")
    legend_below(figure, [handle(curve, **line_look(index)) for index, curve in enumerate(curves)], width)
    return figure


def _each(
    inputs: Inputs, key: str, title: str, caption: str, lines_of: Callable[[OfModel], Iterable[Line]], draw: Callable[[list[Line]], Figure]
) -> list[FigureData | Skipped]:
    """A figure for each model that has the lines; nothing where no layers were localized."""
    found: list[FigureData | Skipped] = []
    for model in models_of(inputs.localization):
        if lines := list(lines_of(model)):
            first = model.rows[0]
            found.append(FigureData(model.key(key), f"{title}: {model.name}, {first.artifact}", caption, lines, draw))
    return found
