"""Metrics as sums and counts, divided once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from tinymem.runtime.json import JsonObject


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

    def as_json(self) -> JsonObject:
        """The share as a plain JSON object, for columns of arbitrary JSON."""
        return {"share": self.share, "count": self.count, "rows": self.rows}

    def as_dict(self) -> ShareColumn:
        """The share as a typed column, with its count and rows."""
        return {"share": self.share, "count": self.count, "rows": self.rows}
