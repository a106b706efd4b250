"""A figure before it is drawn: the numbers that it shows, one line per mark, and how to draw them.

What makes figures are pure functions `Inputs -> FigureData | Skipped`; a figure is drawn from its lines and from nothing else, so the CSV
beside it holds all of it. `figures_of` (`catalogue.py`) makes all of them, `files.py` writes them.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = dict[str, Any]
"""Numbers of one mark by column; `sources` holds the `source_id` of every result row behind it."""


@dataclass(frozen=True)
class FigureData:
    """A figure that can be drawn.

    Attributes:
        key: file name without suffix, and anchor: `figure-05`.
        title: one line.
        caption: what it shows, and which direction is better.
        lines: the numbers.
        draw: makes the matplotlib figure of the lines.
    """

    key: str
    title: str
    caption: str
    lines: list[Line]
    draw: Callable[[list[Line]], Figure]

    @property
    def sources(self) -> list[str]:
        """All rows behind the figure, in order of appearance."""
        return list(dict.fromkeys(source for line in self.lines for source in line.get("sources", ())))


@dataclass(frozen=True)
class Skipped:
    """A figure that the rows do not allow, and why."""

    key: str
    title: str
    reason: str


def to_csv(lines: Iterable[Line]) -> str:
    """A line per mark; the rows behind it are the last column, separated by spaces."""
    found = list(lines)
    columns = [key for key in dict.fromkeys(key for line in found for key in line) if key != "sources"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "sources"])
    for line in found:
        writer.writerow([*(_cell(line.get(column)) for column in columns), " ".join(line.get("sources", ()))])
    return out.getvalue()


def to_json(data: FigureData) -> str:
    """Title, caption and lines."""
    lines = [{key: _finite(value) for key, value in line.items()} for line in data.lines]
    about = {"key": data.key, "title": data.title, "caption": data.caption, "lines": lines}
    return json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _finite(value: Any) -> Any:
    """Infinity and NaN, which JSON has not, as text."""
    if isinstance(value, tuple):
        return list(value)
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
