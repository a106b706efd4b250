"""The confusion matrix of DEL: what dropping one row's neurons does to every memorized row, rows of a category side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinymem.report.figures.axes import distinct, panels, where
from tinymem.report.figures.figure import FigureData, Line, Skipped, number
from tinymem.report.figures.points import Inputs
from tinymem.report.figures.registry import report_figure
from tinymem.report.tables.localization import models_apart, scorer_name
from tinymem.report.tables.measured_with import named_apart
from tinymem.results.nested import ConfusionColumn
from tinymem.results.row import LocalizationRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEY, TITLE = "confusion", "Confusion of memorized rows"
CAPTION = (
    "Change of suffix accuracy (points) of the row of each column when the neurons of the row of each line are dropped, of the scorer that "
    "erases most at each ratio. Lines part categories: where a block off the diagonal is dark, rows of that kind share neurons."
)
LABELS = 16
"""Categories up to which all are named on the axes."""


@report_figure("confusion")
def confusions(inputs: Inputs) -> list[FigureData | Skipped]:
    """A figure for each model and choice of the benchmark's options, a panel for each dropped ratio."""
    best: dict[tuple[str, float], LocalizationRow] = {}
    for row in named_apart(models_apart([row for row in inputs.localization if row.benchmark == "del"])):
        if row.confusion and row.score is not None:
            place = row.model_id or row.run or "", row.ratio or 0.0
            best[place] = min(best.get(place, row), row, key=lambda one: one.score or 0.0)
    found: dict[str, list[Line]] = {}
    for (model, _), row in sorted(best.items()):
        found.setdefault(model, []).extend(_lines(row, row.confusion)) if row.confusion else None
    several = len(found) > 1
    figures: list[FigureData | Skipped] = [
        FigureData(f"{KEY}-{model}" if several else KEY, f"{TITLE}, {lines[0]['model']}" if several else TITLE, CAPTION, lines, draw)
        for model, lines in found.items()
    ]
    return figures or [Skipped(KEY, TITLE, "needs a DEL benchmark: tinymem localize del")]


def _lines(row: LocalizationRow, matrix: ConfusionColumn) -> list[Line]:
    panel = f"{scorer_name(row)}, {100 * (row.ratio or 0):g} % dropped"
    return [
        {
            "model": row.model_name or row.run, "panel": panel, "line": i, "column": j, "target": target, "row": other,
            "change": None if change is None else 100 * change, "sources": (row.source,),
        }
        for i, (target, changes) in enumerate(zip(matrix["targets"], matrix["changes"], strict=True))
        for j, (other, change) in enumerate(zip(matrix["rows"], changes, strict=True))
    ]  # fmt: skip


def draw(lines: list[Line]) -> Figure:
    """A square a panel; dark: accuracy is lost."""
    shown = distinct(lines, "panel")
    figure, all_axes, _ = panels(len(shown), 2, (4.8, 4.2))
    lowest = min((number(line, "change") for line in lines if line["change"] is not None), default=-1.0)
    image: Any = None
    for axes, panel in zip(all_axes, shown, strict=True):
        those = where(lines, panel=panel)
        count = len(distinct(those, "line"))
        cells = [[number(line, "change") for line in where(those, line=i)] for i in range(count)]
        image = axes.imshow(cells, vmin=min(lowest, -1.0), vmax=0, cmap="cividis", aspect="auto", interpolation="nearest")
        axes.set_title(panel, loc="left", fontsize=10)
        _categories(
            axes, [str(where(those, line=i)[0]["target"]) for i in range(count)], [str(line["row"]) for line in where(those, line=0)]
        )
        axes.grid(visible=False)
    bar = figure.colorbar(image, ax=all_axes, label="change of accuracy (points)")
    bar.ax.grid(visible=False)
    return figure


def _categories(axes: Axes, targets: list[str], rows: list[str]) -> None:
    """Lines between categories, and their names where they have room."""
    for names, set_ticks, part in ((targets, axes.set_yticks, axes.axhline), (rows, axes.set_xticks, axes.axvline)):
        starts = [i for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
        ends = [*starts[1:], len(names)]
        for start in starts[1:]:
            part(start - 0.5, color="#ffffff", linewidth=0.7)
        middle = [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)]
        labels = [names[start] for start in starts] if len(starts) <= LABELS else [""] * len(starts)
        set_ticks(middle, labels, fontsize=8, rotation=0 if names is targets else 60)
    axes.set_xlabel("row")
    axes.set_ylabel("row whose neurons are dropped")
