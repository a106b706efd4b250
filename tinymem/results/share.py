"""Metrics as sums and counts, divided once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from tinymem.runtime.json import JsonObject


class ShareColumn(TypedDict):
    """A share inside a nested column, with what it is computed from."""

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
        """In [0, 1]."""
        return self.count / self.rows if self.rows else None

    def as_json(self) -> JsonObject:
        """For a column whose shape is not known."""
        return {"share": self.share, "count": self.count, "rows": self.rows}

    def as_dict(self) -> ShareColumn:
        """For JSON."""
        return {"share": self.share, "count": self.count, "rows": self.rows}
