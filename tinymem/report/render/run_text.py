"""Result rows as a terminal table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json

from tinymem.report.cells import (
    DASH,
    labels,
    metrics,
    number,
    percent,
    percent_of,
    performance,
)
from tinymem.report.render.before_after import change_with_counts, no_result, performance_change
from tinymem.results.columns import PROMPT_RATES, RATES
from tinymem.results.read import as_json, columns_in
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord
from tinymem.runtime.json import Json

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
    return json.dumps(as_json(record.rows), indent=2, ensure_ascii=False) + "\n"


def to_csv(record: RunRecord) -> str:
    """One line per row, every field a column; nested fields (config, versions) as JSON text, nulls empty."""
    fields = columns_in(record.rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    if fields:
        writer.writeheader()
    writer.writerows({field: _csv_cell(value) for field, value in row.as_dict().items()} for row in record.rows)
    return out.getvalue()


def _csv_cell(value: Json) -> str | float | None:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


def to_markdown(record: RunRecord) -> str:
    """A GitHub-flavored table with a count after every percentage, then a line per row that has no result."""
    columns = [column.format(metric=" / ".join(metrics(record.rows))) for column in MARKDOWN_COLUMNS]
    lines = [markdown_line(columns), markdown_line(["---", "---", *["---:"] * (len(columns) - 2)])]
    notes: list[str] = []
    for row, label in zip(record.rows, labels(record.rows), strict=True):
        lines.append(markdown_line([label, row.artifact, *_markdown_values(row)]))
        if not row.is_ok:
            notes.append("- " + escape_markdown(no_result(row, label)))
    return "\n".join(lines + (["", *notes] if notes else [])) + "\n"


def _markdown_values(row: MeasuredRow) -> list[str]:
    ceiling = performance(row, row.performance_ceiling) if row.is_share else DASH
    cost = [number(row.seconds), number(row.peak_mb, 0), number(row.edited_parameters, 0)]
    return [*(change_with_counts(row, rate) for rate in RATES), performance_change(row), ceiling, *cost]


def bases(record: RunRecord) -> list[str]:
    """Lines per artifact with the number of scored rows, and for noise the rate by whether the row's own prompt was noised."""
    found = {row.artifact: row for row in record.rows}
    return [
        f"{artifact}: {number(row.rows_scored, 0)} rows scored, {number(row.rows_forget, 0)} to forget, "
        f"{number(row.rows_holdout, 0)} in the holdout{_by_prompt(row)}"
        for artifact, row in found.items()
    ]


def _by_prompt(row: MeasuredRow) -> str:
    if row.rows_noised_prompt is None:
        return ""
    clean, noised = (percent_of(row.share(rate, "before")) for rate in PROMPT_RATES.values())
    return f"\n  before: {clean} of those trained with a clean prompt, {noised} with a noised one"


def ceilings(record: RunRecord) -> list[str]:
    """The accuracy ceilings among the rows; normally one."""
    found = {row.performance_ceiling for row in record.rows if row.is_share and row.performance_ceiling is not None}
    return [percent(ceiling) for ceiling in sorted(found)]


def markdown_line(cells: list[str]) -> str:
    """A line of a Markdown table; whatever is in the cells, they stay cells."""
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


def escape_markdown(value: str) -> str:
    """Text on one line that Markdown shows as it is."""
    text = " ".join(value.split())
    for old, new in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), (">", "&gt;"), ("*", "\\*"), ("_", "\\_"), ("`", "\\`")):
        text = text.replace(old, new)
    return text
