"""The result table of the page, and the anchors that tie its rows to their JSON."""

from __future__ import annotations

from tinymem.report.cells import (
    APART,
    ARROW,
    DASH,
    RATES,
    anchors,
    counts,
    escape,
    fraction,
    is_share,
    labels,
    metrics,
    number,
    percent,
    settings,
)
from tinymem.report.render.before_after import join_change, performance_change
from tinymem.results.row import is_ok
from tinymem.results.run_folder import Row, RunRecord

MODEL = ("model", "that was edited")
COLUMNS = (
    ("method", "and its settings"),
    ("artifact", ""),
    ("memorized", "all scored rows"),
    ("forget", "given to the method"),
    ("holdout", "kept from the method"),
    ("{metric}", "and its ceiling"),
    ("seconds", ""),
    ("peak MB", ""),
    ("edited", "parameters"),
)


def result_table(record: RunRecord) -> str:
    """A line per method and artifact; grayed, with the reason, where a method has no result."""
    if not record.rows:
        return "<p>No method has been run on this model yet.</p>"
    return rows_table(record.rows, _once(record.rows, notes_of(record.rows)))


def rows_table(rows: list[Row], notes: list[str], models: list[str] | None = None) -> str:
    """A line per row, with a note under the method and, where there are several, the model."""
    columns = [*COLUMNS[:2], *([MODEL] if models else []), *COLUMNS[2:]]
    metric = " / ".join(metrics(rows))
    head = "".join(_head(title.format(metric=metric), note, "model" if (title, note) == MODEL else "") for title, note in columns)
    extra = [f'<td class="model">{escape(model)}</td>' for model in models] if models else [""] * len(rows)
    body = "\n".join(_line(*parts) for parts in zip(rows, notes, extra, anchors(rows), strict=True))
    region = '<div class="scroll" role="region" aria-label="Results" tabindex="0">'
    return f'{region}\n<table class="sortable">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>'


def notes_of(rows: list[Row]) -> list[str]:
    """The settings of each row, and what else sets it apart from others of its method."""
    return [_note(row, label) for row, label in zip(rows, labels(rows), strict=True)]


def _head(title: str, note: str, kind: str = "") -> str:
    small, looks = f"<small>{escape(note)}</small>" if note else "", f' class="{kind}"' if kind else ""
    return f'<th scope="col"{looks}>{escape(title)}{small}</th>'


def _once(rows: list[Row], notes: list[str]) -> list[str]:
    """The notes, without those that repeat the line above: one method on the next artifact."""
    keys = [(row["method"], note) for row, note in zip(rows, notes, strict=True)]
    return ["" if i and key == keys[i - 1] else key[1] for i, key in enumerate(keys)]


def _line(row: Row, note: str, model: str, anchor: str) -> str:
    name = f'<a href="#json-{anchor}">{escape(row["method"])}</a>'
    head = f'<th scope="row">{name}{f"<small>{escape(note)}</small>" if note else ""}</th><td>{escape(row["artifact"])}</td>{model}'
    cells = "".join(map(_cell, _values(row), _order(row), [anchor] * len(COLUMNS))) if is_ok(row) else _without_result(row)
    idle = "" if is_ok(row) else ' class="idle"'
    return f'<tr id="row-{anchor}"{idle}>{head}{cells}</tr>'


def _cell(cell: str, order: float | None, anchor: str) -> str:
    """A number that leads to the row's JSON; `order` is what sorting looks at, as `86.4 % → 2.3 %` has two numbers."""
    main, small, rest = cell.partition("<small>")
    text = main if main == DASH else f'<a class="number" href="#json-{anchor}">{main}</a>'
    value = "" if order is None else f' data-value="{order:.6g}"'
    return f"<td{value}>{text}{small}{rest}</td>"


def _order(row: Row) -> list[float | None]:
    after = [row.get(last) for _, last, _ in RATES.values()]
    return [*after, row.get("performance_after"), *(row.get(key) for key in ("seconds", "peak_mb", "edited_parameters"))]


def _note(row: Row, label: str) -> str:
    """The settings, and what else the label needed to set the row apart."""
    others = [f"{key} {row.get(key)}" for key in APART]
    return "; ".join(part for part in (settings(row), *(other for other in others if other in label)) if part)


def _values(row: Row) -> list[str]:
    cost = [number(row.get("seconds")), number(row.get("peak_mb"), 0), number(row.get("edited_parameters"), 0)]
    return [*(_rate(row, rate) for rate in RATES), _performance(row), *cost]


def _performance(row: Row) -> str:
    ceiling = row.get("performance_ceiling")
    note = f"of {percent(ceiling)}" if is_share(row) and ceiling is not None else ""
    kind = "" if is_share(row) else "perplexity"
    return f"{escape(performance_change(row))}<small>{note or kind}</small>"


def _rate(row: Row, rate: str) -> str:
    before, after, _ = RATES[rate]
    first, last, rows = counts(row, rate)
    change = join_change(percent(row.get(before)), percent(row.get(after)), row)
    if change == DASH:
        return DASH
    return f"{escape(change)}<small>{fraction(first, rows)} {ARROW} {fraction(last, rows)}</small>"


def _without_result(row: Row) -> str:
    before, _, _ = RATES["all"]
    first, _, rows = counts(row, "all")
    memorized = f"<td>{percent(row.get(before))}<small>{fraction(first, rows)}, before</small></td>"
    reason = f"{row['status']}: {row.get('message') or 'no reason was recorded'}"
    return f'{memorized}<td class="message" colspan="{len(COLUMNS) - 3}">{escape(reason)}</td>'
