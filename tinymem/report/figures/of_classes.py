"""Picture of classifiers with flipped labels: how deep each task's labels are memorized, over how well the task generalizes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tinymem.report.figures.axes import distinct, grid, handle, legend_below, method_look, where
from tinymem.report.figures.figure import FigureData, Line, Skipped, number, numbers
from tinymem.report.figures.points import Inputs
from tinymem.report.figures.registry import report_figure
from tinymem.report.tables.classes import CENTER, OfTask, key_of, tasks_of_models, techniques_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@report_figure("classes")
def depth_over_generalization(inputs: Inputs) -> list[FigureData | Skipped]:
    """Center of each technique's weights over the generalization score, a point a task; a figure a model."""
    caption = (
        "Center of the weights of layers that memorize flipped labels (0: the first layer, 1: the last) over the share of rows that "
        "classifiers trained without them predict better than by guessing; a point a task, a color a technique. Published: the better a "
        "task generalizes, the deeper its labels are memorized."
    )
    found: list[FigureData | Skipped] = []
    for tasks in tasks_of_models(inputs.localization):
        if lines := list(task_lines(tasks)):
            first = tasks[0].summary[0]
            title = f"Depth of flipped labels: {first.model_name or first.run}"
            found.append(FigureData(key_of(first, "classes"), title, caption, lines, draw_tasks))
    return found


def task_lines(tasks: list[OfTask]) -> Iterable[Line]:
    """A line for each task and technique."""
    for method in techniques_of(tasks):
        for task in tasks:
            center, score = task.depth(method, CENTER), task.number("generalization")
            if center is not None and score is not None:
                sources = tuple(row.source for row in task.summary[:1])
                yield {"technique": method, "task": task.name, "generalization": 100 * score, "center": center, "sources": sources}


def draw_tasks(lines: list[Line]) -> Figure:
    """Points of all techniques, with the tasks' names above the highest of each."""
    names = distinct(lines, "technique")
    figure, [[axes]] = grid(1, 1, (6.0, 3.6))
    for name in names:
        those = where(lines, technique=name)
        axes.plot(numbers(those, "generalization"), numbers(those, "center"), **method_look(names, name))
    for task in distinct(lines, "task"):
        top = max(where(lines, task=task), key=lambda line: number(line, "center"))
        place = number(top, "generalization"), number(top, "center")
        axes.annotate(task, place, xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xlabel("rows predicted better than by guessing without them (%)\nfarther right: the task generalizes better")
    axes.set_ylabel("center of weights\nhigher: memorized in deeper layers")
    axes.set_ylim(-0.05, 1.1)
    legend_below(figure, [handle(name, **method_look(names, name)) for name in names], 6.0)
    return figure
