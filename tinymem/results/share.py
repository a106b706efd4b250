"""Metrics as sums and counts, divided once, with the interval that their number of rows leaves open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

from tinymem.runtime.json import JsonObject

Z = 1.959964  # standard deviations to either side of the mean that hold 95 % of a normal distribution


class ShareColumn(TypedDict):
    """A share inside a nested column, with its count and number of rows."""

    share: float | None
    count: int
    rows: int


@dataclass(frozen=True)
class Share:
    """`count` of `rows`; a share of nothing is None."""

    count: int
    rows: int

    @property
    def share(self) -> float | None:
        """The quotient, in [0, 1]; None for no rows."""
        return self.count / self.rows if self.rows else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the share in [0, 1], by Wilson's score (1927), which holds for few rows too; None for no rows.

        >>> [round(end, 3) for end in Share(0, 10).interval]
        [0.0, 0.278]
        """
        if not 0 <= self.count <= self.rows or not self.rows:
            return None
        p, n, z2 = self.count / self.rows, self.rows, Z * Z
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        low, high = middle - half, middle + half
        return 0.0 if not self.count else max(low, 0.0), 1.0 if self.count == n else min(high, 1.0)

    def as_json(self) -> JsonObject:
        """The share as a plain JSON object, for columns of arbitrary JSON."""
        return {"share": self.share, "count": self.count, "rows": self.rows}

    def of_tokens(self) -> JsonObject:
        """The same where the rows are tokens."""
        return {"share": self.share, "count": self.count, "tokens": self.rows}

    def as_dict(self) -> ShareColumn:
        """The share as a typed column, with its count and rows."""
        return {"share": self.share, "count": self.count, "rows": self.rows}


@dataclass(frozen=True)
class RateColumns:
    """The columns of a rate: `<share>_before` and `_after`, `<count>_before` and `_after`, and the rows or tokens behind them."""

    share: str
    count: str
    rows: str
