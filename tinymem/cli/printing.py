"""What verbs print: tables and lists in each format, on the terminal or to a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from tinymem.errors import UserError, printable
from tinymem.runtime.streams import echo

if TYPE_CHECKING:
    from tinymem.report.tables.table import Cell, Number, Table
    from tinymem.results.row import LocalizationRow
    from tinymem.results.run_folder import RunRecord
    from tinymem.runtime.json import Json

SUFFIXES = {
    "table": (".md", ".txt"),
    "markdown": (".md",),
    "json": (".json",),
    "csv": (".csv",),
    "latex": (".tex",),
    "html": (".html", ".htm"),
}
"""Ends of the names of files, by what is in them; a table in a file is Markdown."""
F = TypeVar("F", bound=str)


def chosen(output: F, print_json: bool) -> F | Literal["json"]:
    """The format that `--format` and its short form `--json` name together.

    Raises:
        UserError: two different ones.
    """
    if print_json and output not in ("table", "json"):
        raise UserError(f"expected one format, got --format {output} and --json; leave one out")
    return "json" if print_json else output


def check_out(out: Path | None, output: str, option: str = "--out", advice: str = "") -> None:
    """Raise UserError unless the name of a file to write fits what is written there; `advice` ends the message if it has none."""
    fitting = SUFFIXES[output]
    if out is None or (out.suffix in fitting and not out.is_dir()):
        return
    other = next((name for name, ends in reversed(SUFFIXES.items()) if out.suffix in ends), None) if option == "--out" else None
    advice = f"; try --format {other}" if other else advice
    raise UserError(f"expected a file that ends in {' or '.join(fitting)} for {option}, to hold {output}, got {out}{advice}")


def check_folder(out: Path | None) -> None:
    """Raise UserError unless a folder of files to write is a folder, or a name for one."""
    if out is not None and not out.is_dir() and (out.exists() or out.suffix):
        raise UserError(f"expected a folder for --out, whose name has no suffix, got {out}; name another")


def listing(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[Cell | Number]], *, notes: Iterable[str] = (), optional: Sequence[str] = ()
) -> Table:
    """A table of plain values; columns of numbers stand to the right, `optional` ones are left out where there is no room."""
    from tinymem.report.tables.table import Cell, Column, Table

    cells = [tuple(value if isinstance(value, Cell) else Cell(_shown(value), value=value) for value in row) for row in rows]
    numeric = [any(_is_number(row[i].value) for row in cells) for i in range(len(heads))]
    columns = tuple(Column(head, numeric=right, optional=head in optional) for head, right in zip(heads, numeric, strict=True))
    return Table("list", "list", title, columns, tuple(cells), tuple(notes))


def print_listing(table: Table, output: str) -> None:
    """Print a list of things: as JSON an object a row, as CSV a line a row."""
    from tinymem.report.render.text import to_wide_csv

    if output == "json":
        print_json(objects_of(table))
    elif output == "csv":
        emit(to_wide_csv(table), None)
    elif output == "table":
        print_tables_as([replace(table, notes=())] if table.rows else [], output, None)
        for note in table.notes:
            echo(note)  # in lines as they are: other programs read them
    else:
        print_tables_as([table], output, None)


def objects_of(table: Table) -> list[Json]:
    """The rows of a list as objects, for JSON."""
    return [{column.title: cell.value for column, cell in zip(table.columns, row, strict=True)} for row in table.rows]


def print_json(value: Json | Sequence[Json]) -> None:
    """Print a value as indented JSON."""
    emit(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), None)


def print_localized(rows: Sequence[LocalizationRow], tables: Callable[[Sequence[LocalizationRow]], Sequence[Table]], output: str) -> None:
    """Print the rows of a localization: as JSON, or in the tables that they make."""
    if output == "json":
        print_json([row.as_dict() for row in rows])
    else:
        print_tables_as(tables(rows), output, None)


def print_tables_as(tables: Sequence[Table], output: str, out: Path | None) -> None:
    """Print tables on the terminal, or write them as text there or to a file."""
    if output == "table" and out is None:
        from tinymem.report.render.terminal import print_tables

        print_tables(tables)
    elif output == "html":
        from tinymem.report.page.document import tables_page

        emit(tables_page(tables), out)
    else:
        from tinymem.report.render.text import render

        emit(render(tables, "markdown" if output == "table" else output), out)


def print_rows(path: Path, output: str, out: Path | None = None) -> None:
    """Print the result rows of one run, those that its recipe asks for first; html writes a page to its folder."""
    from tinymem.results.run_folder import load_run

    record = load_run(path)
    if output == "html":
        from tinymem.report.page.document import write_html

        target = out or path / "report.html"
        write_html(record, target)
        echo(target)
    elif output in ("json", "csv"):
        print_record(record, output, out)
    else:
        from tinymem.report.tables.of_rows import tables_of_run

        print_tables_as(tables_of_run(record), output, out)


def print_record(record: RunRecord, output: str, out: Path | None = None) -> None:
    """Print results in memory: rows as JSON or CSV, their table, or the page as text."""
    from tinymem.report.render import rows
    from tinymem.report.tables.of_rows import table_of_run
    from tinymem.report.tables.trained import trained_rows

    if output in ("json", "csv"):
        found = record.rows or trained_rows(record)
        emit(rows.to_json(found) if output == "json" else rows.to_csv(found), out)
    elif output == "html":
        from tinymem.report.page.document import run_page

        emit(run_page(record)[0], out)
    else:
        print_tables_as([table_of_run(record)], output, out)


def emit(text: str, out: Path | None) -> None:
    """Print a text, or write it to a file; only a terminal gets it escaped."""
    text = text.rstrip("\n") + "\n"
    if out is None:
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    else:
        from tinymem.runtime.files import write_text

        write_text(out, text)


def _shown(value: Number) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(value: Number) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
