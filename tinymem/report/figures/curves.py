"""Training curves of many runs, averaged over seeds: Figures 6 and 7."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tinymem.report.figures.axes import distinct, grid, handle, legend_below, line_look, performance_label, rising, say_noise, where
from tinymem.report.figures.curve_inputs import Curve, memorized_of, performance_interval, performance_of
from tinymem.report.figures.figure import FigureData, Line, Skipped, Value, number, paper_number
from tinymem.report.figures.points import PAPER_KINDS, Inputs, in_paper_order, kind_of
from tinymem.report.figures.registry import report_figure
from tinymem.report.figures.svg import INK
from tinymem.report.means import mean_of
from tinymem.results.curve import CurvePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEYS = ("data", "data_size", "n_layer", "regularizer")
LETTERS = "abcd"


@report_figure("6")
def figure_6(inputs: Inputs) -> list[FigureData | Skipped]:
    """Figure 6: memorization and performance during training, a line per number of layers.

    (a) math + noise and (b) math + backdoor: a column per data size, additive and multiplicative below each other. (c) language + noise and
    (d) language + backdoor: a column per duplication class (how often a row was repeated), where there are several.
    """
    plain = [c for c in inputs.curves if not c.regularizer] or inputs.curves
    return list(_figures(plain, "figure-06", "training", "n_layer", "a trained model"))


@report_figure("7")
def figure_7(inputs: Inputs) -> list[FigureData | Skipped]:
    """Figure 7: memorization and performance during training with each regularizer and without one, a line each.

    (a) math + noise, (b) math + backdoor, (c) language + noise, (d) language + backdoor; a column per model size and data size.
    """
    sizes = {_size(c) for c in inputs.curves if c.regularizer}
    compared = [c for c in inputs.curves if _size(c) in sizes]
    return list(_figures(compared, "figure-07", "training with regularizers", "regularizer", "a model trained with a regularizer"))


def _size(curve: Curve) -> tuple[str | None, int | None, int | None]:
    return curve.data, curve.data_size, curve.n_layer


def _figures(curves: Sequence[Curve], key: str, what: str, by: str, need: str) -> Iterable[FigureData | Skipped]:
    lines = list(curve_lines(curves))
    for kind in in_paper_order([*PAPER_KINDS, *distinct(lines, "kind")]):
        letter = LETTERS[PAPER_KINDS.index(kind)] if kind in PAPER_KINDS else "-" + kind.replace(" + ", "-")
        title, paper = f"Memorization and performance during {what}: {kind}", paper_number(key + letter)
        those = where(lines, kind=kind)
        if not those:
            yield Skipped(key + letter, title, f"needs training curves of {need} of {kind}", paper)
            continue
        caption = (
            f"{kind.capitalize()}: share of the artifact's scored rows memorized (lower is better), and performance on clean rows, "
            "by epoch, averaged over seeds (of a model trained twice, one). Dashed: the ceiling of accuracy."
        )
        yield FigureData(key + letter, title, caption, those, partial(draw_curves, by=by), paper)


def curve_lines(curves: Iterable[Curve]) -> Iterable[Line]:
    """A line per epoch, artifact and duplication class of models that differ in seed only; only epochs that all seeds measured."""
    alike: dict[tuple[str, str | None, int | None, int | None, str | None], list[Curve]] = defaultdict(list)
    for curve in curves:
        for artifact in dict.fromkeys(artifact for point in curve.points for artifact in point.memorized):
            alike[artifact, curve.data, curve.data_size, curve.n_layer, curve.regularizer].append(curve)
    for (artifact, *columns), same in alike.items():
        measured = [{point.at: point for point in curve.points} for curve in same]
        for epoch in sorted(set.intersection(*(set(m) for m in measured))):
            points = [m[epoch] for m in measured]
            metric = performance_of(points[0])[0]
            performance = mean_of(performance_of(point)[1] for point in points)
            known = dict(zip(KEYS, columns, strict=True))
            shares = [memorized_of(point, artifact) for point in points]
            for copies in dict.fromkeys(c for share in shares for c in share):
                memorized = mean_of(share.get(copies) for share in shares)
                yield {
                    "kind": kind_of(same[0].data, artifact), **known, "copies": copies, "epoch": epoch, "seeds": len(same),
                    "memorized": memorized.mean if memorized else None, "metric": metric,
                    "performance": performance.mean if performance else None, "performance_interval": _narrowest(same, points),
                    **_further(points),
                    "runs": tuple(curve.name for curve in same),
                }  # fmt: skip


def _narrowest(curves: Sequence[Curve], points: Sequence[CurvePoint]) -> float | None:
    """The narrowest interval of the performance of one seed."""
    widths = [performance_interval(point, curve.tokens) for curve, point in zip(curves, points, strict=True)]
    return min((width for width in widths if width is not None), default=None)


def _further(points: Sequence[CurvePoint]) -> dict[str, Value]:
    """Means that are not drawn as lines of their own: the ceiling of accuracy, perplexity and the loss of the epoch."""
    found = {
        "ceiling": mean_of(None if p.accuracy_ceiling is None else 100 * p.accuracy_ceiling for p in points),
        "perplexity": mean_of(p.perplexity for p in points),
        "train_loss": mean_of(p.train_loss for p in points),
    }
    return {name: mean.mean if mean else None for name, mean in found.items()}


def draw_curves(lines: list[Line], by: str) -> Figure:
    """Draw two rows of panels for each data family, memorized and performance; a column per data size, depth or duplication class."""
    kept = [key for key in ("data_size", "n_layer", "copies") if key != by and len({line[key] for line in lines}) > 1]
    columns = rising(tuple(line[key] for key in kept) for line in lines) if kept else [()]
    families, names = distinct(lines, "data"), rising(line[by] for line in lines)
    width = max(5.0, 2.8 * len(columns))
    figure, all_axes = grid(2 * len(families), len(columns), (width, 4.4 * len(families)), sharex=True, sharey="row")
    for i, family in enumerate(families):
        for j, column in enumerate(columns):
            those = where(lines, data=family, **dict(zip(kept, column, strict=True)))
            pair = (all_axes[2 * i][j], all_axes[2 * i + 1][j])
            _draw(pair, those, by, names)
            words = [str(family)] if len(families) > 1 else []
            words += [_words(key, value) for key, value in zip(kept, column, strict=True)]
            pair[0].set_title("\n".join(words), fontsize=10)
        metric = str(where(lines, data=family)[0]["metric"])
        all_axes[2 * i][0].set_ylabel("memorized (%)\nlower is better")
        all_axes[2 * i + 1][0].set_ylabel(performance_label(metric))
        say_noise(all_axes[2 * i + 1][0], "y", where(lines, data=family), "performance")
    for axes in all_axes[-1]:
        axes.set_xlabel("epoch")
    handles = [handle(_words(by, name), **line_look(k)) for k, name in enumerate(names)]
    legend_below(figure, handles, width)
    return figure


def _draw(pair: tuple[Axes, Axes], lines: list[Line], by: str, names: list[Value]) -> None:
    for k, name in enumerate(names):
        for rest in _rest(lines, by, name):
            for axes, quantity in zip(pair, ("memorized", "performance"), strict=True):
                known = [(number(line, "epoch"), number(line, quantity)) for line in rest if line[quantity] is not None]
                axes.plot([e for e, _ in known], [v for _, v in known], **line_look(k))
    pair[0].set_ylim(-4, 104)
    ceilings = {number(line, "ceiling") for line in lines if line["ceiling"] is not None}
    if len(ceilings) == 1 and lines[0]["metric"] == "accuracy":
        pair[1].axhline(ceilings.pop(), color=INK, linestyle="--", linewidth=1.0)


def _rest(lines: list[Line], by: str, name: Value) -> list[list[Line]]:
    """The lines of one name, separated by every value that is neither a panel nor the name."""
    found: dict[tuple[Value, ...], list[Line]] = defaultdict(list)
    for line in where(lines, **{by: name}):
        found[tuple(line[key] for key in (*KEYS, "copies"))].append(line)
    return list(found.values())


def _words(key: str, value: Value) -> str:
    if key == "regularizer":
        return str(value or "no regularizer")
    if value is None:
        return f"no {key.replace('_', ' ')}"
    return {"n_layer": f"{value} layers", "data_size": f"{value:,} rows a task" if isinstance(value, int) else str(value)}.get(
        key, "all rows" if value == "all" else f"{value} copies"
    )
