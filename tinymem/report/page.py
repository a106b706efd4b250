"""One self-contained HTML page per run: numbers, figures, and the source of every number."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from string import Template

from tinymem.files import write_text
from tinymem.report import sections, summary
from tinymem.report.cells import escape
from tinymem.report.figures import change_scatter, training_curve
from tinymem.report.html_table import result_table
from tinymem.report.rows import RunRecord


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
