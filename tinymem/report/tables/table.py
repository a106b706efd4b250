"""A table before it has a format: titled columns, and cells that know the rows behind them.

Functions that make tables return a `Table`; those that write them (`report/render`, the page) read it. Files and formats are not used here.

    tables = tables_of(load_results([folder, ...]))     # tables/catalogue.py
    text = render(tables, "markdown")                   # render/text.py: markdown, latex, csv, json
    part = to_html(tables[0], {source: f"#json-{anchor(source)}" for source in tables[0].sources})
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinymem.report.cells import fraction, interval
from tinymem.results.share import Share

Number = float | int | str | bool | None


@dataclass(frozen=True)
class Cell:
    """One value of a table, as shown and as stored.

    Attributes:
        text: the value as shown in every format, such as `2.8 ± 0.4`.
        small: small print next to or below the text, such as `before 86.1`.
        value: unrounded value (mean over seeds), for CSV and JSON; None for a dash.
        spread: sample standard deviation over seeds; None for fewer than two.
        n: seeds (or runs) behind the value.
        share: counts behind a percentage, summed over seeds; its count, rows and interval are small print too.
        sources: `source` of every row behind the value.
        marks: numbers of the table's footnotes that concern this cell, counted from 1.
        best: whether it is the best of its column.
        of_tokens: whether the share is one of tokens, which are so many that only the interval is small print.
    """

    text: str
    small: str = ""
    value: Number = None
    spread: float | None = None
    n: int | None = None
    share: Share | None = None
    sources: tuple[str, ...] = ()
    marks: tuple[int, ...] = ()
    best: bool = False
    of_tokens: bool = False

    @property
    def details(self) -> tuple[str, ...]:
        """The small print: count, interval and number of seeds of a share, then the cell's own."""
        found = list[str]()
        if self.share is not None:
            found += ["" if self.of_tokens else fraction(self.share), interval(self.share), f"n={self.n}" if (self.n or 0) > 1 else ""]
        return tuple(part for part in (*found, self.small) if part)

    @property
    def words(self) -> tuple[str, ...]:
        """The small print with its units, for lines of their own: `44 of 72 rows`, `50–72 %`."""
        if self.share is None:
            return self.details
        counted = "" if self.of_tokens else f"{self.share.count:,} of {self.share.rows:,} rows"
        within = f"{interval(self.share)} %" if interval(self.share) else ""
        return tuple(part for part in (counted, within, f"n={self.n}" if (self.n or 0) > 1 else "", self.small) if part)


@dataclass(frozen=True)
class Column:
    """A column's head; neighbors of one `group` share a heading above theirs. Optional columns are left out where there is no room."""

    title: str
    group: str = ""
    numeric: bool = True
    optional: bool = False

    @property
    def name(self) -> str:
        """Title with its group, for formats with one line of heads."""
        return f"{self.group}: {self.title}" if self.group else self.title


@dataclass(frozen=True)
class Table:
    """A titled table: columns, rows of cells, and notes.

    Attributes:
        name: which one, as `--tables` names it: `1`, `best`, ...
        key: unique among the tables of a report, and safe as a file name and an anchor.
        title: one line.
        columns: heads.
        rows: cells, as many in each row as there are columns.
        notes: sentences below it, free of markup.
        footnotes: texts of the numbered marks.
    """

    name: str
    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [len(row) for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"expected {len(self.columns)} cells in every row of {self.key}, got {wrong[0]}")

    @property
    def sources(self) -> tuple[str, ...]:
        """All rows behind the table, in order of appearance."""
        return tuple(dict.fromkeys(source for row in self.rows for cell in row for source in cell.sources))


def anchor(source: str) -> str:
    """A source as part of a URL: a page has the JSON of a row in the element `json-<anchor>`.

    >>> anchor("5d 41/402a-noise")
    '5d-41-402a-noise'
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", source)
