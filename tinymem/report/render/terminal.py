"""Tables on a terminal: the roomiest layout that fits its width, without breaking words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinymem.errors import printable
from tinymem.report.cells import DASH
from tinymem.report.render.text import with_details
from tinymem.report.tables.table import Cell, Table
from tinymem.runtime.streams import to_ascii

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

WIDTH = 120  # of output that is no terminal
NARROW = 60  # below, rows whose columns do not fit are stacked


@dataclass(frozen=True)
class Layout:
    """A way to show a table: with its optional columns, with small print beside the numbers, with numbers broken at spaces, with gaps."""

    optional: bool
    beside: bool
    fold: bool
    gap: int


# From roomy to narrow: the first that fits is printed.
LAYOUTS = [
    Layout(optional, beside, fold, gap)
    for optional, beside, fold in (
        (True, True, False),
        (False, True, False),
        (True, False, False),
        (False, False, False),
        (False, False, True),
    )
    for gap in (2, 1)
]


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print tables with their notes; without a console, to standard output."""
    from tinymem.runtime.console import Console

    if console is None:
        console = Console()
        console.width = console.width if console.is_terminal else WIDTH
    for i, table in enumerate(tables):
        if i:
            console.print()
        _print(table, console)


def _print(table: Table, console: Console) -> None:
    from rich.text import Text

    layout = next((layout for layout in LAYOUTS if _fits(table, layout, console.width)), None)
    if layout is None:
        console.print(Text("\n".join(map(_encode(console), [table.title, *_stacked(table)]))))
    elif table.rows:
        console.print(_build(table, layout, console))
    below = [] if layout is None or layout.beside else _details(table)
    notes = [*below, *table.notes, *(f"[{i}] {text}" for i, text in enumerate(table.footnotes, 1))]
    for note in notes:
        console.print(_encode(console)(note), style="dim", markup=False, highlight=False)


def _fits(table: Table, layout: Layout, width: int) -> bool:
    if layout.fold and width < NARROW:
        return False
    return sum(least for least, _ in _widths(table, layout)) + _gaps(table, layout) <= width


def _gaps(table: Table, layout: Layout) -> int:
    return layout.gap * (len(_columns(table, layout)) - 1)


def _columns(table: Table, layout: Layout) -> list[int]:
    return [i for i, column in enumerate(table.columns) if layout.optional or not column.optional]


def _widths(table: Table, layout: Layout) -> list[tuple[int, int]]:
    """The least width of each column, at which no word is broken, and its full one."""
    found = []
    for i in _columns(table, layout):
        head, texts = _head(table, i), [_text(row[i], layout) for row in table.rows]
        whole = table.columns[i].numeric and not layout.fold
        parts = [word for text in ([head] if whole else [head, *texts]) for word in text.split()] + (texts if whole else [])
        found.append((max(map(len, parts), default=1), max(len(line) for text in (head, *texts) for line in (text.split("\n") or [""]))))
    return found


def _head(table: Table, place: int) -> str:
    """The head of a column, below that of its group, which stands over the first of the group's columns."""
    column, before = table.columns[place], table.columns[place - 1].group if place else ""
    above = "" if column.group == before else column.group
    return f"{above}\n{column.title}" if any(c.group for c in table.columns) else column.title


def _text(cell: Cell, layout: Layout) -> str:
    return (with_details(cell) if layout.beside else cell.text) + "".join(f" [{mark}]" for mark in cell.marks)


def _build(table: Table, layout: Layout, console: Console) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    encode = _encode(console)
    built = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=encode(table.title), title_justify="left")
    built.padding = (0, layout.gap - 1, 0, 0)
    built.title_style = "bold"
    shown = _columns(table, layout)
    for i, width in zip(shown, _spread(_widths(table, layout), console.width - _gaps(table, layout)), strict=True):
        numeric = table.columns[i].numeric
        built.add_column(Text(encode(_head(table, i))), justify="right" if numeric else "left", overflow="fold", width=width)
    for row in table.rows:
        built.add_row(*(Text(encode(_text(row[i], layout)), style="bold" if row[i].best else "") for i in shown))
    return built


def _spread(widths: list[tuple[int, int]], room: int) -> list[int]:
    """Widths of columns: the least ones, and what room is left for those that want more, from the left."""
    found, spare = [least for least, _ in widths], room - sum(least for least, _ in widths)
    for i, (least, full) in enumerate(widths):
        more = min(full - least, spare) if full > least else 0
        found[i], spare = least + more, spare - more
    return found


def _details(table: Table) -> Iterator[str]:
    """Yield the small print of each row as a line of its own, with units."""
    for row in table.rows:
        parts = [f"{c.name} {', '.join(cell.words)}" for c, cell in zip(table.columns, row, strict=True) if c.numeric and cell.words]
        if parts:
            yield f"{_name(table, row)}: {'; '.join(parts)}"


def _name(table: Table, row: Sequence[Cell]) -> str:
    """The words of a row."""
    return ", ".join(cell.text for column, cell in zip(table.columns, row, strict=True) if not column.numeric and cell.text)


def _stacked(table: Table) -> Iterator[str]:
    """Yield each row as lines: its words, then a line per number."""
    for row in table.rows:
        yield _name(table, row)
        for column, cell in zip(table.columns, row, strict=True):
            if column.numeric and cell.text != DASH:
                yield f"  {column.name} {_text(cell, LAYOUTS[0])}"


def _encode(console: Console) -> Callable[[str], str]:
    """How the terminal shows text: without what controls it, as it is or with dashes and signs spelled out."""
    return printable if console.encoding.lower().startswith("utf") else lambda text: to_ascii(printable(text))
