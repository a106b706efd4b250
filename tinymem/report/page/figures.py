"""Figures on the page: the drawing, its caption, and its numbers, each with a link to the rows behind it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinymem.report.cells import DASH, escape
from tinymem.report.figures.figure import FigureData, Line, Skipped, Value, sources_of, to_csv
from tinymem.report.figures.files import to_inline_svg
from tinymem.runtime.files import write_text

SHOWN = 25  # lines of numbers on the page; all are in the CSV
COUNTS = ("n", "models", "runs", "seeds")
COLUMN = 440  # points, about the width of a column of the page
LINKS = 3  # rows of one number
INLINE = 48_000  # bytes of a CSV that is on the page; longer ones are separate files


def figure_elements(figures: Sequence[FigureData], links: Mapping[str, str], folder: str) -> str:
    """All figures as HTML; `folder`, relative to the page, holds the numbers that are too long for it (`write_long_data`)."""
    return "\n".join(_figure(figure, links, folder) for figure in figures)


def skipped_list(skipped: Sequence[Skipped]) -> str:
    """A list of the figures that could not be drawn, with the missing inputs."""
    if not skipped:
        return ""
    items = "".join(f"<li>{escape(s.title)}: {escape(s.reason)}.</li>" for s in skipped)
    return (
        f"<details><summary>{len(skipped)} figures of the paper that these rows do not allow, and why</summary>\n<ul>{items}</ul></details>"
    )


def write_long_data(figures: Sequence[FigureData], folder: Path) -> list[Path]:
    """Write the CSV of every figure whose numbers are too long for the page. Returns the paths."""
    long = {folder / f"{figure.key}.csv": text for figure in figures if _is_long(text := to_csv(figure.lines))}
    for path, text in long.items():
        write_text(path, text)
    return list(long)


def _is_long(text: str) -> bool:
    return len(text.encode()) > INLINE


def _figure(figure: FigureData, links: Mapping[str, str], folder: str) -> str:
    caption = f"<b>{escape(figure.title)}.</b> {escape(figure.caption)}"
    return figure_element(figure.key, to_inline_svg(figure), caption, numbers(figure.key, figure.lines, links, folder))


def figure_element(key: str, svg: str, caption: str, data: str) -> str:
    """A drawing with its caption and numbers; one that is wider than a column scrolls on narrow screens."""
    found = re.search(r'width="([\d.]+)pt"', svg)
    points = float(found[1]) if found else 0.0
    if points > COLUMN:
        sized = svg.replace("<svg ", f'<svg style="min-width: {1.15 * points:.0f}px; max-width: {1.7 * points:.0f}px" ', 1)
        drawing, wide = f'<div class="drawing" tabindex="0">{sized}</div>', ' class="wide"'
    else:
        drawing, wide = svg, ""
    return f'<figure id="{key}"{wide}>\n{drawing}<figcaption>{caption}</figcaption>\n{data}\n</figure>'


def numbers(key: str, lines: Sequence[Line], links: Mapping[str, str], folder: str) -> str:
    """The numbers of a figure, folded: a table of the first ones, and all of them as CSV."""
    text = to_csv(lines)
    target = f"{folder}/{key}.csv" if _is_long(text) else f"data:text/csv;base64,{base64.b64encode(text.encode()).decode()}"
    download = f'<a download="{key}.csv" href="{target}">CSV of all {len(lines):,} lines</a>'
    columns = [key for key in dict.fromkeys(key for line in lines for key in line) if key != "sources"]
    head = "".join(f'<th scope="col">{escape(column.replace("_", " "))}</th>' for column in columns)
    body = "\n".join(f"<tr>{_cells(line, columns, links)}</tr>" for line in lines[:SHOWN])
    rest = f"; the first {SHOWN} here" if len(lines) > SHOWN else ""
    table = f'<div class="scroll" tabindex="0"><table class="plain"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    return f"<details><summary>Numbers</summary>\n<p>{download}{rest}.</p>\n{table}</details>"


def _cells(line: Line, columns: list[str], links: Mapping[str, str]) -> str:
    """Measured numbers and counts lead to the row behind them; where there are several, small links lead to the next ones."""
    targets = [links[source] for source in sources_of(line) if source in links]
    cells = []
    for column in columns:
        value = line.get(column)
        text = escape(_text(value))
        cells.append(
            f'<td><a href="{targets[0]}">{text}</a></td>'
            if targets and (isinstance(value, float) or column in COUNTS)
            else f"<td>{text}</td>"
        )
    if len(targets) > 1:
        more = " ".join(f'<a href="{target}">{i}</a>' for i, target in enumerate(targets[1:LINKS], 2))
        rest = f" of {len(targets):,}" if len(targets) > LINKS else ""
        cells[-1] = cells[-1].removesuffix("</td>") + f"<small>rows {more}{rest}</small></td>"
    return "".join(cells)


def _text(value: Value) -> str:
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:,.4g}"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
