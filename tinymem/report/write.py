"""A folder with the tables of a report in every format, and with the rows behind their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinymem.report.render.text import render, to_wide_csv
from tinymem.report.tables.table import Table
from tinymem.results.collect import Results
from tinymem.runtime.files import write_json, write_text
from tinymem.runtime.json import JsonObject

FILES = {"markdown": "tables.md", "latex": "tables.tex", "json": "tables.json", "csv": "sources.csv"}


def write_all(results: Results, tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every format; each file is whole or as it was before.

        report.html             the page; parts that are too long for it are in report-data/
        tables.md, tables.tex   all tables
        tables.json             all tables, unrounded, each number with the rows behind it
        <table>.csv             one table, unrounded
        sources.csv             a line per number: value, spread, seeds, and the rows behind it
        rows.json               those rows, by the names that the others use
        figures/<figure>.*      every figure as PNG and SVG, and its numbers as CSV and JSON

    Returns:
        The files, the page first.
    """
    from tinymem.report.figures.catalogue import figures_of
    from tinymem.report.figures.files import write_figures
    from tinymem.report.page.document import write_page

    written = write_page(results, list(tables), folder / "report.html")
    for format, name in FILES.items():
        write_text(folder / name, render(tables, format))
        written.append(folder / name)
    for table in tables:
        write_text(folder / f"{table.key}.csv", to_wide_csv(table))
        written.append(folder / f"{table.key}.csv")
    write_json(folder / "rows.json", rows_behind(results, tables))
    return [*written, folder / "rows.json", *write_figures(figures_of(results)[0], folder / "figures")]


def rows_behind(results: Results, tables: Sequence[Table]) -> JsonObject:
    """The rows that the tables name, by source; of a localization all rows of its file, in a list."""
    known: JsonObject = {source: row.as_dict() for source, row in results.by_source.items()}
    for row in results.localization:
        rows = known.setdefault(row.source, [])
        if isinstance(rows, list):
            rows.append(row.as_dict())
    return {source: known[source] for table in tables for source in table.sources}
