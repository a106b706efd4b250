"""`tinymem cache`: what is kept of users' text, and its removal. The verbs import what they need themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import Format, PrintJson
from tinymem.cli.printing import chosen, listing, print_json, print_listing
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.data.text.kept import Kept
    from tinymem.report.tables.table import Table

cache_app = typer.Typer(help="What is kept of your text.", invoke_without_command=True, pretty_exceptions_enable=False)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Entries, as the list has them, or the start of an id.")]
Days = Annotated[float, typer.Option("--older-than", metavar="DAYS", min=0, help="Only what was last used so many days ago or earlier.")]


@cache_app.callback()
def cache(context: typer.Context, output: Format = "table", json: PrintJson = False) -> None:
    """List what is kept of your text: where, how much, from which files, and when it was last used."""
    output = chosen(output, json)
    if context.invoked_subcommand is not None:
        return
    from tinymem.data.text.kept import kept
    from tinymem.data.text.tokens import cache_directory

    found = kept()
    if output == "json":
        print_json([entry.as_json() for entry in found])
    else:
        print_listing(_table(found, str(cache_directory())), output)


@cache_app.command()
def clear(names: Names = None, older_than: Days = 0.0) -> None:
    """Remove what is kept, or the named entries of it. What another process uses at the moment stays, and exit code 1 says so.

    All of it is made anew when it is needed.
    """
    from tinymem.data.text.kept import clear as clear_entries

    removed, busy = clear_entries(names or (), older_than=older_than)
    for entry in removed:
        echo(f"{entry.name}: {_size(entry.size)} removed")
    if not removed and not busy:
        echo("nothing to remove")
    for entry in busy:
        echo(f"{entry.name}: in use by another process, so it stays", err=True)
    if busy:
        raise typer.Exit(1)


def _table(entries: list[Kept], place: str) -> Table:
    from tinymem.report.tables.table import Cell

    heads = ("name", "size", "last used", "from", "what it is")
    rows = [
        (entry.name, Cell(_size(entry.size), value=entry.size), entry.used_text, ", ".join(entry.sources), entry.holds) for entry in entries
    ]
    note = f"{place}: {_size(sum(entry.size for entry in entries))} in {counted(len(entries), 'entry', 'entries')}"
    return listing(place, heads, rows, notes=[note])


def _size(size: int) -> str:
    return f"{size:,} B" if size < 10_000 else f"{size / 1e6:,.2f} MB"
