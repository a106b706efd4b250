"""The parts of a page about many runs that a page about one run does not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from tinymem.report.cells import escape
from tinymem.report.page.rows import PageRows
from tinymem.report.render.run_html import notes_of, rows_table
from tinymem.results.collect import Results, model_of
from tinymem.results.row import MeasuredRow
from tinymem.runtime.json import Json

NAMED = 12  # folders or methods listed by name
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


def title(results: Results) -> str:
    """The page's title: the folders' names."""
    names = [folder.resolve().name for folder in results.folders]
    return "TinyMem report: " + (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "rows")


def summary(results: Results) -> str:
    """Header counts: rows by status; distinct models, seeds, methods, devices."""
    rows = results.rows
    status = Counter(row.status for row in rows)
    entries = {
        "Folders": _listed([folder.resolve().name for folder in results.folders]),
        "Rows": f"{len(rows):,} ({', '.join(f'{count:,} {name}' for name, count in status.most_common())})" if rows else "none",
        "Models": f"{len({(model_of(row), row.epoch, row.seed) for row in rows}):,}",
        "Data": _listed(_values(rows, "data")),
        "Layers": _listed(_values(rows, "n_layer")),
        "Epochs": _listed(_values(rows, "epoch")),
        "Seeds": _listed(_values(rows, "seed")),
        "Methods": _listed(_values(rows, "method")),
        "Protocol": _listed(_values(rows, "protocol")),
        "Device": _listed(_values(rows, "device")),
        "Training curves": f"{sum(bool(record.curve) for record in results.records)}" if results.records else "",
    }
    lines = "\n".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in entries.items() if value)
    return f'<dl class="facts">\n{lines}\n</dl>'


def failures(results: Results, links: Mapping[str, str]) -> str:
    """Rows without a result, by method and message, the most frequent first; empty where all have one."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in results.rows:
        if not row.is_ok:
            key = row.method, row.status, row.message or "no reason was recorded"
            found.setdefault(key, []).append(row.source)
    if not found:
        return ""
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    body = "\n".join(_failure(*key, sources, links) for key, sources in ordered[:MESSAGES])
    rest = f"<p>And {len(ordered) - MESSAGES:,} more messages.</p>" if len(ordered) > MESSAGES else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("method", "status", "rows", "message"))
    table = f'<table class="plain sortable"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>'
    return f'<div class="scroll" role="region" aria-label="Without a result" tabindex="0">\n{table}\n</div>{rest}'


def _failure(method: str, status: str, message: str, sources: list[str], links: Mapping[str, str]) -> str:
    count = f'<a href="{links[sources[0]]}">{len(sources):,}</a>' if sources[0] in links else f"{len(sources):,}"
    return (
        f'<tr><th scope="row">{escape(method)}</th><td>{escape(status)}</td><td>{count}</td><td class="message">{escape(message)}</td></tr>'
    )


def rows_table_of(rows: PageRows) -> str:
    """The table of the page's rows, those with a result, each with its model."""
    listed = [row for row in rows.embedded.values() if row.is_ok and row.method != "none"][:LISTED_ROWS]
    total = len(rows.embedded) + sum(map(len, rows.in_files.values()))
    note = f"<p>{len(listed):,} of {total:,} rows, first those behind the tables and figures. The others are under Sources.</p>"
    if not listed:
        return "<p>No row has a result.</p>"
    return (note if len(listed) < total else "") + rows_table(listed, notes_of(listed), [model_name(row) for row in listed])


def sources(rows: PageRows, block: Callable[[str, MeasuredRow], str]) -> str:
    """The JSON of the page's rows, and links to the files with the others."""
    files = "".join(f'<li><a href="{name}">{name}</a>: {len(kept):,} rows</li>' for name, kept in rows.in_files.items())
    listed = f"<p>Rows that are not on this page are in files beside it:</p>\n<ul>{files}</ul>" if files else ""
    blocks = "\n".join(block(source, row) for source, row in rows.embedded.items())
    return f"<p>Each number above is computed from these stored values; shares are in [0, 1].</p>\n{listed}\n{blocks}"


def model_name(row: MeasuredRow) -> str:
    """`additive, 3,000 rows a task, 4 layers, epoch 500, seed 0`."""
    return ", ".join(form.format(row[key]) for key, form in MODEL_FORMS if row[key] is not None) or row.run or "model"


def _values(rows: Iterable[MeasuredRow], column: str) -> list[Json]:
    """The values of a column, numbers in order before words."""
    found = {str(row[column]): row[column] for row in rows if row[column] is not None}.values()
    return sorted(found, key=lambda value: (isinstance(value, str), value if isinstance(value, int | float) else 0, str(value)))


def _listed(values: Sequence[Json]) -> str:
    shown = ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values[:NAMED])
    return shown + (f" and {len(values) - NAMED:,} more" if len(values) > NAMED else "")
