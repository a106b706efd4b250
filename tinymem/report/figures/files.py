"""Figures as files: PNG and SVG, with their numbers as CSV and JSON."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from tinymem.errors import UserError, did_you_mean
from tinymem.report.figures.figure import FigureData, to_csv, to_json
from tinymem.report.figures.svg import DARK, LIGHT, Drawing, drawing, to_svg
from tinymem.runtime.files import write_bytes, write_text

FORMATS = ("png", "svg", "csv", "json")
DOTS_PER_INCH = 160
# An SVG opened on its own follows the reader's theme, as the page does.
THEME = (
    f"<style>svg{{font-family:sans-serif;color:{LIGHT[0]};background:{LIGHT[1]}}}"
    f"@media (prefers-color-scheme:dark){{svg{{color:{DARK[0]};background:{DARK[1]}}}}}</style>"
)


def write_figures(figures: Sequence[FigureData], out: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write every figure in every format; each file is whole or absent. Returns the paths.

    Raises:
        UserError: no such format, or matplotlib is not installed.
    """
    for format in formats:
        if format not in FORMATS:
            raise UserError(f"expected a format of {', '.join(FORMATS)}, got '{format}'; {did_you_mean(format, FORMATS)}")
    return [_write(figure, out / f"{figure.key}.{format}", format) for figure in figures for format in formats]


def _write(data: FigureData, path: Path, format: str) -> Path:
    if format == "png":
        write_bytes(path, to_png(data))
    else:
        write_text(path, {"svg": to_svg_file, "csv": lambda d: to_csv(d.lines), "json": to_json}[format](data))
    return path


def to_inline_svg(data: FigureData) -> Drawing:
    """The drawing in the page's colors."""
    with drawing():
        return to_svg(data.draw(data.lines), data.key, f"{data.title}. {data.described}")


def to_svg_file(data: FigureData) -> str:
    """An SVG file, dark on light, or light on dark where the reader prefers that."""
    return f'<?xml version="1.0" encoding="utf-8"?>\n{to_inline_svg(data).styled(head=THEME)}'


def to_png(data: FigureData) -> bytes:
    """A PNG image, dark on white, for papers and slides."""
    with drawing():
        figure = data.draw(data.lines)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DOTS_PER_INCH, facecolor=LIGHT[1], metadata={"Software": None})
    return out.getvalue()
