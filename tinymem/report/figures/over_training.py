"""Unlearning at several points of training, Figures 8 to 11, and memorization over the training of models made elsewhere, Figure 20."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tinymem.report.configuration import Configuration
from tinymem.report.figures.axes import (
    MEMORIZED_CHANGE,
    distinct,
    grid,
    handle,
    legend_below,
    line_look,
    performance_change_label,
    performance_label,
    rising,
    where,
    widen,
)
from tinymem.report.figures.figure import FigureData, Line, Skipped, numbers, paper_number
from tinymem.report.figures.points import PAPER_KINDS, Inputs, Point, in_paper_order, is_over_steps, series_in
from tinymem.report.figures.registry import report_figure
from tinymem.report.figures.svg import INK
from tinymem.report.means import mean_of
from tinymem.results.row import MeasuredRow
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@report_figure("8-11")
def figures_8_to_11(inputs: Inputs) -> list[FigureData | Skipped]:
    """Change in memorization (top) and in performance (below) of the best runs against the epoch of the model, a line per method.

    8: math + noise, 9: math + backdoor, 10: language + noise, 11: language + backdoor; a column per number of layers. A line is the
    mean over seeds and, for math, over both families and all data sizes.
    """
    found: list[FigureData | Skipped] = []
    for kind in in_paper_order([*PAPER_KINDS, *(p.kind for p in inputs.best)]):
        number = f"figure-{8 + PAPER_KINDS.index(kind):02d}" if kind in PAPER_KINDS else f"training-{kind.replace(' + ', '-')}"
        title, paper = f"Unlearning over training: {kind}", paper_number(number)
        points = [p for p in inputs.best if p.kind == kind and p.epoch is not None]
        if len({p.epoch for p in points}) < 2:
            found.append(
                Skipped(number, title, f"needs results of {kind} at two training times (training.keep_epochs in the recipe)", paper)
            )
            continue
        caption = f"{kind.capitalize()}: best run of each method by the training time of the model it edits, averaged over seeds and data. "
        caption += "A perfect edit has −100 above and 0 below."
        draw = partial(draw_over_training, names=inputs.methods, time="step" if points[0].series else "epoch")
        found.append(FigureData(number, title, caption, epoch_lines(points), draw, paper))
    return found


@report_figure("20")
def figure_20(inputs: Inputs) -> list[FigureData | Skipped]:
    """Memorized rows and perplexity of models that were trained elsewhere, before any method, at each step that was measured.

    As in Table 3 each model counts once, and models that a line does not tell apart are averaged; protocols have lines of their own.
    """
    title, by_step = "Memorization over training", defaultdict[tuple[str, int | None], list[MeasuredRow]](list)
    known = [(series, row) for row in inputs.trained if (series := series_in(row))]
    several = len({row.protocol for _, row in known}) > 1
    for series, row in known:
        by_step[f"{series} ({row.protocol})" if several else series, row.step].append(row)
    if not is_over_steps(by_step):
        return [Skipped("figure-20", title, "needs a model that was trained elsewhere at two steps", "Figure 20")]
    lines = [_step_line(*key, rows) for key, rows in sorted(by_step.items(), key=lambda item: item[0][1] or 0)]
    caption = "Memorized rows and perplexity at each step of training that was measured, before any method; means where there are several."
    return [FigureData("figure-20", title, caption, lines, draw_series, "Figure 20")]


def _step_line(model: str, step: int | None, rows: Sequence[MeasuredRow]) -> Line:
    """Means over the models of a step of training."""
    models = Configuration("none", "", tuple(rows))
    memorized, performance = models.memorized("before"), models.performance("before")
    return {
        "model": model, "step": step, "memorized": memorized.mean if memorized else None,
        "performance": performance.mean if performance else None, "metric": models.metric, "sources": models.sources,
    }  # fmt: skip


def draw_series(lines: list[Line]) -> Figure:
    """A panel of memorized rows and one of perplexity, a line per model."""
    figure, [all_axes] = grid(1, 2, (7.0, 3.0))
    models = distinct(lines, "model")
    for axes, column in zip(all_axes, ("memorized", "performance"), strict=True):
        for k, model in enumerate(models):
            those = where(lines, model=model)
            axes.plot(numbers(those, "step"), numbers(those, column), **line_look(k))
        axes.set_xlabel("step of training")
    all_axes[0].set_ylabel("memorized rows (%)")
    all_axes[1].set_ylabel(performance_label(str(lines[0]["metric"])))
    legend_below(figure, [handle(model, **line_look(k)) for k, model in enumerate(models)], 7.0)
    return figure


def epoch_lines(points: Sequence[Point]) -> list[Line]:
    """Means over the models of each number of layers, epoch and method."""
    alike: dict[tuple[int | None, str, int | None, str], list[Point]] = defaultdict(list)
    for p in points:
        alike[p.n_layer, p.method, p.epoch, p.metric].append(p)
    lines: list[Line] = []
    ordered = sorted(alike.items(), key=lambda item: (item[0][0] or 0, item[0][1], item[0][2] or 0))
    for (layers, method, epoch, metric), same in ordered:
        memorized, performance = mean_of(p.memorized_change for p in same), mean_of(p.performance_change for p in same)
        assert memorized is not None and performance is not None  # called for points with both only
        lines.append({
            "n_layer": layers, "method": method, "epoch": epoch, "metric": metric, "memorized_change": memorized.mean,
            "performance_change": performance.mean, "models": len(same), "sources": tuple(s for p in same for s in p.sources),
        })  # fmt: skip
    return lines


def draw_over_training(lines: list[Line], names: list[str], time: str = "epoch") -> Figure:
    """Two rows of panels, a column per number of layers."""
    layers, shown = rising(line["n_layer"] for line in lines), set(distinct(lines, "method"))
    width = max(5.0, 2.7 * len(layers))
    figure, (top, bottom) = grid(2, len(layers), (width, 4.6), sharex=True, sharey="row")
    for j, layer in enumerate(layers):
        for axes, quantity in ((top[j], "memorized_change"), (bottom[j], "performance_change")):
            for k, name in enumerate(names):
                those = where(lines, n_layer=layer, method=name)
                axes.plot(numbers(those, "epoch"), numbers(those, quantity), **line_look(k))
            widen(axes, "y", numbers(lines, quantity))
        top[j].set_title("" if layer is None else counted(layer, "layer"), fontsize=10)
        bottom[j].axhline(0, color=INK, linewidth=0.7, alpha=0.5)
        bottom[j].set_xlabel(f"{time} of the edited model")
    top[0].set_ylabel(MEMORIZED_CHANGE)
    bottom[0].set_ylabel(performance_change_label(str(lines[0]["metric"])))
    legend_below(figure, [handle(n, **line_look(k)) for k, n in enumerate(names) if n in shown], width)
    return figure
