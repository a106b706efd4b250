"""The two figures of a report: what training did, and what each method did to the trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinymem.report.cells import is_share, labels, metrics
from tinymem.report.configurations import in_order
from tinymem.report.figures.svg import INK, PALETTE, drawing, panels, to_svg
from tinymem.results.row import is_ok, source_id
from tinymem.results.run_folder import Row, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "D", "s", "^", "v", "P")
FILLS = ("full", "none", "left", "bottom")  # tell methods apart beyond the colors
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


def _draw_memorized(axes: Axes, curve: list[Row]) -> None:
    kinds = dict.fromkeys(kind for point in curve for kind in point.get("memorized") or {})
    for i, kind in enumerate(kinds):
        found = [(point["epoch"], (point.get("memorized") or {}).get(kind) or {}) for point in curve]
        look = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}
        _line(axes, [(epoch, value.get("share")) for epoch, value in found], label=kind, **look)
    axes.set_ylabel("memorized (%)")
    axes.set_ylim(-4, 104)
    if kinds:
        axes.legend(loc="lower right")


def _draw_accuracy(axes: Axes, curve: list[Row]) -> None:
    _line(axes, [(point["epoch"], point.get("accuracy")) for point in curve], label="accuracy", color=PALETTE[2], marker=".")
    ceiling = [(point["epoch"], point.get("accuracy_ceiling")) for point in curve]
    _line(axes, ceiling, label="ceiling", color=INK, linestyle="--", linewidth=1.0)
    axes.set_ylabel("accuracy (%)")
    axes.set_xlabel("epoch")
    axes.set_ylim(top=103)
    axes.locator_params(axis="x", integer=True)
    axes.legend(loc="lower right")


def _line(axes: Axes, points: list[tuple[float, float | None]], **style: Any) -> None:
    known = [(x, 100 * share) for x, share in points if share is not None]
    if known:
        axes.plot([x for x, _ in known], [y for _, y in known], markersize=3.5, **style)


def change_scatter(record: RunRecord) -> str | None:
    """The paper's Figure 5: change in memorization against change in performance; None where no row has both.

    Memorization is relative (-100 %: nothing is left), accuracy in points, perplexity relative. One panel per metric.
    """
    found = [metric for metric in metrics(record.rows) if any(changes(row) and row_metric(row) == metric for row in record.rows)]
    if not found:
        return None
    methods = in_order(row["method"] for row in record.rows)
    pairs = {label: methods.index(row["method"]) for row, label in zip(record.rows, labels(record.rows), strict=True)}
    names = sorted(pairs, key=lambda label: pairs[label])  # a method looks as in the figures of plots/
    kinds = list(dict.fromkeys(row["artifact"] for row in record.rows))
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


def change_numbers(record: RunRecord) -> list[dict[str, Any]]:
    """The points of `change_scatter`, each with the row behind it."""
    lines = []
    for row, label in zip(record.rows, labels(record.rows), strict=True):
        if (point := changes(row)) is not None:
            found = {"method": label, "artifact": row["artifact"], "metric": row_metric(row)}
            found |= {"memorized_change_percent": point[0], "performance_change": point[1]}
            lines.append({**found, "sources": (source_id(row),)})
    return lines


def curve_numbers(curve: list[Row]) -> list[dict[str, Any]]:
    """The lines of `training_curve`: shares in [0, 1] by epoch."""
    keys = ("accuracy", "accuracy_ceiling", "perplexity", "train_loss")
    return [
        {"epoch": line["epoch"]}
        | {f"memorized_{kind}": (share or {}).get("share") for kind, share in (line.get("memorized") or {}).items()}
        | {key: line[key] for key in keys if line.get(key) is not None}
        for line in curve
    ]


def row_metric(row: Row) -> str:
    """Which performance metric a row holds."""
    return str(row.get("performance_metric") or "accuracy")


def changes(row: Row) -> tuple[float, float] | None:
    """Change in memorization (%) and in performance (points of accuracy, % of perplexity); None where one is not defined."""
    before, after = row.get("memorized_before"), row.get("memorized_after")
    first, last = row.get("performance_before"), row.get("performance_after")
    if not is_ok(row) or not before or after is None or first is None or last is None:
        return None
    if not is_share(row) and not first:
        return None
    return 100 * (after - before) / before, 100 * (last - first) / (1 if is_share(row) else first)


def _draw_changes(axes: Axes, record: RunRecord, metric: str, names: list[str], kinds: list[str]) -> set[str]:
    axes.axhline(0, color=INK, linewidth=0.7, alpha=0.5)
    axes.plot([-100], [0], marker="*", markersize=17, color="none", markeredgecolor=INK, markeredgewidth=0.9, zorder=1)
    axes.annotate("ideal", (-100, 0), xytext=(9, 7), textcoords="offset points", fontsize=9)
    drawn = set()
    for row, label in zip(record.rows, labels(record.rows), strict=True):
        point = changes(row)
        if point is None or row_metric(row) != metric:
            continue
        axes.plot([point[0]], [point[1]], **look(names.index(label), MARKERS[kinds.index(row["artifact"]) % len(MARKERS)]))
        drawn.add(label)
    axes.margins(0.08, 0.12)
    axes.set_ylabel("change in accuracy (points)" if metric == "accuracy" else f"change in {metric} (%)")
    return drawn


def look(index: int, marker: str) -> dict[str, Any]:
    """Color and fill of a method's points, a little transparent so that points under others still show."""
    color, fill = PALETTE[index % len(PALETTE)], FILLS[index // len(PALETTE) % len(FILLS)]
    style = {"marker": marker, "fillstyle": fill, "color": color, "linestyle": "none", "alpha": 0.8}
    return {**style, "markerfacecoloralt": "none", "markersize": 7.5, "markeredgewidth": 1.3}


def _legend(figure: Figure, shown: list[str], names: list[str], kinds: list[str], columns: int) -> None:
    """Methods by color, artifacts by marker, below the plot: text on crowded points could not be read."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **look(names.index(name), "o")) for name in shown]
    plain: dict[str, Any] = {"color": INK, "linestyle": "none", "fillstyle": "none", "markersize": 7}
    handles += [Line2D([], [], label=kind, marker=MARKERS[i % len(MARKERS)], **plain) for i, kind in enumerate(kinds)]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, handletextpad=0.2)


def _legend_columns(entries: list[str]) -> int:
    return max(1, min(3, 60 // (max(map(len, entries)) + 5)))
