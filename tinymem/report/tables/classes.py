"""Tables of classifiers with flipped labels: where each task's labels are memorized, and whether that goes with how it generalizes.

Dankers and Titov 2024: section 5, tables 1 and 2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinymem.localization.agreement import over_scorers
from tinymem.recipe.classification import ClassificationRecipe
from tinymem.report.cells import DASH, number
from tinymem.report.means import mean_of, plus_minus
from tinymem.report.tables.layered import OfModel, models_of
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table, anchor
from tinymem.results.row import LocalizationRow
from tinymem.runtime.files import canonical_json, content_id
from tinymem.runtime.json import JsonObject

NAMES = ("classes", "classes-depth")
SHARES = ("memorized", "unseen_accuracy", "generalization")
CENTER, CROSSING, OVERTAKING = "relative_center", ("centroids", "crossing"), ("label-probes", "overtaking")
TASKS_NOTE = (
    "Memorized: % of the flipped labels that the model gives and its counterfactual does not. Unseen: % of rows that nothing trained on "
    "whose label is right. Generalizes: % of the training rows whose true label is more probable than by guessing to classifiers that "
    "were trained without the row. Then the center of each technique's weights, from 0 (all in the first layer) to 1 (all in the last), "
    "and the layers, from 1, where flipped rows cross to their label's centroid and where probes for it overtake those for the true one."
)
DEPTH_NOTE = (
    "Spearman's rank correlation over {tasks} tasks of the depth of memorization with how well the task generalizes: with its "
    "generalization score, and with the accuracy on unseen rows from 0 (guessing) to 1; below it the 95 % bootstrap interval over tasks. "
    "Published, 12 tasks and 4 models together: 0.75 and 0.70 for the crossing, 0.63 and 0.61 for probes, 0.56 and 0.54 for the center."
)


class Trained(NamedTuple):
    """What tells one task's classifiers from others."""

    model: str | None
    artifact: str
    seed: int | None
    corpus_sha256: str | None


@dataclass(frozen=True)
class OfTask:
    """All rows of one task, of one model and seed: its summary, and what the techniques found."""

    name: str
    summary: tuple[LocalizationRow, ...]
    layers: OfModel | None

    def number(self, score: str) -> float | None:
        """A number of the summary."""
        return next((row.score for row in self.summary if row.score_name == score), None)

    def depth(self, method: str, score: str) -> float | None:
        """A number of a technique."""
        row = self.layers.one(method, score) if self.layers else None
        return row.score if row else None


@report_table(*NAMES)
def tables_of_classes(inputs: TableInputs) -> list[Table]:
    """Tables of classifiers with flipped labels, two for each model."""
    return classes_tables(inputs.results.localization)


def classes_tables(rows: Iterable[LocalizationRow]) -> list[Table]:
    """All tables that the rows allow."""
    found = []
    for tasks in tasks_of_models(rows):
        found.append(_tasks(tasks))
        depth = _depth(tasks)
        found += [depth] if depth.rows else []
    return found


def tasks_of_models(rows: Iterable[LocalizationRow]) -> list[list[OfTask]]:
    """The tasks of each model and choice of options, those of several seeds apart; a source whose rows changed is as many tasks."""
    known = list(rows)
    groups: dict[tuple[str | None, str], dict[Trained, list[LocalizationRow]]] = {}
    for row in known:
        if row.benchmark == "classes":
            key = row.model_id, canonical_json(_options(row))
            groups.setdefault(key, {}).setdefault(_trained(row), []).append(row)
    return [[task for found in of_model.values() for task in _of_task(found, [*of_model], known)] for of_model in groups.values()]


def _of_task(summary: list[LocalizationRow], all_trained: Sequence[Trained], rows: Iterable[LocalizationRow]) -> list[OfTask]:
    """A task with what the techniques found, or as many tasks as there are choices of their options, each named by what differs."""
    first = summary[0]
    contents = sum((other.artifact, other.seed) == (first.artifact, first.seed) for other in all_trained)
    name = f"{first.artifact}, rows {(first.corpus_sha256 or '')[:6]}" if contents > 1 else first.artifact
    models = models_of(row for row in rows if _trained(row) == _trained(first))
    if len(models) < 2:
        return [OfTask(name, tuple(summary), models[0] if models else None)]
    words = [model.apart for model in models]
    told = words if len(set(words)) == len(words) else [model.settings for model in models]
    return [OfTask(", ".join(filter(None, (name, said))), tuple(summary), model) for said, model in zip(told, models, strict=True)]


def _trained(row: LocalizationRow) -> Trained:
    return Trained(row.model_id, row.artifact, row.seed, row.corpus_sha256)


def _options(row: LocalizationRow) -> JsonObject:
    """The options of a summary that are not the defaults, without the seed."""
    usual = ClassificationRecipe().model_dump(mode="json")
    return {name: value for name, value in (row.config or {}).items() if name != "seed" and value != usual.get(name)}


def techniques_of(tasks: Sequence[OfTask]) -> list[str]:
    """The techniques that weigh layers, in order of appearance."""
    return list(dict.fromkeys(method for task in tasks if task.layers for method in task.layers.techniques))


def _tasks(tasks: Sequence[OfTask]) -> Table:
    first, depths = tasks[0].summary[0], _depths(tasks)
    by_name: dict[str, list[OfTask]] = {}
    for task in tasks:
        by_name.setdefault(task.name, []).append(task)
    lines = sorted((_line(name, found, depths) for name, found in by_name.items()), key=_generalizing)
    heads = [
        Column("task", numeric=False), Column("classes"), Column("memorized %"), Column("unseen %"), Column("generalizes %"),
        *(Column(name, "center" if score == CENTER else "layer") for name, (_, score) in depths.items()),
    ]  # fmt: skip
    refused = [f"{t.name}: {row.message}." for t in tasks for row in t.summary if row.status == "refused"]
    options = ", ".join(f"{name} {canonical_json(value)}" for name, value in _options(first).items())
    notes = (TASKS_NOTE, *([f"Options: {options}."] if options else []), *refused)
    return Table("classes", key_of(first, "classes"), f"Flipped labels by task: {_name(first)}", tuple(heads), tuple(lines), notes)


def key_of(summary: LocalizationRow, name: str) -> str:
    """Anchor of a table or figure of one model and choice of options."""
    return anchor(f"{name}-{summary.model_id}-{content_id(_options(summary))}")


def _line(name: str, tasks: Sequence[OfTask], depths: dict[str, tuple[str, str]]) -> tuple[Cell, ...]:
    """A task, mean over seeds."""
    sources = tuple(row.source for task in tasks for row in task.summary[:1])
    shares = [_mean([task.number(score) for task in tasks], 100, 1, sources) for score in SHARES]
    found = [_mean([task.depth(*what) for task in tasks], 1, 2 if what[1] == CENTER else 1, sources) for what in depths.values()]
    classes = tasks[0].number("classes")
    return (Cell(name, value=name, sources=sources), Cell(number(classes, 0), value=classes), *shares, *found)


def _generalizing(line: tuple[Cell, ...]) -> float:
    """What sorts tasks: those that generalize best first."""
    score = line[4].value
    return -float(score) if isinstance(score, int | float) else 1.0


def _depth(every: Sequence[OfTask]) -> Table:
    """Correlations over tasks; one that was asked with several choices of options has no single depth, and the notes say so."""
    asked = Counter(task.summary[0].source for task in every)
    tasks = [task for task in every if asked[task.summary[0].source] == 1]
    left = [f"Left out, since asked with several choices of options: {', '.join(t.name for t in every if t not in tasks)}."]
    lines = []
    for name, what in _depths(tasks).items():
        cells = [_correlated(tasks, what, score) for score in ("generalization", "validation")]
        label = f"{name}, center" if what[1] == CENTER else name
        if any(cell.value is not None for cell in cells):
            lines.append((Cell(label, value=label), *cells))
    first = every[0].summary[0]
    heads = (Column("depth of memorization", numeric=False), Column("generalization score"), Column("unseen rows"))
    note = DEPTH_NOTE.format(tasks=len({task.name for task in tasks}))
    key = key_of(first, "classes-depth")
    return Table(
        "classes-depth",
        key,
        f"Depth of memorization and generalization: {_name(first)}",
        heads,
        tuple(lines),
        (note, *(left if len(tasks) < len(every) else ())),
    )


def _correlated(tasks: Sequence[OfTask], what: tuple[str, str], score: str) -> Cell:
    pairs = [(depth, known) for task in tasks if (depth := task.depth(*what)) is not None and (known := task.number(score)) is not None]
    if len(pairs) < 2:
        return Cell(DASH)
    found = over_scorers(*np.array(pairs, dtype=np.float64).reshape(-1, 2).T)
    if math.isnan(found.rho):
        return Cell(DASH)
    ends = "" if math.isnan(found.low) else f"{found.low:.2f} to {found.high:.2f}"
    return Cell(number(found.rho, 2), small=ends, value=found.rho, n=len(pairs))


def _depths(tasks: Sequence[OfTask]) -> dict[str, tuple[str, str]]:
    """Heads of the measures of depth that there are, each with its technique and number."""
    known = {method: (method, CENTER) for method in techniques_of(tasks)}
    events = {"crossing": CROSSING, "probes": OVERTAKING}
    return known | {name: what for name, what in events.items() if any(task.depth(*what) is not None for task in tasks)}


def _mean(values: Sequence[float | None], factor: float, digits: int, sources: tuple[str, ...]) -> Cell:
    mean = mean_of(None if value is None else factor * value for value in values)
    return Cell(DASH) if mean is None else Cell(plus_minus(mean, digits), value=mean.mean, spread=mean.spread, n=mean.n, sources=sources)


def _name(row: LocalizationRow) -> str:
    return f"{row.model_name or row.run} ({row.run})"
