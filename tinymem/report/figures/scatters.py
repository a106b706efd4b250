"""Forgetting against harm, one point per method: Figures 5 and 12 to 15, and the Pareto fronts of all configurations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tinymem.report.figures.axes import (
    DASHES,
    MEMORIZED_CHANGE,
    distinct,
    grid,
    handle,
    ideal,
    legend_below,
    method_handles,
    method_look,
    panels,
    performance_change_label,
    performance_label,
    rising,
    say_noise,
    where,
    widen,
)
from tinymem.report.figures.figure import FigureData, Line, Skipped, numbers, paper_number
from tinymem.report.figures.points import PAPER_KINDS, Inputs, Model, Point, in_paper_order, is_over_steps
from tinymem.report.figures.registry import report_figure
from tinymem.report.figures.svg import INK, Style
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 1500  # points above which an SVG holds them as a picture
FRONTS = 6  # of one kind in a panel


@report_figure("5")
def figure_5(inputs: Inputs) -> list[FigureData | Skipped]:
    """Change in memorization against change in performance, a point per method and model, averaged over seeds.

    The paper adds the Pythia models; rows of other models have a separate panel here. Of one model all configurations are shown.
    """
    title = "Forgetting against harm"
    if not inputs.best:
        return [Skipped("figure-05", title, "needs a result with both memorization and performance", "Figure 5")]
    several = len({p.model for p in inputs.best}) > 1
    points = inputs.best if several else inputs.changed
    shown = "Best run of each method on each model" if several else "Every configuration of each method"
    caption = f"{shown}, averaged over seeds. The star marks the ideal: nothing memorized, nothing lost."
    return [FigureData("figure-05", title, caption, _lines(points), partial(draw_by_kind, names=inputs.methods), "Figure 5")]


@report_figure("12-15")
def figures_12_to_15(inputs: Inputs) -> list[FigureData | Skipped]:
    """Figure 5 for one kind of model each, in a panel for every number of layers (rows) and training time (columns).

    12: math + noise, 13: math + backdoor, 14: language + noise, 15: language + backdoor. Math: additive and multiplicative together.
    The axis of performance is logarithmic where changes reach far.
    """
    found: list[FigureData | Skipped] = []
    for kind in in_paper_order([*PAPER_KINDS, *(p.kind for p in inputs.best if not p.series)]):
        number = f"figure-{12 + PAPER_KINDS.index(kind)}" if kind in PAPER_KINDS else f"strata-{_key(kind)}"
        title, paper = f"Forgetting against harm by layers and training time: {kind}", paper_number(number)
        points = [p for p in inputs.best if p.kind == kind]
        if len({(p.n_layer, p.epoch) for p in points}) < 2:
            found.append(Skipped(number, title, f"needs results of {kind} at two training times or numbers of layers", paper))
            continue
        caption = (
            f"{kind.capitalize()}: best run of each method on each model, averaged over seeds. Lower and nearer to the line is better."
        )
        found.append(FigureData(number, title, caption, _lines(points), partial(draw_strata, names=inputs.methods), paper))
    return found


@report_figure("22")
def figure_22(inputs: Inputs) -> list[FigureData | Skipped]:
    """Figure 5 for models that were trained elsewhere, in a panel for every model (rows) and step of training (columns)."""
    title, points = "Forgetting against harm by model and step", [p for p in inputs.best if p.series]
    if not is_over_steps((p.series, p.epoch) for p in points):
        return [Skipped("figure-22", title, "needs results of a model that was trained elsewhere at two steps", "Figure 22")]
    caption = "Best run of each method on each model and step of training. Lower and nearer to the line is better."
    draw = partial(draw_strata, names=inputs.methods, by="kind", time="step")
    return [FigureData("figure-22", title, caption, _lines(points), draw, "Figure 22")]


@report_figure("pareto")
def pareto_fronts(inputs: Inputs) -> list[FigureData | Skipped]:
    """Configurations that no other one beats in both remaining memorization and performance, for each model at its last epoch."""
    title = "Pareto fronts"
    points = [p for p in inputs.points if p.front and p.memorized is not None and p.performance is not None]
    if not points:
        return [Skipped("pareto", title, "needs a result with both memorization and performance")]
    lines: list[Line] = []
    for kind in in_paper_order(p.kind for p in points):
        those = [p for p in points if p.kind == kind]
        models = rising_models(those)[:FRONTS]
        for model in models:
            front = sorted((p for p in those if p.model == model), key=lambda p: (p.memorized or 0.0, p.performance or 0.0))
            lines += [_front_line(p, model) for p in front]
    caption = (
        "Of all configurations of all methods those that no other one beats: none memorizes less at no more harm. "
        f"Of several training times the last; at most {FRONTS} models a kind."
    )
    return [FigureData("pareto", title, caption, lines, partial(draw_fronts, names=inputs.methods))]


def rising_models(points: Sequence[Point]) -> list[Model]:
    """Models at their last epoch, small ones first."""
    last: dict[tuple[str | None, int | None, int | None], int] = {}
    for p in points:
        last[p.model[:3]] = max(last.get(p.model[:3], 0), p.epoch or 0)
    models = {p.model for p in points if (p.epoch or 0) == last[p.model[:3]]}
    return sorted(models, key=lambda m: (str(m[0]), *(value or 0 for value in m[1:])))


def model_name(model: Model, time: str = "epoch") -> str:
    """`additive, 3,000 rows, 4 layers, epoch 500`; `time` is what the last number counts."""
    data, size, layers, epoch = model
    sizes = [counted(value, noun) for value, noun in ((size, "row"), (layers, "layer")) if value]
    parts = [data, *sizes, f"{time} {epoch}" if epoch else None]
    return ", ".join(part for part in parts if part) or "model"


def _front_line(p: Point, model: Model) -> Line:
    name = model_name(model, "step" if p.series else "epoch")
    return {
        "kind": p.kind, "model": name, "method": p.method, "options": p.options, "memorized": p.memorized,
        "memorized_interval": p.memorized_interval, "metric": p.metric, "performance": p.performance,
        "performance_interval": p.performance_interval, "seeds": p.seeds, "sources": p.sources,
    }  # fmt: skip


def _lines(points: Sequence[Point]) -> list[Line]:
    keys = (
        "kind", "data", "data_size", "n_layer", "epoch", "method", "options", "metric", "memorized_change", "memorized_change_interval",
        "performance_change", "performance_change_interval", "seeds",
    )  # fmt: skip
    return [{**{key: getattr(p, key) for key in keys}, "sources": p.sources} for p in points]


def _key(kind: str) -> str:
    return kind.replace(" + ", "-").replace(" ", "-")


def draw_by_kind(lines: list[Line], names: list[str]) -> Figure:
    """A panel per kind, two in a row: memorization across, performance up."""
    kinds = distinct(lines, "kind")
    figure, all_axes, width = panels(len(kinds), 2, (4.2, 3.2))
    for axes, kind in zip(all_axes, kinds, strict=True):
        those = where(lines, kind=kind)
        _points(axes, those, names, "memorized_change", "performance_change")
        ideal(axes, -100, 0)
        widen(axes, "y", numbers(those, "performance_change"))
        axes.set_title(kind, loc="left", fontsize=10)
        axes.set_xlabel(MEMORIZED_CHANGE)
        axes.set_ylabel(performance_change_label(str(those[0]["metric"])))
        say_noise(axes, "x", those, "memorized_change")
        say_noise(axes, "y", those, "performance_change")
        axes.margins(0.08, 0.12)
    legend_below(figure, method_handles(names, lines), width)
    return figure


def draw_strata(lines: list[Line], names: list[str], by: str = "n_layer", time: str = "epoch") -> Figure:
    """Layers, or what else `by` holds, from top to bottom, training times from left to right: performance across, memorization up."""
    layers, epochs = rising(line[by] for line in lines), rising(line["epoch"] for line in lines)
    width = max(5.0, 2.3 * len(epochs))
    figure, all_axes = grid(len(layers), len(epochs), (width, 1.9 * len(layers) + 0.3), sharex=True, sharey=True)
    for layer, row in zip(layers, all_axes, strict=True):
        for epoch, axes in zip(epochs, row, strict=True):
            _points(axes, where(lines, **{by: layer, "epoch": epoch}), names, "performance_change", "memorized_change")
            axes.axvline(0, color="#8A8A8A", linewidth=0.8)
            widen(axes, "x", numbers(lines, "performance_change"))
            if row is all_axes[0]:
                axes.set_title("" if epoch is None else f"{time} {epoch:,}", fontsize=10)
        row[0].set_ylabel("" if layer is None else counted(layer, "layer") if by == "n_layer" else layer, fontsize=10)
    for axes in all_axes[-1]:
        axes.set_xlabel(performance_change_label(str(lines[0]["metric"])))
        say_noise(axes, "x", lines, "performance_change")
    figure.supylabel(MEMORIZED_CHANGE.replace("\n", "; "), fontsize=10)
    legend_below(figure, method_handles(names, lines), width)
    return figure


def draw_fronts(lines: list[Line], names: list[str]) -> Figure:
    """Draw a panel per kind: remaining memorization across, performance up; a line per model."""
    kinds = distinct(lines, "kind")
    figure, all_axes, width = panels(len(kinds), 2, (4.4, 3.1))
    models = distinct(lines, "model")
    for axes, kind in zip(all_axes, kinds, strict=True):
        those = where(lines, kind=kind)
        for model in distinct(those, "model"):
            front = where(those, model=model)
            axes.plot(numbers(front, "memorized"), numbers(front, "performance"), **_dash(models.index(model)))
        _points(axes, those, names, "memorized", "performance")
        axes.set_title(kind, loc="left", fontsize=10)
        axes.set_xlabel("memorized rows afterwards (%)\nlower is better")
        axes.set_ylabel(performance_label(str(those[0]["metric"])))
        say_noise(axes, "x", those, "memorized")
        say_noise(axes, "y", those, "performance")
        axes.margins(0.08, 0.12)
    handles = [handle(m, **_dash(i)) for i, m in enumerate(models)] if len(models) > 1 else []
    legend_below(figure, handles + method_handles(names, lines), width)
    return figure


def _dash(index: int) -> Style:
    """Models by dash and shade; colors are the methods'."""
    return {"color": INK, "alpha": 0.75 - 0.2 * (index // len(DASHES) % 3), "linestyle": DASHES[index % len(DASHES)], "linewidth": 1.1}


def _points(axes: Axes, lines: list[Line], names: list[str], x: str, y: str) -> None:
    """A point per line; as a picture where there are so many that vectors would be megabytes."""
    for name in names:
        those = where(lines, method=name)
        if those:
            drawn = axes.plot(numbers(those, x), numbers(those, y), **method_look(names, name))
            drawn[0].set_rasterized(len(lines) > MANY)
