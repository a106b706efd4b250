"""Figures on the page: the drawing, what it shows, and its numbers beside it, each with a link to the rows behind it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinymem.files import write_text
from tinymem.report.cells import DASH, escape
from tinymem.report.plots.data import FigureData, Line, Skipped, to_csv
from tinymem.report.plots.files import to_inline_svg

SHOWN = 40  # lines of numbers on the page; all are in the CSV
LINKS = 3  # rows of one number
INLINE = 48_000  # bytes of a CSV that is on the page; longer ones are files beside it


def figure_elements(figures: Sequence[FigureData], links: Mapping[str, str], folder: str) -> str:
    """All figures; `folder`, relative to the page, is where `write_long_data` puts what is too long for it."""
    return "\n".join(_figure(figure, links, folder) for figure in figures)


def skipped_list(skipped: Sequence[Skipped]) -> str:
    """What could not be drawn, and what it needs."""
    if not skipped:
        return ""
    items = "".join(f"<li>{escape(s.title)}: {escape(s.reason)}.</li>" for s in skipped)
    return (
        f"<details><summary>{len(skipped)} figures of the paper that these rows do not allow, and why</summary>\n<ul>{items}</ul></details>"
    )


def write_long_data(figures: Sequence[FigureData], folder: Path) -> None:
    """Write the CSV of every figure whose numbers are too long for the page."""
    for figure in figures:
        if _is_long(text := to_csv(figure.lines)):
            write_text(folder / f"{figure.key}.csv", text)


def _is_long(text: str) -> bool:
    return len(text.encode()) > INLINE


def _figure(figure: FigureData, links: Mapping[str, str], folder: str) -> str:
    svg = to_inline_svg(figure)
    wide = ' class="wide"' if figure.wide else ""
    drawing = f'<div class="drawing" tabindex="0">{svg}</div>' if figure.wide else svg
    caption = f"<figcaption><b>{escape(figure.title)}.</b> {escape(figure.caption)}</figcaption>"
    return f'<figure id="{figure.key}"{wide}>\n{drawing}\n{caption}\n{_data(figure, links, folder)}\n</figure>'


def _data(figure: FigureData, links: Mapping[str, str], folder: str) -> str:
    text = to_csv(figure.lines)
    target = f"{folder}/{figure.key}.csv" if _is_long(text) else f"data:text/csv;base64,{base64.b64encode(text.encode()).decode()}"
    download = f'<a download="{figure.key}.csv" href="{target}">CSV of all {len(figure.lines):,} lines</a>'
    columns = [key for key in dict.fromkeys(key for line in figure.lines for key in line) if key != "sources"]
    head = "".join(f'<th scope="col">{escape(column.replace("_", " "))}</th>' for column in columns)
    body = "\n".join(f"<tr>{_cells(line, columns, links)}</tr>" for line in figure.lines[:SHOWN])
    rest = f"; the first {SHOWN} here" if len(figure.lines) > SHOWN else ""
    table = f'<div class="scroll" tabindex="0"><table class="plain"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    return f"<details><summary>Numbers</summary>\n<p>{download}{rest}.</p>\n{table}</details>"


def _cells(line: Line, columns: list[str], links: Mapping[str, str]) -> str:
    """Measured numbers (floats) lead to the row behind them; where there are several, small links lead to the next ones."""
    targets = [links[source] for source in line.get("sources", ()) if source in links]
    cells = []
    for column in columns:
        value = line.get(column)
        text = escape(_text(value))
        cells.append(f'<td><a href="{targets[0]}">{text}</a></td>' if targets and isinstance(value, float) else f"<td>{text}</td>")
    if len(targets) > 1:
        more = " ".join(f'<a href="{target}">{i}</a>' for i, target in enumerate(targets[1:LINKS], 2))
        rest = f" of {len(targets):,}" if len(targets) > LINKS else ""
        cells[-1] = cells[-1].removesuffix("</td>") + f"<small>rows {more}{rest}</small></td>"
    return "".join(cells)


def _text(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:,.4g}"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
