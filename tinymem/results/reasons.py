"""Why runs have no result: their messages in groups, those that differ in numbers alone together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tinymem.results.row import MeasuredRow
from tinymem.runtime.words import counted

NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


@dataclass
class Reason:
    """A reason that several runs share: status, the first message, the runs' ids and their methods."""

    status: str
    message: str
    runs: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{self.status}: {counted(len(self.runs), 'run')} of {', '.join(sorted(self.methods))}: {self.message}"


def grouped_reasons(rows: Iterable[MeasuredRow]) -> list[Reason]:
    """The reasons of the rows that are not ok, that of the most runs first."""
    found: dict[tuple[str, str], Reason] = {}
    for row in rows:
        if not row.is_ok:
            message = " ".join((row.message or "no message").split())
            reason = found.setdefault((row.status, NUMBER.sub("#", message)), Reason(row.status, message))
            reason.runs.add(row.id or row.source)
            reason.methods.add(row.method)
    return sorted(found.values(), key=lambda reason: (-len(reason.runs), reason.status, reason.message))
