"""A result row: what one run of a method did to one artifact of one model."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def is_ok(row: Row) -> bool:
    """Whether the method ran to its end."""
    return str(row["status"]) == "ok"


def source_id(row: dict[str, Any]) -> str:
    """A result row's name in a report: the run's id with the artifact, as one run gives a row for each artifact.

    >>> source_id({"id": "5d41402a", "artifact": "noise"})
    '5d41402a-noise'
    """
    return f"{row.get('id') or row.get('run') or row.get('method')}-{row['artifact']}"
