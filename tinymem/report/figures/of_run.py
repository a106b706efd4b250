"""The two figures of one run's report: the training curve, and the effect of each method on the trained model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from tinymem.report.cells import labels, metrics
from tinymem.report.configurations import in_order
from tinymem.report.figures.figure import Line, Value
from tinymem.report.figures.svg import INK, PALETTE, Fill, Style, drawing, panels, to_svg
from tinymem.results.curve import CurvePoint
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "D", "s", "^", "v", "P")
FILLS: tuple[Fill, ...] = ("full", "none", "left", "bottom")  # distinguish more methods than there are colors
WIDTH = 5.0


def training_curve(record: RunRecord) -> str | None:
    """Memorized share of each artifact over the epochs, with the accuracy below; None where no curve was recorded."""
    if not record.curve:
        return None
    with drawing():
        figure, (top, bottom) = panels(2, WIDTH, 4.3)
        _draw_memorized(top, record.curve)
        _draw_accuracy(bottom, record.curve)
        return to_svg(figure, "curve", "Training: share of memorized artifact rows and accuracy, by epoch")


def _draw_memorized(axes: Axes, curve: list[CurvePoint]) -> None:
    kinds = dict.fromkeys(kind for point in curve for kind in point.memorized)
    for i, kind in enumerate(kinds):
        found = [(point.epoch, point.memorized[kind]["share"]) for point in curve if kind in point.memorized]
        _line(axes, found, kind, color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)])
    axes.set_ylabel("memorized (%)")
    axes.set_ylim(-4, 104)
    if kinds:
        axes.legend(loc="lower right")


def _draw_accuracy(axes: Axes, curve: list[CurvePoint]) -> None:
    _line(axes, [(point.epoch, point.accuracy) for point in curve], "accuracy", color=PALETTE[2], marker=".")
    ceiling = [(point.epoch, point.accuracy_ceiling) for point in curve]
    _line(axes, ceiling, "ceiling", color=INK, linestyle="--", linewidth=1.0)
    axes.set_ylabel("accuracy (%)")
    axes.set_xlabel("epoch")
    axes.set_ylim(top=103)
    axes.locator_params(axis="x", integer=True)
    axes.legend(loc="lower right")


def _line(axes: Axes, points: Sequence[tuple[float, float | None]], label: str, **style: Unpack[Style]) -> None:
    known = [(x, 100 * share) for x, share in points if share is not None]
    if known:
        style["markersize"] = 3.5
        axes.plot([x for x, _ in known], [y for _, y in known], label=label, **style)


def change_scatter(record: RunRecord) -> str | None:
    """The paper's Figure 5: change in memorization against change in performance; None where no row has both.

    Memorization is relative (-100 %: nothing is left), accuracy in points, perplexity relative. One panel per metric.
    """
    found = [metric for metric in metrics(record.rows) if any(changes(row) and row_metric(row) == metric for row in record.rows)]
    if not found:
        return None
    methods = in_order(row.method for row in record.rows)
    pairs = {label: methods.index(row.method) for row, label in zip(record.rows, labels(record.rows), strict=True)}
    names = sorted(pairs, key=lambda label: pairs[label])  # a method looks as in the figures of plots/
    kinds = list(dict.fromkeys(row.artifact for row in record.rows))
    with drawing():
        columns = _legend_columns([*names, *kinds])
        legend_height = 0.2 * -(-(len(names) + len(kinds)) // columns)  # the plot keeps its size, however long the legend
        figure, all_axes = panels(len(found), WIDTH, 3.5 * len(found) + legend_height)
        drawn: set[str] = set()
        for metric, axes in zip(found, all_axes, strict=True):
            drawn |= _draw_changes(axes, record, metric, names, kinds)
        all_axes[-1].set_xlabel("change in memorization (% of what was memorized)")
        _legend(figure, [name for name in names if name in drawn], names, kinds, columns)
        return to_svg(figure, "change", "Change in memorization against change in performance, one point per method and artifact")


def change_numbers(record: RunRecord) -> list[Line]:
    """The points of `change_scatter`, each with the row behind it."""
    lines: list[Line] = []
    for row, label in zip(record.rows, labels(record.rows), strict=True):
        if (point := changes(row)) is not None:
            found: dict[str, Value] = {"method": label, "artifact": row.artifact, "metric": row_metric(row)}
            found |= {"memorized_change_percent": point[0], "performance_change": point[1]}
            lines.append({**found, "sources": (row.source,)})
    return lines


def curve_numbers(curve: list[CurvePoint]) -> list[Line]:
    """The lines of `training_curve`: shares in [0, 1] by epoch."""
    return [_curve_line(point) for point in curve]


def _curve_line(point: CurvePoint) -> Line:
    memorized = {f"memorized_{kind}": share["share"] for kind, share in point.memorized.items()}
    rest = {"accuracy": point.accuracy, "accuracy_ceiling": point.accuracy_ceiling}
    rest |= {"perplexity": point.perplexity, "train_loss": point.train_loss}
    return {"epoch": point.epoch, **memorized, **{name: value for name, value in rest.items() if value is not None}}


def row_metric(row: MeasuredRow) -> str:
    """Name of the performance metric that a row holds."""
    return row.performance_metric or "accuracy"


def changes(row: MeasuredRow) -> tuple[float, float] | None:
    """Change in memorization (%) and in performance (points of accuracy, % of perplexity); None where one is not defined."""
    before, after = row.memorized_before, row.memorized_after
    first, last = row.performance_before, row.performance_after
    if not row.is_ok or not before or after is None or first is None or last is None:
        return None
    if not row.is_share and not first:
        return None
    return 100 * (after - before) / before, 100 * (last - first) / (1 if row.is_share else first)


def _draw_changes(axes: Axes, record: RunRecord, metric: str, names: list[str], kinds: list[str]) -> set[str]:
    axes.axhline(0, color=INK, linewidth=0.7, alpha=0.5)
    axes.plot([-100], [0], marker="*", markersize=17, color="none", markeredgecolor=INK, markeredgewidth=0.9, zorder=1)
    axes.annotate("ideal", (-100, 0), xytext=(9, 7), textcoords="offset points", fontsize=9)
    drawn = set()
    for row, label in zip(record.rows, labels(record.rows), strict=True):
        point = changes(row)
        if point is None or row_metric(row) != metric:
            continue
        axes.plot([point[0]], [point[1]], **look(names.index(label), MARKERS[kinds.index(row.artifact) % len(MARKERS)]))
        drawn.add(label)
    axes.margins(0.08, 0.12)
    axes.set_ylabel("change in accuracy (points)" if metric == "accuracy" else f"change in {metric} (%)")
    return drawn


def look(index: int, marker: str) -> Style:
    """Color and fill of a method's points, a little transparent so that points under others still show."""
    color, fill = PALETTE[index % len(PALETTE)], FILLS[index // len(PALETTE) % len(FILLS)]
    style: Style = {"marker": marker, "fillstyle": fill, "color": color, "linestyle": "none", "alpha": 0.8}
    return {**style, "markerfacecoloralt": "none", "markersize": 7.5, "markeredgewidth": 1.3}


def _legend(figure: Figure, shown: list[str], names: list[str], kinds: list[str], columns: int) -> None:
    """Methods by color, artifacts by marker, below the plot: text on crowded points could not be read."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **look(names.index(name), "o")) for name in shown]
    handles += [Line2D([], [], label=kind, **_outline(i)) for i, kind in enumerate(kinds)]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, handletextpad=0.2)


def _outline(index: int) -> Style:
    """An artifact's marker without a method's color."""
    return {"color": INK, "linestyle": "none", "fillstyle": "none", "markersize": 7, "marker": MARKERS[index % len(MARKERS)]}


def _legend_columns(entries: list[str]) -> int:
    return max(1, min(3, 60 // (max(map(len, entries)) + 5)))
