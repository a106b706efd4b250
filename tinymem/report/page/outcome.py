"""The first sentence of a page: which method did best, what it left, what it cost, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinymem.report.cells import interval, percent, performance, settings
from tinymem.report.tables.of_rows import candidate_score
from tinymem.results.columns import RATES
from tinymem.results.row import MeasuredRow
from tinymem.runtime.words import counted, duration


def outcome_of(rows: Sequence[MeasuredRow]) -> str:
    """The sentence about the rows of one model; empty where no method has a result on all artifacts."""
    tried = _tried(rows)
    artifacts = {row.artifact for row in rows}
    scored = {key: _score(found) for key, found in tried.items() if {row.artifact for row in found} == artifacts}
    key = min(scored, key=lambda k: scored[k], default=None)
    return "" if key is None or math.isinf(scored[key]) else _sentence(tried[key], len(tried), len({row.seed for row in rows}))


def best_first(rows: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """The rows of each artifact together, that with the lowest score first, those without a result last."""
    order = list(dict.fromkeys(row.artifact for row in rows))
    scores = {id(row): candidate_score(row) for row in rows}
    return sorted(rows, key=lambda row: (order.index(row.artifact), math.inf if (score := scores[id(row)]) is None else score))


def _tried(rows: Sequence[MeasuredRow]) -> dict[tuple[str, str], list[MeasuredRow]]:
    """The rows of each configuration of a method."""
    found: dict[tuple[str, str], list[MeasuredRow]] = {}
    for row in rows:
        found.setdefault((row.method, settings(row)), []).append(row)
    return found


def _score(rows: Sequence[MeasuredRow]) -> float:
    """Mean of the scores over the artifacts; infinite where one has no result."""
    scores = [candidate_score(row) for row in rows]
    return sum(math.inf if score is None else score for score in scores) / len(scores)


def _sentence(rows: Sequence[MeasuredRow], tried: int, seeds: int) -> str:
    first = rows[0]
    name = f"{first.method} ({settings(first)})" if first.options else first.method
    metric, before, after = first.performance_metric or "accuracy", first.performance_before, first.performance_after
    took = "" if first.seconds is None else f"took {duration(first.seconds)} and "
    cost = f"{took}moved {metric} from {performance(first, before)} to {performance(first, after)}"
    sure = "one seed" if seeds == 1 else counted(seeds, "seed")
    of = f" of {tried} configurations" if tried > 1 else ""
    return f"{name} did best{of} by the paper's score: it left {' and '.join(map(_left, rows))}, {cost} ({sure})."


def _left(row: MeasuredRow) -> str:
    share = row.share(RATES["all"], "after")
    if share is None or share.share is None:
        return f"{row.artifact} as it was"
    rows = counted(share.rows, f"{row.artifact} row")
    return f"{share.count} of {rows} memorized ({percent(share.share)}, 95 % interval {interval(share)} %)"
