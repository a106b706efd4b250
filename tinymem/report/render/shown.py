"""What models say, for readers: in a terminal, as a table for text formats, and as pieces for the page. Differences are marked by signs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.shown import Said, ShownRow
from tinymem.runtime.streams import to_ascii

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MARK = "bold underline red"
HEADS = ("row", "what", "text", "tokens")
NAMES = ("prompt", "should follow")
MARKED = "[[ ]]"


class Piece(NamedTuple):
    """A part of a text, with control characters written out, and whether it differs from what should follow."""

    text: str
    differs: bool


def visible(text: str) -> str:
    r"""A text on one line, as any terminal and page shows it: control characters and the like are written out.

    >>> visible("two\nlines, \x1b[31mred, \u202eright to left")
    'two\\nlines, \\x1b[31mred, \\u202eright to left'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pieces_of(said: Said) -> list[Piece]:
    """The text in parts that differ and parts that do not."""
    found, place = [], 0
    for start, end in said.differs:
        found += [Piece(visible(said.text[place:start]), differs=False), Piece(visible(said.text[start:end]), differs=True)]
        place = end
    found.append(Piece(visible(said.text[place:]), differs=False))
    return [piece for piece in found if piece.text]


def lines_of(row: ShownRow) -> Iterator[tuple[str, list[Piece], str]]:
    """Yield the lines of a row: a name, the text in pieces, and a verdict."""
    yield NAMES[0], [Piece(visible(row.prompt), differs=False)], ""
    if row.target:
        yield NAMES[1], [Piece(visible(row.target), differs=False)], ""
    for said in row.said:
        yield said.model, pieces_of(said), said.verdict


def meaning(rows: Sequence[ShownRow], mark: str = "") -> str:
    """What the marks mean, with a sign for them; or that there are none."""
    against = "what should follow" if any(row.target for row in rows) else "what the first model says"
    if not any(said.differs for row in rows for said in row.said):
        return f"Nothing differs from {against}."
    return f"Marked: what differs from {against}, token by token.{f' {mark}' if mark else ''}"


def table_of_shown(rows: Sequence[ShownRow], notes: Sequence[str]) -> Table:
    """The rows as a table, for text formats; what differs is in double brackets."""
    lines = tuple(
        (Cell(row.title if i == 0 else ""), Cell(name), Cell(_bracketed(pieces)), Cell(verdict))
        for row in rows
        for i, (name, pieces, verdict) in enumerate(lines_of(row))
    )
    columns = tuple(Column(head, numeric=False) for head in HEADS)
    return Table("shown", "shown", "What the model says", columns, lines, (meaning(rows, MARKED), *notes))


def json_of_shown(rows: Sequence[ShownRow], notes: Sequence[str]) -> str:
    """The rows and notes as JSON."""
    return json.dumps({"rows": [row.as_json() for row in rows], "notes": [*notes]}, indent=2, ensure_ascii=False, allow_nan=False)


def print_shown(rows: Sequence[ShownRow], notes: Sequence[str], console: Console | None = None) -> None:
    """Print the rows; without a console, to standard output. What differs is underlined in color, or in double brackets without it."""
    from rich.text import Text

    from tinymem.runtime.console import Console

    console = console or Console(highlight=False)
    encode = str if console.encoding.lower().startswith("utf") else to_ascii
    plain = not console.is_terminal or console.no_color
    for row in rows:
        console.print(Text(encode(visible(row.title)), style="bold"))
        width = max(len(name) for name, *_ in lines_of(row))
        for name, pieces, verdict in lines_of(row):
            console.print(_line(encode(visible(name)).ljust(width), pieces, verdict, plain), soft_wrap=True)
        console.print()
    for note in (meaning(rows, MARKED if plain else ""), *notes):
        console.print(Text(encode(note), style="dim"))


def _line(name: str, pieces: Sequence[Piece], verdict: str, plain: bool) -> Text:
    from rich.text import Text

    line = Text(f"  {name}  ", style="")
    for piece in pieces:
        line.append(f"[[{piece.text}]]" if plain and piece.differs else piece.text, style=MARK if piece.differs else "")
    line.append(f"  ({verdict})" if verdict else "", style="dim")
    return line


def _bracketed(pieces: Sequence[Piece]) -> str:
    return "".join(f"[[{piece.text}]]" if piece.differs else piece.text for piece in pieces)
