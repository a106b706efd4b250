"""The result table of the page, and the anchors that tie its rows to their JSON."""

from __future__ import annotations

from tinymem.report.before_after import join_change, performance_change
from tinymem.report.cells import (
    ARROW,
    DASH,
    RATES,
    anchors,
    counts,
    escape,
    fraction,
    is_ok,
    is_share,
    labels,
    metrics,
    number,
    percent,
    settings,
)
from tinymem.report.rows import Row, RunRecord

COLUMNS = (
    ("method", "and its settings"),
    ("artifact", ""),
    ("memorised", "all scored rows"),
    ("seen", "by the method"),
    ("unseen", "kept from it"),
    ("{metric}", "and its ceiling"),
    ("seconds", ""),
    ("peak MB", ""),
    ("edited", "parameters"),
)


def result_table(record: RunRecord) -> str:
    """A line per method and artifact; greyed, with the reason, where a method has no result."""
    if not record.rows:
        return "<p>No method has been run on this model yet.</p>"
    metric = " / ".join(metrics(record.rows))
    head = "".join(_head(title.format(metric=metric), note) for title, note in COLUMNS)
    notes = [_note(row, label) for row, label in zip(record.rows, labels(record.rows), strict=True)]
    lines = [_line(*parts) for parts in zip(record.rows, _once(record.rows, notes), anchors(record.rows), strict=True)]
    body = "\n".join(lines)
    region = '<div class="scroll" role="region" aria-label="Results" tabindex="0">'
    return f"{region}\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"


def _head(title: str, note: str) -> str:
    return f'<th scope="col">{escape(title)}{f"<small>{escape(note)}</small>" if note else ""}</th>'


def _once(rows: list[Row], notes: list[str]) -> list[str]:
    """The notes, without those that repeat the line above: one method on the next artifact."""
    keys = [(row["method"], note) for row, note in zip(rows, notes, strict=True)]
    return ["" if i and key == keys[i - 1] else key[1] for i, key in enumerate(keys)]


def _line(row: Row, note: str, anchor: str) -> str:
    name = f'<a href="#json-{anchor}">{escape(row["method"])}</a>'
    head = f'<th scope="row">{name}{f"<small>{escape(note)}</small>" if note else ""}</th><td>{escape(row["artifact"])}</td>'
    cells = "".join(f"<td>{cell}</td>" for cell in _values(row)) if is_ok(row) else _without_result(row)
    idle = "" if is_ok(row) else ' class="idle"'
    return f'<tr id="row-{anchor}"{idle}>{head}{cells}</tr>'


def _note(row: Row, label: str) -> str:
    """The settings, and what else the label needed to set the row apart."""
    others = [f"{key} {row.get(key)}" for key in ("protocol", "seed")]
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
    memorised = f"<td>{percent(row.get(before))}<small>{fraction(first, rows)}, before</small></td>"
    reason = f"{row['status']}: {row.get('message') or 'no reason was recorded'}"
    return f'{memorised}<td class="message" colspan="{len(COLUMNS) - 3}">{escape(reason)}</td>'
