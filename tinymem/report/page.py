"""One self-contained HTML page per run: numbers, figures, and the source of every number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from tinymem.files import write_text
from tinymem.report import sections, summary
from tinymem.report.cells import escape
from tinymem.report.figures import change_scatter, training_curve
from tinymem.report.html_table import result_table
from tinymem.report.render_html import row_link
from tinymem.report.render_html import to_html as to_html_table
from tinymem.report.results import Results
from tinymem.report.rows import RunRecord
from tinymem.report.table import Table, anchor


def write_html(record: RunRecord, out: Path) -> None:
    """Write the page. It asks nothing of the network, and equal records give equal bytes.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    write_text(out, to_html(record))


def to_html(record: RunRecord) -> str:
    """The page as text."""
    template = Template(resources.files("tinymem.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"TinyMem report: {record.name}"),
        summary=summary.summary(record),
        headline=summary.headline(record),
        table=result_table(record),
        figures=sections.figures(training_curve(record), change_scatter(record)),
        reading=sections.reading(record),
        sources=sections.sources(record),
    )


def write_page(results: Results, tables: Sequence[Table], out: Path) -> None:
    """Write one page about any number of runs: their tables, and the rows that every number leads to.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(out, page_of_tables(results, tables))


def page_of_tables(results: Results, tables: Sequence[Table]) -> str:
    """The page as text; only rows that a table names are on it."""
    template = resources.files("tinymem.report").joinpath("page.html").read_text(encoding="utf-8")
    head, _, _ = template.partition("<main>")
    known = results.by_source
    used = dict.fromkeys(source for table in tables for source in table.sources)
    shown = "\n".join(to_html_table(table, link=lambda source: row_link(source) if source in known else None) for table in tables)
    rows = "\n".join(
        f'<details id="row-{anchor(source)}"><summary>{escape(source)}</summary>'
        f"<pre>{escape(json.dumps(known[source], indent=1, ensure_ascii=False))}</pre></details>"
        for source in used
    )
    title = "TinyMem report: " + ", ".join(folder.resolve().name for folder in results.folders)
    body = f"<main>\n<h1>{escape(title)}</h1>\n{shown}\n<h2>Sources</h2>\n{rows}\n</main>\n</body>\n</html>\n"
    return Template(head).substitute(title=escape(title)) + body
