"""Tables of further metrics and of robustness, for the best run of each method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from tinymem.recipe.robustness import TESTS
from tinymem.report.cells import DASH, plain
from tinymem.report.configuration import Configuration
from tinymem.report.configurations import ModelGroup
from tinymem.report.means import mean_of
from tinymem.report.tables.memorization import LABELS, mean_cell, seeds_note
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table, anchor
from tinymem.results.columns import RATES
from tinymem.results.row import MeasuredRow, Moment
from tinymem.results.share import Share
from tinymem.runtime.files import canonical_json
from tinymem.runtime.json import Json, JsonObject

if TYPE_CHECKING:
    from tinymem.evaluation.metric import Metric

Line = tuple[str, str, Configuration, Moment]
"""Artifact, method, a run of it, and whether its numbers before or after the edit count."""
Choices = Callable[[str, str], Sequence[Configuration]]
"""The runs of a method on an artifact that a table shows."""
ORDER = ("clean-continuation", "extraction-strength", "discoverable", "edit-distance", "membership", "perplexity")
"""Metrics whose columns come first; those of the others follow by name."""
GROUPS_NOTE = "Of all scored rows; the rows behind each number also have those of the forget and the holdout rows."
RETURN_NOTES = (
    "% of the scored rows memorized after the edit (untouched) and then: some steps of training on half of the forgotten rows "
    "(relearn-forget) or on unrelated ones (relearn-retain), rounding to int8 and int4, prompts longer, shorter and perturbed. The trained "
    "model goes through the same.",
)


@report_table("metrics")
def tables_of_metrics(inputs: TableInputs) -> list[Table]:
    """Tables of further metrics, for each group of models."""
    return [table_of_metrics(group) for group in inputs.groups]


@report_table("returns")
def tables_of_returns(inputs: TableInputs) -> list[Table]:
    """Tables of the memorized rows that return after relearning, rounding or other prompts, for each group of models."""
    return [table_of_returns(group) for group in inputs.groups]


def table_of_metrics(group: ModelGroup) -> Table:
    """Other metrics after the edit, for the best run of each method: the columns that each metric declares where it registers."""
    stored = {name for _, _, setting, when in _lines(group) for row in setting.rows for name in _metrics(row, when) or ()}
    metrics = _registered() if stored else []
    columns = [(metric.name, column) for metric in metrics for column in metric.columns]
    heads = [(c.head, _metric((name, *c.path), c.scale), c.digits) for name, c in columns]
    notes = [" ".join([*(c.note for _, c in columns if c.note), GROUPS_NOTE])]
    if unknown := sorted(stored - {metric.name for metric in metrics}):
        notes.append(f"Not shown: {', '.join(unknown)}; give the file that registers such a metric as --plugin.")
    return _table(group, "metrics", "Other metrics", heads, tuple(notes), list(_lines(group)))


def _registered() -> list[Metric]:
    """All registered metrics in the order of their columns; loads them, and so torch."""
    from tinymem.evaluation.metric import METRICS

    return METRICS.in_order(ORDER)


def table_of_returns(group: ModelGroup, choices: Choices | None = None) -> Table:
    """Shares of memorized rows that return; needs rows made with `--robustness`.

    Args:
        group: the models.
        choices: the runs of a method on an artifact that are shown; default: the best one.
    """
    tested = [(test, _return(test), 1) for test in TESTS]
    heads = [("untouched", _untouched, 1), *tested]
    return _table(group, "returns", "Whether it comes back", heads, RETURN_NOTES, _by_settings(list(_lines(group, choices))))


class Measured(NamedTuple):
    """A number of a row, and the counts behind it where it is a share."""

    value: float
    share: Share | None = None


Read = Callable[[MeasuredRow, Moment], Measured | None]
Heads = list[tuple[str, Read, int]]
"""Titles of columns, their numbers, and how many digits are shown."""


def _table(group: ModelGroup, name: str, title: str, heads: Heads, notes: tuple[str, ...], lines: Sequence[Line]) -> Table:
    """A line per artifact and run, the trained model first, of the first run with its numbers; columns that no row has are left out."""
    known = [head for head in heads if any(head[1](row, when) is not None for _, _, setting, when in lines for row in setting.rows)]
    rows: dict[tuple[str, str, str], tuple[Cell, ...]] = {}
    for artifact, method, setting, when in lines:
        cells = [_cell([read(row, when) for row in setting.rows], digits, setting.sources) for _, read, digits in known]
        line = artifact, method, setting.options
        if line not in rows and any(cell.value is not None for cell in cells):
            rows[line] = (*map(Cell, line), *cells)
    columns = (*(Column(head, numeric=False) for head in ("artifact", "method", "options")), *(Column(head) for head, _, _ in known))
    title = f"{title}. {group.name[:1].upper()}{group.name[1:]}"
    return Table(name, anchor(f"{name}-{group.key}"), title, columns, tuple(rows.values()), (*notes, *seeds_note(group)))


def _cell(found: list[Measured | None], digits: int, sources: tuple[str, ...]) -> Cell:
    shares = [measured.share for measured in found if measured and measured.share]
    whole = Share(sum(share.count for share in shares), sum(share.rows for share in shares)) if len(shares) == len(found) else None
    return mean_cell(mean_of(measured.value if measured else None for measured in found), digits, sources, share=whole)


def _lines(group: ModelGroup, choices: Choices | None = None) -> Iterator[Line]:
    """Yield what lines are made of: artifact, method, a run of it, and whether its numbers before or after the edit count.

    Of the trained model each run has numbers: one after another, in the order of the methods.
    """
    chosen = choices or (lambda artifact, method: [best] if (best := group.best(artifact, method)) else [])
    for artifact in group.artifacts:
        found = [(method, setting) for method in group.methods() for setting in chosen(artifact, method)]
        yield from ((artifact, LABELS["none"], replace(setting, options=""), "before") for _, setting in found)
        yield from ((artifact, method, setting, "after") for method, setting in found)


def _by_settings(lines: Sequence[Line]) -> list[Line]:
    """The lines; where tests of robustness had different settings, one for each, with those that differ among its options."""
    ways = {_way(row): _tested(row) for _, _, setting, _ in lines for row in setting.rows if row.robustness}
    if len(ways) < 2:
        return list(lines)
    known = dict.fromkeys(key for tested in ways.values() for key in tested)
    keys = [key for key in known if len({str(tested.get(key)) for tested in ways.values()}) > 1]
    apart = []
    for artifact, method, setting, when in lines:
        for way, tested in ways.items():
            rows = tuple(row for row in setting.rows if row.robustness and _way(row) == way)
            differ = "tested with " + ", ".join(f"{key}={plain(tested[key]) if key in tested else DASH}" for key in keys)
            options = ", ".join(part for part in (setting.options, differ) if part)
            apart.append((artifact, method, replace(setting, options=options, rows=rows), when))
    return [line for line in apart if line[2].rows]


def _tested(row: MeasuredRow) -> JsonObject:
    """The settings of a row's tests of robustness, whichever of them were made."""
    settings = (row.request or {"robustness": None})["robustness"] or {}
    return {key: value for key, value in settings.items() if key != "tests"}


def _way(row: MeasuredRow) -> str:
    return canonical_json(_tested(row))


def _metric(path: tuple[str, ...], factor: float) -> Read:
    return lambda row, when: _at(_metrics(row, when), path, factor)


def _metrics(row: MeasuredRow, when: Moment) -> JsonObject | None:
    return row.metrics_before if when == "before" else row.metrics_after


def _untouched(row: MeasuredRow, when: Moment) -> Measured | None:
    share = row.memorized_before if when == "before" else row.memorized_after
    return Measured(100 * share, row.share(RATES["all"], when)) if row.robustness and share is not None else None


def _return(test: str) -> Read:
    return lambda row, when: _at(row["robustness"], (test, when, "all", "share"), 100)


def _at(value: Json, path: tuple[str, ...], factor: float) -> Measured | None:
    """The number at a path, times a factor; its counts stand next to a share."""
    parent: JsonObject = {}
    for key in path:
        parent = value if isinstance(value, dict) else {}
        value = parent.get(key)
    count, rows = parent.get("count"), parent.get("rows", parent.get("tokens"))
    share = Share(count, rows) if path[-1:] == ("share",) and isinstance(count, int) and isinstance(rows, int) else None
    return Measured(factor * value, share) if isinstance(value, int | float) else None
