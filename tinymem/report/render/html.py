"""A table as a fragment of HTML, for the page: every number leads to the rows that it was computed from."""

from __future__ import annotations

from collections.abc import Callable

from tinymem.report.cells import escape
from tinymem.report.render.text import spans_of
from tinymem.report.tables.table import Cell, Column, Table, anchor

LINKS = 8  # further sources than these are in the page's JSON files
Link = Callable[[str], str | None]


def row_link(source: str) -> str | None:
    """Link to the page's element of a row."""
    return f"#row-{anchor(source)}"


def to_html(table: Table, link: Link = row_link) -> str:
    """A titled table that scrolls on narrow screens, with its notes below.

    Args:
        table: the table to show.
        link: URL of a source, or None where the page does not show that row.
    """
    body = "\n".join(f"<tr>{''.join(_cell(table, cell, i, link) for i, cell in enumerate(row))}</tr>" for row in table.rows)
    region = f'<div class="scroll" role="region" aria-label="{escape(table.title)}" tabindex="0">'
    rows = f"<table>\n<thead>{_heads(table)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<section id="{anchor(table.key)}">\n<h3>{escape(table.title)}</h3>\n{region}\n{rows}\n</div>\n{_below(table)}</section>'


def _below(table: Table) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    marked = "".join(f'<li id="{_note(table, i)}" value="{i}">{escape(text)}</li>' for i, text in enumerate(table.footnotes, 1))
    return (f'<ul class="soft">{notes}</ul>\n' if notes else "") + (f'<ol class="soft">{marked}</ol>\n' if marked else "")


def _note(table: Table, number: int) -> str:
    return f"note-{anchor(table.key)}-{number}"


def _heads(table: Table) -> str:
    groups = ""
    if any(column.group for column in table.columns):
        cells = [f'<th colspan="{width}" scope="colgroup">{escape(group)}</th>' for group, _, width in spans_of(table)]
        groups = f"<tr>{''.join(cells)}</tr>"
    return groups + "<tr>" + "".join(f'<th scope="col"{_words(column)}>{escape(column.title)}</th>' for column in table.columns) + "</tr>"


def _cell(table: Table, cell: Cell, place: int, link: Link) -> str:
    targets = [(source, target) for source in cell.sources if (target := link(source)) is not None]
    text = _a(*targets[0], cell.text) if targets else escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.best else text
    marks = ", ".join(f'<a href="#{_note(table, mark)}">{mark}</a>' for mark in cell.marks)
    text += f"<sup>{marks}</sup>" if marks else ""
    text += f"<small>{escape(cell.small)}</small>" if cell.small else ""
    text += _further(targets)
    return f'<th scope="row">{text}</th>' if place == 0 else f"<td{_words(table.columns[place])}>{text}</td>"


def _words(column: Column) -> str:
    """Attribute that aligns a column of words left, as in the other formats."""
    return "" if column.numeric else ' class="words"'


def _further(targets: list[tuple[str, str]]) -> str:
    """A small link for every row behind a number after the first, which the number itself leads to."""
    links = [_a(source, target, str(i)) for i, (source, target) in enumerate(targets[:LINKS], 1)][1:]
    rest = f" and {len(targets) - LINKS:,} more" if len(targets) > LINKS else ""
    return f'<small class="sources">rows {" ".join(links)}{rest}</small>' if links else ""


def _a(source: str, target: str, text: str) -> str:
    return f'<a href="{escape(target)}" title="{escape(source)}">{escape(text)}</a>'
