"""Beyond the memorized share: other metrics of the best run of each method, and whether what it removed comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tinymem.report.configuration import Configuration
from tinymem.report.configurations import ModelGroup
from tinymem.report.means import mean_of
from tinymem.report.tables.memorization import LABELS, mean_cell, seeds_note
from tinymem.report.tables.table import Cell, Column, Table, anchor
from tinymem.results.run_folder import Row

Path = tuple[str, ...]
# Head of a column, where its number is in a row's metrics, what it is multiplied with, and digits.
METRICS: tuple[tuple[str, Path, float, int], ...] = (
    ("clean %", ("clean-continuation", "all", "share"), 100, 1),
    ("extraction strength", ("extraction-strength", "all", "mean"), 1, 3),
    ("n=1, p=0.5 %", ("discoverable", "n=1, p=0.5", "all", "share"), 100, 1),
    ("n=100, p=0.5 %", ("discoverable", "n=100, p=0.5", "all", "share"), 100, 1),
    ("edit distance", ("edit-distance", "all", "mean"), 1, 3),
    ("membership AUC", ("membership", "min-k++", "all", "auc"), 1, 3),
    ("perplexity", ("perplexity", "all"), 1, 2),
)
TESTS = ("relearn-forget", "relearn-retain", "int8", "int4", "longer", "shorter", "perturbed")
METRIC_NOTES = (
    "Clean: rows that now continue as their clean counterpart does. Extraction strength: 1 less the smallest share of a row from "
    "which the rest follows. n, p: rows that n samples produce with probability p. Edit distance: 0 is the artifact word for word. "
    "Membership: Min-k%++, 0.5 is chance. Of all scored rows; the rows behind each number also have "
    "those of the forget and the holdout rows.",
)
RETURN_NOTES = (
    "% of all scored rows memorized after the edit (untouched) and then: some steps of training on half of the forgotten rows "
    "(relearn-forget) or on unrelated ones (relearn-retain), rounding to int8 and int4, prompts longer, shorter and perturbed. The trained "
    "model goes through the same.",
)


def table_of_metrics(group: ModelGroup) -> Table:
    """Other metrics after the edit, for the best run of each method."""
    heads = [(head, _metric(path, factor), digits) for head, path, factor, digits in METRICS]
    return _table(group, "metrics", "Other metrics", heads, METRIC_NOTES)


def table_of_returns(group: ModelGroup) -> Table:
    """Whether memorized rows come back, for the best run of each method; of rows made with `--robustness`."""
    tested = [(test, _return(test), 1) for test in TESTS]
    heads = [("untouched", _untouched, 1), *tested]
    return _table(group, "returns", "Whether it comes back", heads, RETURN_NOTES)


Read = Callable[[Row, str], float | None]


def _table(group: ModelGroup, name: str, title: str, heads: list[tuple[str, Read, int]], notes: tuple[str, ...]) -> Table:
    """A line per artifact and method, the trained model first; columns that no row has are left out."""
    lines = list(_lines(group))
    known = [head for head in heads if any(head[1](row, when) is not None for _, _, setting, when in lines for row in setting.rows)]
    rows = []
    for artifact, method, setting, when in lines:
        cells = [mean_cell(mean_of(read(row, when) for row in setting.rows), digits, setting.sources) for _, read, digits in known]
        if any(cell.value is not None for cell in cells):
            rows.append((Cell(artifact), Cell(method), Cell(setting.options if when == "after" else ""), *cells))
    columns = (*(Column(head, numeric=False) for head in ("artifact", "method", "options")), *(Column(head) for head, _, _ in known))
    title = f"{title}. {group.name[:1].upper()}{group.name[1:]}"
    return Table(name, anchor(f"{name}-{group.key}"), title, columns, tuple(rows), (*notes, *seeds_note(group)))


def _lines(group: ModelGroup) -> Iterator[tuple[str, str, Configuration, str]]:
    """Artifact, method, its best run, and which of a row's numbers count."""
    for artifact in group.artifacts:
        found = [(method, setting) for method in group.methods() if (setting := group.best(artifact, method))]
        if found:
            yield artifact, LABELS["none"], found[0][1], "before"
        for method, setting in found:
            yield artifact, method, setting, "after"


def _metric(path: Path, factor: float) -> Read:
    return lambda row, when: _times(_at(row.get(f"metrics_{when}"), path), factor)


def _untouched(row: Row, when: str) -> float | None:
    return _times(row.get(f"memorized_{when}"), 100) if row.get("robustness") else None


def _return(test: str) -> Read:
    return lambda row, when: _times(_at(row.get("robustness"), (test, when, "all", "share")), 100)


def _at(value: Any, path: Path) -> float | None:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
