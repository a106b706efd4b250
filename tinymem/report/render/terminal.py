"""Tables on a terminal: the roomiest layout that fits its width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinymem.report.render.run_terminal import needs_ascii, to_ascii
from tinymem.report.render.text import with_small
from tinymem.report.tables.table import Cell, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

WIDTH = 120  # of output that is no terminal
WORD = 20  # characters that are not broken


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print tables with their notes; without a console, to standard output."""
    from rich.console import Console

    if console is None:
        console = Console()
        console.width = console.width if console.is_terminal else WIDTH
    for i, table in enumerate(tables):
        if i:
            console.print()
        console.print(_fitting(table, console))
        notes = [*table.notes, *(f"[{i}] {text}" for i, text in enumerate(table.footnotes, 1))]
        for note in notes:
            console.print(_encode(console)(note), style="dim", markup=False, highlight=False)


def _fitting(table: Table, console: Console) -> RichTable:
    """The roomiest layout that fits: counts next to their numbers, else below them, else none; longer cells are folded."""
    unbounded = console.options.update(width=10_000)
    for show in (with_small, _with_small_below, lambda cell: cell.text):
        rich_table = _build(table, show, _encode(console))
        if console.measure(rich_table, options=unbounded).maximum <= console.width:
            break
    return rich_table


def _build(table: Table, show: Callable[[Cell], str], encode: Callable[[str], str]) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    built = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title=encode(table.title), title_justify="left")
    built.title_style = "bold"
    group = ""
    for i, column in enumerate(table.columns):
        above = "" if column.group == group else column.group
        group = column.group
        head = f"{above}\n{column.title}" if any(c.group for c in table.columns) else column.title
        widest = max((len(row[i].text) for row in table.rows), default=0)
        whole = not column.numeric and widest <= WORD
        built.add_column(Text(encode(head)), justify="right" if column.numeric else "left", overflow="fold", no_wrap=whole)
    for row in table.rows:
        texts = [show(cell) + "".join(f" [{mark}]" for mark in cell.marks) for cell in row]
        built.add_row(*(Text(encode(text), style="bold" if cell.best else "") for text, cell in zip(texts, row, strict=True)))
    return built


def _with_small_below(cell: Cell) -> str:
    return f"{cell.text}\n({cell.small})" if cell.small else cell.text


def _encode(console: Console) -> Callable[[str], str]:
    return to_ascii if needs_ascii(console) else str
