"""Tables that only a page has: rows without a result, and the rows with one."""

from __future__ import annotations

from tinymem.report.page.rows import PageRows
from tinymem.report.tables.of_rows import table_of_rows
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.collect import Results
from tinymem.results.row import MeasuredRow
from tinymem.runtime.words import counted

MESSAGES = 50  # different failures listed
LISTED_ROWS = 250  # lines of the table of rows
MODEL_FORMS = (
    ("data", "{}"),
    ("data_size", "{:,} rows a task"),
    ("n_layer", "{} layers"),
    ("epoch", "epoch {}"),
    ("regularizer", "{}"),
    ("seed", "seed {}"),
)


def table_of_failures(results: Results) -> Table:
    """Rows without a result, by method and message, the most frequent first."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in results.rows:
        if not row.is_ok:
            found.setdefault((row.method, row.status, row.message or "no reason was recorded"), []).append(row.source)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    rows = tuple(
        (Cell(method), Cell(status), Cell(f"{len(sources):,}", value=len(sources), sources=tuple(sources)), Cell(message))
        for (method, status, message), sources in ordered[:MESSAGES]
    )
    columns = tuple(Column(head, numeric=head == "rows") for head in ("method", "status", "rows", "message"))
    rest = (f"And {len(ordered) - MESSAGES:,} more messages.",) if len(ordered) > MESSAGES else ()
    return Table("failures", "without-a-result", "Without a result", columns, rows, rest)


def table_of_page_rows(rows: PageRows) -> Table:
    """The page's rows with a result, each with its model."""
    found = [row for row in rows.embedded.values() if row.is_ok and row.method != "none"]
    total = len(found) + sum(row.is_ok for kept in rows.in_files.values() for row in kept.values())
    listed = found[:LISTED_ROWS]
    title = f"{len(listed):,} of {counted(total, 'row')} with a result" if len(listed) < total else "Rows with a result"
    return table_of_rows(listed, title, [model_name(row) for row in listed])


def model_name(row: MeasuredRow) -> str:
    """`additive, 3,000 rows a task, 4 layers, epoch 500, seed 0`."""
    return ", ".join(form.format(row[key]) for key, form in MODEL_FORMS if row[key] is not None) or row.run or "model"
