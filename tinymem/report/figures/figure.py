"""A figure before it is drawn: the numbers that it shows, one line per mark, and how to draw them.

Figures are made by pure functions `Inputs -> FigureData | Skipped`; a figure is drawn from its lines and from nothing else, so its CSV
file holds all of it. `figures_of` (`catalogue.py`) makes all of them, `files.py` writes them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinymem.report.tables.table import Number
from tinymem.runtime.json import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = Number | tuple[str, ...]
Line = Mapping[str, Value]
"""Numbers of one mark by column; `sources` holds the `source` of every result row behind it."""


@dataclass(frozen=True)
class FigureData:
    """A figure that can be drawn.

    Attributes:
        key: file name without suffix, and anchor: `figure-05`.
        title: what it shows, on one line.
        caption: the quantities shown, and the direction that is better.
        lines: the numbers.
        draw: makes the matplotlib figure of the lines.
        paper: the paper's figure of this form, such as `Figure 5`; empty where it has none.
    """

    key: str
    title: str
    caption: str
    lines: list[Line]
    draw: Callable[[list[Line]], Figure]
    paper: str = ""

    @property
    def described(self) -> str:
        """The caption with the paper's number of the figure."""
        return f"{self.caption} As the paper's {self.paper}." if self.paper else self.caption

    @property
    def sources(self) -> list[str]:
        """All rows behind the figure, in order of appearance."""
        return list(dict.fromkeys(source for line in self.lines for source in sources_of(line)))


@dataclass(frozen=True)
class Skipped:
    """A figure that the rows do not allow, and why."""

    key: str
    title: str
    reason: str
    paper: str = ""

    @property
    def name(self) -> str:
        """Title with the paper's number."""
        return f"{self.title} (the paper's {self.paper})" if self.paper else self.title


def paper_number(key: str) -> str:
    """The paper's number in the key of a figure; empty where it has none.

    >>> paper_number("figure-08"), paper_number("figure-06a"), paper_number("strata-rows")
    ('Figure 8', 'Figure 6a', '')
    """
    found = re.fullmatch(r"figure-0*([0-9]+[a-d]?)", key)
    return f"Figure {found[1]}" if found else ""


def sources_of(line: Line) -> tuple[str, ...]:
    """Sources of the result rows behind a mark."""
    found = line.get("sources")
    return found if isinstance(found, tuple) else ()


def number(line: Line, column: str) -> float:
    """The number in a column; NaN where there is none, which is not drawn."""
    value = line.get(column)
    return float(value) if isinstance(value, int | float) else math.nan


def numbers(lines: Iterable[Line], column: str) -> list[float]:
    """The numbers of a column, one per line; NaN where there is none."""
    return [number(line, column) for line in lines]


def to_csv(lines: Iterable[Line]) -> str:
    """A line per mark; the rows behind it are the last column, separated by spaces."""
    found = list(lines)
    columns = [key for key in dict.fromkeys(key for line in found for key in line) if key != "sources"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "sources"])
    for line in found:
        writer.writerow([*(_cell(line.get(column)) for column in columns), " ".join(sources_of(line))])
    return out.getvalue()


def to_json(data: FigureData) -> str:
    """A figure as JSON: title, caption and lines."""
    lines = [{key: _finite(value) for key, value in line.items()} for line in data.lines]
    about = {"key": data.key, "title": data.title, "caption": data.described, "lines": lines}
    return json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _cell(value: Value | None) -> Value:
    return "" if value is None else value


def _finite(value: Value) -> Json:
    """Infinity and NaN, which JSON has not, as text."""
    if isinstance(value, tuple):
        return list(value)
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
