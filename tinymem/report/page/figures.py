"""Figures on the page: the drawing, its caption, and its numbers, each with a link to the rows behind it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.report.cells import DASH
from tinymem.report.figures.figure import FigureData, Line, Value, sources_of, to_csv
from tinymem.report.figures.files import to_inline_svg
from tinymem.report.render.html import targets
from tinymem.runtime.files import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

SHOWN = 25  # lines of numbers on the page; all are in the CSV
COUNTS = ("n", "models", "runs", "seeds")
COLUMN = 440  # points, about the width of a column of the page
INLINE = 48_000  # bytes of a CSV that is on the page; longer ones are separate files


@dataclass(frozen=True)
class ShownLine:
    """A line of a figure's numbers: texts, each with whether it was measured, and the rows behind them with their URLs."""

    cells: list[tuple[str, bool]]
    targets: list[tuple[str, str]]


@dataclass(frozen=True)
class ShownFigure:
    """What the template shows of a figure; `csv` is the URL of its numbers, `lines` are the first of them, `count` is the number of all."""

    key: str
    title: str
    caption: str
    svg: Markup
    wide: bool
    csv: str
    columns: list[str]
    lines: list[ShownLine]
    count: int


def shown(figure: FigureData, links: Mapping[str, str], folder: str) -> ShownFigure:
    """A figure drawn; `folder`, relative to the page, holds the numbers that are too long for it (`write_long_data`)."""
    from markupsafe import Markup

    text, drawing = to_csv(figure.lines), to_inline_svg(figure)
    csv = f"{folder}/{figure.key}.csv" if _is_long(text) else f"data:text/csv;base64,{base64.b64encode(text.encode()).decode()}"
    wide = drawing.width > COLUMN
    size = f"min-width: {1.15 * drawing.width:.0f}px; max-width: {1.7 * drawing.width:.0f}px" if wide else ""
    columns = [key for key in dict.fromkeys(key for line in figure.lines for key in line) if key != "sources"]
    return ShownFigure(
        key=figure.key,
        title=figure.title,
        caption=figure.described,
        svg=Markup(drawing.styled(size)),
        wide=wide,
        csv=csv,
        columns=[column.replace("_", " ") for column in columns],
        lines=[_line(line, columns, links) for line in figure.lines[:SHOWN]],
        count=len(figure.lines),
    )


def write_long_data(figures: Sequence[FigureData], folder: Path) -> list[Path]:
    """Write the CSV of every figure whose numbers are too long for the page. Returns the paths."""
    long = {folder / f"{figure.key}.csv": text for figure in figures if _is_long(text := to_csv(figure.lines))}
    for path, text in long.items():
        write_text(path, text)
    return list(long)


def _is_long(text: str) -> bool:
    return len(text.encode()) > INLINE


def _line(line: Line, columns: list[str], links: Mapping[str, str]) -> ShownLine:
    """Measured numbers and counts lead to the row behind them."""
    cells = [(_text(line.get(column)), isinstance(line.get(column), float) or column in COUNTS) for column in columns]
    return ShownLine(cells, targets(links, sources_of(line)))


def _text(value: Value) -> str:
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:,.4g}"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
