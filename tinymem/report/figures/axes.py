"""Shared parts of the figures: grids of panels, the look of methods, legends below, labels with the direction that is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from tinymem.report.figures.figure import Line, Value, numbers
from tinymem.report.figures.svg import INK, PALETTE, Dash, Fill, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MEMORIZED_CHANGE = "change in memorized rows (%)\n−100 is best"
MARKERS = ("o", "D", "s", "^", "v", "P")
FILLS: tuple[Fill, ...] = ("full", "none", "left", "bottom")  # distinguish more methods than there are colors
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
NOISE = "all within one 95 % interval"
WIDE_RANGE = 150.0  # percent; changes beyond are drawn on a scale that is logarithmic outside ±10
LINEAR = 10.0


def performance_change_label(metric: str) -> str:
    """Axis label of a change in performance."""
    return f"change in {metric} (%)\n0 is best"


def performance_label(metric: str) -> str:
    """Axis label of a performance metric, with the better direction."""
    return "accuracy (%)\nhigher is better" if metric == "accuracy" else "perplexity\nlower is better"


def grid(rows: int, columns: int, size: tuple[float, float], **sharing: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `rows` x `columns` panels; `size` is width and height of all of it, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, [list(line) for line in figure.subplots(rows, columns, squeeze=False, **sharing)]


def panels(
    count: int, across: int, size: tuple[float, float], margin: tuple[float, float] = (0.0, 0.0), **sharing: Any
) -> tuple[Figure, list[Axes], float]:
    """A figure of so many panels of `size` inches each, at most `across` in a row; the figure, its panels and its width."""
    columns = min(across, count)
    rows = math.ceil(count / columns)
    width = size[0] * columns + margin[0]
    figure, all_axes = grid(rows, columns, (width, size[1] * rows + margin[1]), **sharing)
    found = [axes for row in all_axes for axes in row]
    for axes in found[count:]:
        axes.set_visible(False)
    return figure, found[:count], width


def method_look(names: Sequence[str], name: str, marker: str = "o") -> Style:
    """Color and fill of a method's points, a little transparent so that points under others still show; `names` are all methods."""
    index = names.index(name)
    color, fill = PALETTE[index % len(PALETTE)], FILLS[index // len(PALETTE) % len(FILLS)]
    style: Style = {"marker": marker, "fillstyle": fill, "color": color, "linestyle": "none", "alpha": 0.8}
    return {**style, "markerfacecoloralt": "none", "markersize": 7.5, "markeredgewidth": 1.3}


def method_handles(names: Sequence[str], lines: Iterable[Line]) -> list[Line2D]:
    """Legend entries of the methods that the lines hold."""
    shown = {line["method"] for line in lines}
    return [handle(name, **method_look(names, name)) for name in names if name in shown]


def line_look(index: int) -> Style:
    """Color, dash and marker of a line: together they distinguish 28 lines, without color at least 6."""
    dash = DASHES[index // len(PALETTE) % len(DASHES)]
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": dash, "marker": MARKERS[index % len(MARKERS)], "markersize": 4}


def legend_below(figure: Figure, handles: Iterable[Line2D], width: float) -> None:
    """A legend under all panels, as wide as fits; the figure grows by its height, so that the panels keep theirs."""
    found = list(handles)
    columns = max(1, min(len(found), int(width / (0.5 + 0.078 * max(len(str(h.get_label())) for h in found)))))
    height = figure.get_figheight() + 0.2 * -(-len(found) // columns) + 0.1
    figure.set_size_inches(width, height)
    figure.legend(handles=found, loc="outside lower center", ncols=columns, fontsize=9, handletextpad=0.4)


def handle(label: str, **style: Unpack[Style]) -> Line2D:
    """An entry of a legend, without data."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def ideal(axes: Axes, x: float, y: float) -> None:
    """A star where a perfect edit would be, and a line through no change."""
    axes.plot([x], [y], marker="*", markersize=15, color="none", markeredgecolor=INK, markeredgewidth=0.9, zorder=1)
    axes.axhline(y, color=INK, linewidth=0.7, alpha=0.5, zorder=0)


def widen(axes: Axes, axis: str, values: Iterable[float]) -> None:
    """A scale that is logarithmic outside ±10 where changes reach far, as the paper draws them."""
    known = [abs(value) for value in values if not math.isnan(value)]
    if known and max(known) > WIDE_RANGE:
        logarithmic(axes, axis, LINEAR)


def logarithmic(axes: Axes, axis: str, linear: float) -> None:
    """A scale that is logarithmic outside ±`linear`, with numbers written out at every power of ten that has room."""
    from matplotlib.ticker import FuncFormatter, NullLocator, SymmetricalLogLocator

    (axes.set_xscale if axis == "x" else axes.set_yscale)("symlog", linthresh=linear)
    ticks = axes.xaxis if axis == "x" else axes.yaxis
    locator = SymmetricalLogLocator(base=10, linthresh=linear)
    locator.set_params(numticks=6)
    ticks.set_major_locator(locator)
    ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}".replace("-", "−")))


def say_noise(axes: Axes, axis: Literal["x", "y"], lines: Iterable[Line], column: str) -> None:
    """Say in an axis's label that its values differ by less than the narrowest 95 % interval of any one of them."""
    rows = list(lines)
    values = [value for value in numbers(rows, column) if not math.isnan(value)]
    widths = numbers(rows, f"{column}_interval")
    if len(values) > 1 and not any(map(math.isnan, widths)) and max(values) - min(values) < min(widths):
        label = axes.get_xlabel() if axis == "x" else axes.get_ylabel()
        (axes.set_xlabel if axis == "x" else axes.set_ylabel)(f"{label}\n{NOISE}")


def distinct(lines: Iterable[Line], key: str) -> list[Any]:
    """The values of a column in order of appearance."""
    return list(dict.fromkeys(line[key] for line in lines))


def rising(values: Iterable[Any]) -> list[Any]:
    """Distinct values or tuples of them, numbers in order (also `"100"`), None first."""
    return sorted(set(values), key=lambda value: [_rank(v) for v in (value if isinstance(value, tuple) else (value,))])


def _rank(value: Value) -> tuple[bool, float, str]:
    digits = value if isinstance(value, str) and value.isdigit() else 0.0
    return value is not None, float(value if isinstance(value, int | float) else digits), str(value)


def where(lines: Iterable[Line], **wanted: Value) -> list[Line]:
    """The lines that have all of these values."""
    return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]
