"""Result rows themselves: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from tinymem.results.read import as_json, columns_in, with_intervals
from tinymem.results.row import MeasuredRow
from tinymem.runtime.json import Json


def to_json(rows: Sequence[MeasuredRow]) -> str:
    """The rows as they are stored, each share with its interval, as one JSON list."""
    return json.dumps(list(map(with_intervals, as_json(rows))), indent=2, ensure_ascii=False) + "\n"


def to_csv(rows: Sequence[MeasuredRow]) -> str:
    """One line per row, every field a column, shares with their intervals; nested fields (config, versions) as JSON text, nulls empty."""
    lines = list(map(with_intervals, as_json(rows)))
    fields = columns_in(lines)
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    if fields:
        writer.writeheader()
    writer.writerows({field: _cell(value) for field, value in line.items()} for line in lines)
    return out.getvalue()


def _cell(value: Json) -> str | float | None:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value
