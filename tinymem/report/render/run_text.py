"""Result rows as a terminal table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from tinymem.report.cells import (
    DASH,
    RATES,
    is_share,
    labels,
    metrics,
    number,
    percent,
    percent_of,
    performance,
)
from tinymem.report.render.before_after import change_with_counts, no_result, performance_change
from tinymem.results.row import is_ok
from tinymem.results.run_folder import Row, RunRecord

MARKDOWN_COLUMNS = (
    "method",
    "artifact",
    "memorized (all)",
    "forget rows",
    "holdout rows",
    "{metric}",
    "ceiling",
    "seconds",
    "peak MB",
    "edited parameters",
)


def to_json(record: RunRecord) -> str:
    """The rows exactly as they are stored, as one JSON list."""
    return json.dumps(record.rows, indent=2, ensure_ascii=False) + "\n"


def to_csv(record: RunRecord) -> str:
    """One line per row, every field a column; nested fields (config, versions) as JSON text, nulls empty."""
    fields = list(dict.fromkeys(field for row in record.rows for field in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    if fields:
        writer.writeheader()
    writer.writerows({field: _csv_cell(value) for field, value in row.items()} for row in record.rows)
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


def to_markdown(record: RunRecord) -> str:
    """A GitHub-flavoured table with a count beside every percentage, then a line per row that has no result."""
    columns = [column.format(metric=" / ".join(metrics(record.rows))) for column in MARKDOWN_COLUMNS]
    lines = [markdown_line(columns), markdown_line(["---", "---", *["---:"] * (len(columns) - 2)])]
    notes: list[str] = []
    for row, label in zip(record.rows, labels(record.rows), strict=True):
        lines.append(markdown_line([label, row["artifact"], *_markdown_values(row)]))
        if not is_ok(row):
            notes.append("- " + escape_markdown(no_result(row, label)))
    return "\n".join(lines + (["", *notes] if notes else [])) + "\n"


def _markdown_values(row: Row) -> list[str]:
    ceiling = performance(row, row.get("performance_ceiling")) if is_share(row) else DASH
    cost = [number(row.get("seconds")), number(row.get("peak_mb"), 0), number(row.get("edited_parameters"), 0)]
    return [*(change_with_counts(row, rate) for rate in RATES), performance_change(row), ceiling, *cost]


def bases(record: RunRecord) -> list[str]:
    """Per artifact, how many rows stand behind the rates, and for noise the rate by whether the row's own prompt was noised."""
    found = {row["artifact"]: row for row in record.rows}
    return [
        f"{artifact}: {number(row.get('rows_scored'), 0)} rows scored, {number(row.get('rows_forget'), 0)} to forget, "
        f"{number(row.get('rows_holdout'), 0)} in the holdout{_by_prompt(row)}"
        for artifact, row in found.items()
    ]


def _by_prompt(row: Row) -> str:
    if row.get("rows_noised_prompt") is None:
        return ""
    clean, noised = (percent_of(row.get(f"memorized_{kind}_prompt_before"), row.get(f"rows_{kind}_prompt")) for kind in ("clean", "noised"))
    return f"\n  before: {clean} of those trained with a clean prompt, {noised} with a noised one"


def ceilings(record: RunRecord) -> list[str]:
    """The accuracy ceilings among the rows; normally one."""
    found: set[Any] = {row.get("performance_ceiling") for row in record.rows if is_share(row)} - {None}
    return [percent(ceiling) for ceiling in sorted(found)]


def markdown_line(cells: list[Any]) -> str:
    """A line of a Markdown table; whatever is in the cells, they stay cells."""
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


def escape_markdown(value: Any) -> str:
    """Text on one line that Markdown shows as it is."""
    text = " ".join(str(value).split())
    for old, new in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), (">", "&gt;"), ("*", "\\*"), ("_", "\\_"), ("`", "\\`")):
        text = text.replace(old, new)
    return text
