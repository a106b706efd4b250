"""One configuration over its seeds: the means that tables show and that selection compares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from tinymem.report.means import Mean, mean_of
from tinymem.report.selection import Candidate, percent_change, score
from tinymem.results.columns import ACCURACY, RATES
from tinymem.results.nested import BeforeAfter
from tinymem.results.row import MeasuredRow, Moment
from tinymem.results.share import Share


@dataclass(frozen=True)
class Configuration:
    """One configuration of a method (or one way of training) on one artifact; `rows` has one per seed, those with a result."""

    method: str
    options: str
    rows: tuple[MeasuredRow, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of the rows, one per seed."""
        return tuple(row.source for row in self.rows)

    @property
    def seeds(self) -> int:
        """Number of different seeds among the rows."""
        return len({row.seed for row in self.rows})

    def memorized(self, when: Moment) -> Mean | None:
        """Memorized percent of the scored rows, `before` or `after` the edit."""
        return mean_of(_times_100(memorized(row, when)[0]) for row in self.rows)

    def counts(self, when: Moment) -> Share | None:
        """Memorized of scored rows, summed over the seeds; None where a row lacks the counts."""
        found = [share for row in self.rows if (share := memorized(row, when)[1])]
        if not found or len(found) < len(self.rows):
            return None
        return Share(sum(share.count for share in found), sum(share.rows for share in found))

    def performance(self, when: Moment) -> Mean | None:
        """Performance `before` or `after` the edit: accuracy in percent, or perplexity."""
        factor = 100 if self.metric == "accuracy" else 1
        values = (row.performance_before if when == "before" else row.performance_after for row in self.rows)
        return mean_of(None if value is None else factor * value for value in values)

    def width(self, quantity: Literal["memorized", "performance"]) -> float | None:
        """Width of the narrowest 95 % interval of the rows after the edit, in percent; None where a row lacks the counts."""
        shares = [memorized(row, "after")[1] if quantity == "memorized" else row.share(ACCURACY, "after") for row in self.rows]
        found = [width for share in shares if (width := width_of(share)) is not None]
        return min(found) if found and len(found) == len(self.rows) else None

    @property
    def metric(self) -> Literal["accuracy", "perplexity"]:
        """Name of the performance metric of the rows."""
        return "accuracy" if not self.rows or self.rows[0].is_share else "perplexity"

    @property
    def seconds(self) -> Mean | None:
        """Seconds of the method itself, without measurements."""
        return mean_of(row.seconds for row in self.rows)

    def candidate(self) -> Candidate | None:
        """The candidate for selection; None without a result."""
        return self._candidate

    @cached_property
    def _candidate(self) -> Candidate | None:
        before, after = self.memorized("before"), self.memorized("after")
        first, last = self.performance("before"), self.performance("after")
        if before is None or after is None or first is None or last is None or last.n < len(self.rows):
            return None
        seconds = self.seconds.mean if self.seconds else None
        return Candidate(before.mean, after.mean, first.mean, last.mean, self.metric, seconds, self.seeds)


def by_held_out(row: MeasuredRow) -> MeasuredRow:
    """A backdoor's row under protocol `paper` with what is memorized of the held-out rows, as published; any other as it is.

    The tests of robustness too count those rows then.
    """
    if row.artifact != "backdoor" or row.protocol == "reference" or not row.rows_holdout or not row.is_ok:
        return row
    held_out = RATES["holdout"]
    return replace(
        row,
        rows_scored=row.rows_holdout,
        robustness=row.robustness and {test: _held_out(found) for test, found in row.robustness.items()},
        **{f"memorized_{when}": getattr(row, f"{held_out.share}_{when}") for when in ("before", "after")},
        **{f"memorized_count_{when}": getattr(row, f"{held_out.count}_{when}") for when in ("before", "after")},
    )


def _held_out(found: BeforeAfter) -> BeforeAfter:
    before, after = ({**measured, "all": measured["holdout"]} for measured in (found["before"], found["after"]))
    return {"before": before, "after": after}


def row_scores(row: MeasuredRow) -> tuple[float, float]:
    """M - P of one row (A.3.5, see `selection.score`) and M, of a backdoor by its held-out rows; infinite without a result."""
    candidate = Configuration(row.method, "", (by_held_out(row),)).candidate() if row.is_ok else None
    if candidate is None:
        return math.inf, math.inf
    return score(candidate), percent_change(candidate.memorized_before, candidate.memorized_after)


def row_score(row: MeasuredRow) -> float:
    """The first of `row_scores`: lower is better."""
    return row_scores(row)[0]


def memorized(row: MeasuredRow, when: Moment) -> tuple[float | None, Share | None]:
    """Memorized share [0, 1] of a row, and its counts; of noise in duplication classes that of the most repeated one, as in the paper."""
    classes = row.memorized_by_copies_before if when == "before" else row.memorized_by_copies_after
    if row.artifact == "noise" and classes:
        most = classes[max(classes, key=int)]
        return most["share"], Share(most["count"], most["rows"])
    return row.memorized_before if when == "before" else row.memorized_after, row.share(RATES["all"], when)


def width_of(share: Share | None) -> float | None:
    """Width of the 95 % interval of a share, in percent; None without rows."""
    if share is None or share.interval is None:
        return None
    return 100 * (share.interval[1] - share.interval[0])


def _times_100(share: float | None) -> float | None:
    return None if share is None else 100 * share
