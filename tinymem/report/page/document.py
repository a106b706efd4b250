"""Self-contained HTML pages: of one run, and of any number of runs and sweeps. Numbers, figures, and the source of every number."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from tinymem.report.cells import escape
from tinymem.report.figures.catalogue import figures_of
from tinymem.report.figures.figure import FigureData, Skipped
from tinymem.report.figures.of_run import change_scatter, training_curve
from tinymem.report.page import overview, sections, summary
from tinymem.report.page.figures import figure_elements, skipped_list, write_long_data
from tinymem.report.page.rows import PageRows, json_block, page_rows
from tinymem.report.render.html import to_html as to_html_table
from tinymem.report.render.run_html import result_table
from tinymem.report.tables.table import Table
from tinymem.results.collect import Results, results_of
from tinymem.results.model_columns import filled, recipe_columns
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord
from tinymem.runtime.files import write_text

OPEN = 8  # tables that are not folded


def write_html(record: RunRecord, out: Path) -> None:
    """Write the page of one run. The page loads nothing from the network, and equal records give equal bytes.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    results = results_of(_with_recipe(record), [record], (record.path,))
    figures, _ = figures_of(results)
    folder = f"{out.stem}-data"
    text = to_html(record, figures, folder)
    write_long_data(figures, out.parent / folder)
    write_text(out, text)


def _with_recipe(record: RunRecord) -> list[MeasuredRow]:
    """The rows of a run, with the columns that its recipe decides."""
    if record.recipe is None:
        return record.rows
    columns = recipe_columns(record.recipe)
    return [filled(row, columns) for row in record.rows]


def to_html(record: RunRecord, figures: Sequence[FigureData] = (), folder: str = "report-data") -> str:
    """The page of one run as text, with the figures that its rows allow."""
    links = sections.links(record)
    drawn = sections.figures(record, training_curve(record), change_scatter(record), figure_elements(figures, links, folder))
    parts = (
        summary.summary(record),
        _section("memorized", "What the model memorized", summary.headline(record)),
        _section("methods", "What each method changed", result_table(record)),
        _section("figures", "Figures", drawn),
        _section("reading", "How to read it", sections.reading(record)),
        _section("sources", "Sources", sections.sources(record)),
    )
    return _page(f"TinyMem report: {record.name}", "\n".join(parts))


def write_page(results: Results, tables: Sequence[Table], out: Path) -> list[Path]:
    """Write one page about any number of runs; parts that are too long for it go to files in `<out>-data/`. Returns the paths.

    Raises:
        UserError: matplotlib is not installed, or a file cannot be written.
    """
    figures, skipped = figures_of(results)
    folder = f"{out.stem}-data"
    wanted = [*_sources_of(tables), *(source for figure in figures for source in figure.sources)]
    rows = page_rows(results.by_source, wanted, folder)
    text = page_of_results(results, tables, figures, skipped, rows, folder)
    files = [*rows.write_files(out.parent), *write_long_data(figures, out.parent / folder)]
    write_text(out, text)
    return [out, *files]


def page_of_results(
    results: Results, tables: Sequence[Table], figures: Sequence[FigureData], skipped: Sequence[Skipped], rows: PageRows, folder: str
) -> str:
    """The page of many runs as text; `rows` lists the rows on it, `folder` holds the parts that are not."""
    links = rows.links
    drawn = (
        f'<div class="figures">\n{figure_elements(figures, links, folder)}\n</div>' if figures else "<p>There is nothing to draw yet.</p>"
    )
    parts = [
        ("tables", "Tables", _tables(tables, links)),
        ("figures", "Figures", drawn + skipped_list(skipped)),
        ("failures", "Without a result", overview.failures(results, links)),
        ("rows", "Rows", overview.rows_table_of(rows)),
        ("reading", "How to read it", sections.reading_of(results.rows, {})),
        ("sources", "Sources", overview.sources(rows, json_block)),
    ]
    kept = [(key, title, body) for key, title, body in parts if body]
    menu = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title, _ in kept)
    body = "\n".join(_section(*part) for part in kept)
    return _page(overview.title(results), f"{overview.summary(results)}\n<nav>{menu}</nav>\n{body}")


def _tables(tables: Sequence[Table], links: Mapping[str, str]) -> str:
    """All tables; after the first few they are folded."""
    shown = [to_html_table(table, link=links.get) for table in tables]
    for i, table in enumerate(tables[OPEN:], OPEN):
        shown[i] = f"<details><summary>{escape(table.title)}</summary>\n{shown[i]}</details>"
    return "\n".join(shown) or "<p>No table yet.</p>"


def _sources_of(tables: Sequence[Table]) -> list[str]:
    return [source for table in tables for source in table.sources]


def _section(key: str, title: str, body: str) -> str:
    return f'<h2 id="{key}">{escape(title)}</h2>\n{body}'


def _page(title: str, body: str) -> str:
    """The template filled in; the browser runs our script, by its hash, and no other."""
    read = resources.files("tinymem.report.page").joinpath
    script = read("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = Template(read("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body=body, script=script, script_hash=f"sha256-{digest}")
