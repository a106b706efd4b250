"""Location of the best runs' edits: ablated neurons and weights per layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tinymem.report.configurations import in_order
from tinymem.report.figures.axes import distinct, grid, where
from tinymem.report.figures.figure import FigureData, Line, Skipped, number, numbers
from tinymem.report.figures.points import Inputs, zeroed_of
from tinymem.report.figures.registry import report_figure
from tinymem.report.means import mean_of
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNITS = ("neuron", "weight")


@report_figure("layers")
def edited_by_layer(inputs: Inputs) -> list[FigureData | Skipped]:
    """Share of each block's feed-forward neurons or weights that the best run of each method zeroed; a figure per depth of model."""
    title = "Ablated neurons and weights by layer"
    lines = list(layer_lines(inputs))
    if not lines:
        return [Skipped("layers", title, "needs results of methods that zero neurons or weights, with the column edited_by_layer")]
    caption = (
        "Percent of a block's feed-forward neurons (neuron-level methods) or weights (weight-level) that the best run of a method zeroed, "
        "mean over models and artifacts; layer 1 is next to the embedding."
    )
    depths = sorted({_layers(line) for line in lines})
    return [
        FigureData(f"layers-{d:02d}", f"{title}, {counted(d, 'layer')}", caption, where(lines, layers=d), draw_by_layer) for d in depths
    ]


def layer_lines(inputs: Inputs) -> Iterable[Line]:
    """Mean percentage of every block, method and depth."""
    edited = {row.source: row.edited_by_layer for row in inputs.rows if row.is_ok and row.edited_by_layer}
    found: dict[tuple[int, str, str], list[tuple[str, list[float]]]] = defaultdict(list)
    for p in inputs.best:
        for source in p.sources:
            if p.unit in UNITS and source in edited:
                shares = [100 * n / of if of else 0.0 for n, of in zip(*zeroed_of(edited[source], p.unit), strict=True)]
                if any(shares):
                    found[len(shares), str(p.unit), p.method].append((source, shares))
    for layers, unit, method in sorted(found, key=lambda k: (k[0], k[1])):
        same = found[layers, unit, method]
        for i in range(layers):
            mean = mean_of(shares[i] for _, shares in same)
            assert mean is not None
            yield {
                "layers": layers,
                "unit": unit,
                "method": method,
                "layer": i + 1,
                "zeroed": mean.mean,
                "sources": tuple(s for s, _ in same),
            }


def _layers(line: Line) -> int:
    """Number of blocks of the line's model."""
    return int(number(line, "layers"))


def draw_by_layer(lines: list[Line]) -> Figure:
    """A table of colors for each unit: methods down, layers across, the percentage in each cell."""
    units = [unit for unit in UNITS if where(lines, unit=unit)]
    heights = [0.85 + 0.3 * len(distinct(where(lines, unit=unit), "method")) for unit in units]
    width = max(5.0, 2.0 + 0.62 * _layers(lines[0]))
    figure, all_axes = grid(len(units), 1, (width, sum(heights)), height_ratios=heights)
    for unit, [axes] in zip(units, all_axes, strict=True):
        _draw(axes, where(lines, unit=unit))
        axes.set_title(f"feed-forward {unit}s zeroed (%)", loc="left", fontsize=10)
    all_axes[-1][0].set_xlabel("layer (1 = bottom)")
    return figure


def _draw(axes: Axes, lines: list[Line]) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    names, layers = in_order(distinct(lines, "method")), _layers(lines[0])
    largest = max(numbers(lines, "zeroed"))
    for line in lines:
        zeroed = number(line, "zeroed")
        depth = (zeroed / largest) ** 0.5 if largest else 0.0  # the root keeps small shares apart from none
        x, y = number(line, "layer") - 0.5, names.index(str(line["method"])) - 0.5
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colormaps["cividis"](depth), edgecolor="#8A8A8A", linewidth=0.5))
        color = "#ffffff" if depth < 0.55 else "#000000"
        axes.text(x + 0.5, y + 0.5, f"{zeroed:.2g}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xlim(0.5, layers + 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(1, layers + 1))
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
