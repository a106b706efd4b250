"""Density of all runs of a method, not only its best: Figure 21."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinymem.report.configurations import in_order
from tinymem.report.figures.axes import MEMORIZED_CHANGE, distinct, panels, performance_change_label, where
from tinymem.report.figures.figure import FigureData, Line, Skipped, numbers
from tinymem.report.figures.points import Inputs, Point
from tinymem.report.figures.registry import report_figure
from tinymem.report.figures.svg import INK, PALETTE
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMORIZED_LIMIT = 50.0
PERPLEXITY_LIMIT = 40.0
STEP = 10.0  # percent, side of a cell
RANGES = {"memorized": (-100.0, 0.0), "accuracy": (-50.0, 10.0), "perplexity": (-10.0, 100.0)}
COLUMNS = 4
LEAST = 20  # runs; fewer are distinguishable in the scatter


@report_figure("21")
def figure_21(inputs: Inputs) -> list[FigureData | Skipped]:
    """Figure 21: number of a method's runs in each cell of change in memorization and in performance (is it good only at its best?).

    As in the paper, runs that end at 50 % memorized or more, or a perplexity of 40 or more, are left out; where the unedited model's own is
    40 or more, those of twice that. The paper shows Pythia models (perplexity 20); here a figure for the language models among the rows
    and one for the math models. Runs beyond the axes count in the outermost cells.
    """
    found: list[FigureData | Skipped] = []
    for metric, key, what in (("perplexity", "figure-21", "language models"), ("accuracy", "figure-21-math", "math models")):
        title, paper = f"All runs, {what}", "Figure 21" if key == "figure-21" else ""
        lines = cells(inputs.points, metric)
        if sum(numbers(lines, "runs")) < LEAST:
            found.append(
                Skipped(key, title, f"needs at least {LEAST} runs on {what} that end below {MEMORIZED_LIMIT:g} % memorized", paper)
            )
            continue
        limit = (
            f" and a perplexity below {PERPLEXITY_LIMIT:g} (twice the unedited model's, if that is above it)"
            if metric == "perplexity"
            else ""
        )
        caption = (
            f"Every run that ends below {MEMORIZED_LIMIT:g} % memorized{limit}, not only the best: the area of a dot is how many of "
            "a method's end there. Best is the lower end of memorization at no change in performance (star)."
        )
        found.append(FigureData(key, title, caption, lines, draw_cells, paper))
    return found


def cells(points: Sequence[Point], metric: str) -> list[Line]:
    """Runs per method and cell, with the middle of the cell."""
    counted: dict[tuple[str, float, float], list[Point]] = defaultdict(list)
    for p in points:
        if p.metric != metric or p.memorized_change is None or p.performance_change is None or p.performance is None:
            continue
        if (
            p.memorized is not None
            and p.memorized < MEMORIZED_LIMIT
            and (metric == "accuracy" or is_shown(p.performance, p.performance_change))
        ):
            counted[p.method, middle(p.memorized_change, "memorized"), middle(p.performance_change, metric)].append(p)
    return [
        {
            "method": method, "metric": metric, "memorized_change": x, "performance_change": y, "runs": len(same),
            "sources": tuple(s for p in same for s in p.sources),
        }
        for (method, x, y), same in sorted(counted.items())
    ]  # fmt: skip


def is_shown(perplexity: float, change: float) -> bool:
    """Whether a perplexity that is so many percent above the unedited model's is below the limit.

    >>> is_shown(39.0, 30.0), is_shown(41.0, 30.0), is_shown(60.0, 10.0), is_shown(150.0, 150.0)
    (True, False, True, False)
    """
    unedited = perplexity / (1 + change / 100)
    return perplexity < (PERPLEXITY_LIMIT if unedited < PERPLEXITY_LIMIT else 2 * unedited)


def middle(change: float, quantity: str) -> float:
    """Middle of the cell that a change falls in; changes beyond the axes fall in the outermost cell.

    >>> middle(-100.0, "memorized"), middle(-3.0, "memorized"), middle(500.0, "perplexity")
    (-95.0, -5.0, 95.0)
    """
    low, high = RANGES[quantity]
    place = min(max(math.floor((change - low) / STEP), 0), round((high - low) / STEP) - 1)
    return low + (place + 0.5) * STEP


def draw_cells(lines: list[Line]) -> Figure:
    """Draw a panel per method, its cells shaded by number of runs."""
    names, metric = in_order(distinct(lines, "method")), str(lines[0]["metric"])
    figure, all_axes, _ = panels(len(names), COLUMNS, (2.2, 1.9), (0.6, 0.9), sharex=True, sharey=True)
    for axes, name in zip(all_axes, names, strict=True):
        those = where(lines, method=name)
        runs = numbers(those, "runs")
        sizes = [8 + 260 * count / sum(runs) for count in runs]
        x, y = numbers(those, "memorized_change"), numbers(those, "performance_change")
        axes.scatter(x, y, s=sizes, color=PALETTE[0], alpha=0.7, linewidths=0)
        axes.plot([-100], [0], marker="*", markersize=12, color="none", markeredgecolor=INK, markeredgewidth=0.9, zorder=1)
        axes.axhline(0, color=INK, linewidth=0.7, alpha=0.5, zorder=0)
        axes.set_title(f"{name} ({counted(round(sum(runs)), 'run')})", fontsize=9)
        axes.set_xlim(-108, 5)
        axes.set_ylim(RANGES[metric][0] - 3, RANGES[metric][1] + 3)
    figure.supxlabel(MEMORIZED_CHANGE.replace("\n", "; "), fontsize=10)
    figure.supylabel(performance_change_label(metric).replace("\n", "; "), fontsize=10)
    return figure
