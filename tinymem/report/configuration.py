"""One configuration over its seeds: the means that tables show and that selection compares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tinymem.report.cells import count_of, is_share
from tinymem.report.means import Mean, mean_of
from tinymem.report.selection import Candidate
from tinymem.results.row import source_id
from tinymem.results.run_folder import Row


@dataclass(frozen=True)
class Configuration:
    """One configuration of a method (or one way of training) on one artifact; `rows` has one per seed, those with a result."""

    method: str
    options: str
    rows: tuple[Row, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the rows."""
        return tuple(source_id(row) for row in self.rows)

    @property
    def seeds(self) -> int:
        """Different seeds."""
        return len({row.get("seed") for row in self.rows})

    def memorized(self, when: str) -> Mean | None:
        """Percent of the scored rows, `before` or `after`."""
        return mean_of(_times_100(memorized(row, when)[0]) for row in self.rows)

    def counts(self, when: str) -> tuple[int, int] | None:
        """Memorized and scored rows, summed over the seeds."""
        found = [memorized(row, when)[1:] for row in self.rows]
        if not found or any(None in pair for pair in found):
            return None
        return sum(count or 0 for count, _ in found), sum(rows or 0 for _, rows in found)

    def performance(self, when: str) -> Mean | None:
        """Accuracy in percent, or perplexity."""
        factor = 100 if self.metric == "accuracy" else 1
        values = (row.get(f"performance_{when}") for row in self.rows)
        return mean_of(None if value is None else factor * value for value in values)

    @property
    def metric(self) -> str:
        """What the performance is."""
        return "accuracy" if not self.rows or is_share(self.rows[0]) else "perplexity"

    @property
    def seconds(self) -> Mean | None:
        """Of the method alone."""
        return mean_of(row.get("seconds") for row in self.rows)

    def candidate(self) -> Candidate | None:
        """What selection looks at; None without a result."""
        return self._candidate

    @cached_property
    def _candidate(self) -> Candidate | None:
        before, after = self.memorized("before"), self.memorized("after")
        first, last = self.performance("before"), self.performance("after")
        if before is None or after is None or first is None or last is None or last.n < len(self.rows):
            return None
        metric: Any = self.metric
        seconds = self.seconds.mean if self.seconds else None
        return Candidate(before.mean, after.mean, first.mean, last.mean, metric, seconds, self.seeds)


def memorized(row: Row, when: str) -> tuple[float | None, int | None, int | None]:
    """Share, count and rows of what is memorized; where rows were repeated in classes, of the most repeated ones, as in the paper."""
    classes = row.get(f"memorized_by_copies_{when}") or {}
    if row["artifact"] == "noise" and classes:
        most = classes[max(classes, key=int)]
        return most.get("share"), most.get("count"), most.get("rows")
    share, rows = row.get(f"memorized_{when}"), row.get("rows_scored")
    count = row.get(f"memorized_count_{when}")
    return share, count_of(share, rows) if count is None else count, rows


def _times_100(share: float | None) -> float | None:
    return None if share is None else 100 * share
