"""The result table of the page, and the anchors that tie its rows to their JSON."""

from __future__ import annotations

from tinymem.report.cells import (
    ARROW,
    DASH,
    anchors,
    before_after,
    escape,
    fraction,
    labels,
    metrics,
    number,
    percent,
    percent_only,
    settings,
)
from tinymem.report.render.before_after import join_change, performance_change
from tinymem.results.columns import LABEL_COLUMNS, RATES, Rate
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord

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


def rows_table(rows: list[MeasuredRow], notes: list[str], models: list[str] | None = None) -> str:
    """A line per row, with a note under the method and, where there are several, the model."""
    columns = [*COLUMNS[:2], *([MODEL] if models else []), *COLUMNS[2:]]
    metric = " / ".join(metrics(rows))
    head = "".join(_head(title.format(metric=metric), note, "model" if (title, note) == MODEL else "") for title, note in columns)
    extra = [f'<td class="model">{escape(model)}</td>' for model in models] if models else [""] * len(rows)
    body = "\n".join(_line(*parts) for parts in zip(rows, notes, extra, anchors(rows), strict=True))
    region = '<div class="scroll" role="region" aria-label="Results" tabindex="0">'
    return f'{region}\n<table class="sortable">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>'


def notes_of(rows: list[MeasuredRow]) -> list[str]:
    """Notes of each row: its settings, and all else that distinguishes it from others of its method."""
    return [_note(row, label) for row, label in zip(rows, labels(rows), strict=True)]


def _head(title: str, note: str, kind: str = "") -> str:
    small, looks = f"<small>{escape(note)}</small>" if note else "", f' class="{kind}"' if kind else ""
    return f'<th scope="col"{looks}>{escape(title)}{small}</th>'


def _once(rows: list[MeasuredRow], notes: list[str]) -> list[str]:
    """The notes, without those that repeat the line above: one method on the next artifact."""
    keys = [(row.method, note) for row, note in zip(rows, notes, strict=True)]
    return ["" if i and key == keys[i - 1] else key[1] for i, key in enumerate(keys)]


def _line(row: MeasuredRow, note: str, model: str, anchor: str) -> str:
    name = f'<a href="#json-{anchor}">{escape(row.method)}</a>'
    head = f'<th scope="row">{name}{f"<small>{escape(note)}</small>" if note else ""}</th><td>{escape(row.artifact)}</td>{model}'
    cells = "".join(map(_cell, _values(row), _order(row), [anchor] * len(COLUMNS))) if row.is_ok else _without_result(row)
    idle = "" if row.is_ok else ' class="idle"'
    return f'<tr id="row-{anchor}"{idle}>{head}{cells}</tr>'


def _cell(cell: str, order: float | None, anchor: str) -> str:
    """A cell whose number leads to the row's JSON; `order` is the sort key, as `86.4 % → 2.3 %` has two numbers."""
    main, small, rest = cell.partition("<small>")
    text = main if main == DASH else f'<a class="number" href="#json-{anchor}">{main}</a>'
    value = "" if order is None else f' data-value="{order:.6g}"'
    return f"<td{value}>{text}{small}{rest}</td>"


def _order(row: MeasuredRow) -> list[float | None]:
    after = [row.memorized_after, row.forget_memorized_after, row.holdout_memorized_after]
    return [*after, row.performance_after, row.seconds, row.peak_mb, row.edited_parameters]


def _note(row: MeasuredRow, label: str) -> str:
    """Note of a row: its settings, and the parts of the label that distinguish it."""
    others = [f"{name} {row[name]}" for name in LABEL_COLUMNS]
    return "; ".join(part for part in (settings(row), *(other for other in others if other in label)) if part)


def _values(row: MeasuredRow) -> list[str]:
    cost = [number(row.seconds), number(row.peak_mb, 0), number(row.edited_parameters, 0)]
    return [*(_rate(row, rate) for rate in RATES), _performance(row), *cost]


def _performance(row: MeasuredRow) -> str:
    ceiling = row.performance_ceiling
    note = f"of {percent(ceiling)}" if row.is_share and ceiling is not None else ""
    kind = "" if row.is_share else "perplexity"
    return f"{escape(performance_change(row))}<small>{note or kind}</small>"


def _rate(row: MeasuredRow, rate: Rate) -> str:
    before, after = before_after(row, rate)
    change = join_change(percent_only(before), percent_only(after), row)
    if change == DASH:
        return DASH
    return f"{escape(change)}<small>{fraction(before)} {ARROW} {fraction(after)}</small>"


def _without_result(row: MeasuredRow) -> str:
    before, _ = before_after(row, "all")
    memorized = f"<td>{percent_only(before)}<small>{fraction(before)}, before</small></td>"
    reason = f"{row.status}: {row.message or 'no reason was recorded'}"
    return f'{memorized}<td class="message" colspan="{len(COLUMNS) - 3}">{escape(reason)}</td>'
