"""Self-contained HTML pages: of one run, and of any number of runs and sweeps. Numbers, figures, and the source of every number."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from tinymem.report.cells import labels_by_id
from tinymem.report.figures.catalogue import figures_of
from tinymem.report.figures.figure import FigureData, Skipped
from tinymem.report.page.about import about_results, about_run, reading_of, section, title_of
from tinymem.report.page.cards import cards_of
from tinymem.report.page.figures import shown, write_long_data
from tinymem.report.page.listings import table_of_failures, table_of_page_rows
from tinymem.report.page.outcome import best_first, outcome_of
from tinymem.report.page.rows import PageRows, blocks, page_rows
from tinymem.report.render.html import fill
from tinymem.report.render.shown import meaning
from tinymem.report.tables.of_rows import tables_of_run
from tinymem.report.tables.table import Table
from tinymem.results.collect import Results, results_of
from tinymem.results.run_folder import RunRecord
from tinymem.results.shown import ShownRow, read_shown
from tinymem.runtime.files import write_text
from tinymem.runtime.json import JsonObject
from tinymem.runtime.version import version_and_commit

OPEN = 8  # tables that are not folded
UNLIMITED = 10**12


@dataclass(frozen=True)
class Section:
    """A part of a page under its heading."""

    key: str
    title: str
    body: object


@dataclass(frozen=True)
class Page:
    """All that a page shows.

    Attributes:
        results: rows, trained models and curves.
        tables: of the report, or the one table of a run.
        figures: those that the rows allow.
        skipped: those that they do not, with reasons.
        rows: the rows whose JSON is on the page, or in files beside it.
        folder: name of the folder, beside the page, of what is too long for it.
    """

    results: Results
    tables: Sequence[Table]
    figures: Sequence[FigureData]
    skipped: Sequence[Skipped]
    rows: PageRows
    folder: str

    @property
    def links(self) -> Mapping[str, str]:
        """The one mapping from a row's source to the place of its JSON."""
        return self.rows.links

    def of_run(self, record: RunRecord) -> str:
        """The page of one run."""
        texts = [("Resolved recipe (recipe.yaml)", record.recipe_text)] if record.recipe_text else []
        asked, earlier = record.parts
        order = [*best_first(asked.rows), *best_first(earlier.rows)]
        shown = read_shown(record.path, list(labels_by_id(order).items()))
        sections = (
            *((("says", "What the model says", fill("shown.html", rows=shown, meaning=meaning(shown))),) if shown else ()),
            ("memorized", "What the model memorized", fill("cards.html", cards=cards_of(self.results, self.links))),
            ("methods", "What each method changed", self._tables("No method has been run on this model yet.", 1)),
            ("figures", "Figures", self._figures()),
            ("reading", "How to read it", self._reading(section(record.values, "evaluation"))),
            ("sources", "Sources", self._sources(texts)),
        )
        return _document(f"TinyMem report: {record.name}", about_run(record), sections, outcome_of(asked.rows))

    def of_results(self) -> str:
        """The page of many runs."""
        failures = table_of_failures(self.results)
        sections = (
            ("tables", "Tables", self._tables("No table yet.")),
            ("figures", "Figures", self._figures()),
            *((("failures", "Without a result", self._table(failures)),) if failures.rows else ()),
            ("rows", "Rows", self._table(table_of_page_rows(self.rows))),
            ("reading", "How to read it", self._reading({})),
            ("sources", "Sources", self._sources([])),
        )
        return _document(title_of(self.results), about_results(self.results), sections)

    def _tables(self, nothing: str, open: int = OPEN) -> str:
        """All tables; after the first few they are folded."""
        found = [table for table in self.tables if table.rows]
        return fill("tables.html", tables=found, links=self.links, open=open, nothing=nothing)

    def _table(self, table: Table) -> str:
        return fill("tables.html", tables=[table], links=self.links, open=OPEN, nothing="")

    def _figures(self) -> str:
        drawn = [shown(figure, self.links, self.folder) for figure in self.figures]
        return fill("figures.html", shown=drawn, skipped=self.skipped)

    def _reading(self, window: JsonObject) -> str:
        return fill("reading.html", entries=reading_of(self.results.rows, window))

    def _sources(self, texts: Sequence[tuple[str, str]]) -> str:
        files = [(name, len(kept)) for name, kept in self.rows.in_files.items()]
        return fill("sources.html", files=files, texts=texts, blocks=blocks(self.rows.embedded))


def write_html(record: RunRecord, out: Path) -> None:
    """Write the page of one run. The page loads nothing from the network, and equal records give equal bytes.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    text, figures, folder = run_page(record, f"{out.stem}-data")
    write_long_data(figures, out.parent / folder)
    write_text(out, text)


def run_page(record: RunRecord, folder: str = "report-data") -> tuple[str, list[FigureData], str]:
    """The page of one run as text, its figures, and the name of the folder for what is too long for it."""
    results = results_of(record.filled_rows, [record], (record.path,))
    figures, _ = figures_of(results)
    rows = page_rows({row.source: row for row in record.rows}, (), folder, UNLIMITED)
    tables = tables_of_run(replace(record, rows=best_first(record.rows)))
    return Page(results, tables, figures, (), rows, folder).of_run(record), figures, folder


def write_page(results: Results, tables: Sequence[Table], out: Path) -> list[Path]:
    """Write one page about any number of runs; parts that are too long for it go to files in `<out>-data/`. Returns the paths.

    Raises:
        UserError: matplotlib is not installed, or a file cannot be written.
    """
    figures, skipped = figures_of(results)
    folder = f"{out.stem}-data"
    wanted = [*(source for table in tables for source in table.sources), *(source for figure in figures for source in figure.sources)]
    rows = page_rows(results.by_source, wanted, folder)
    text = Page(results, tables, figures, skipped, rows, folder).of_results()
    files = [*rows.write_files(out.parent), *write_long_data(figures, out.parent / folder)]
    write_text(out, text)
    return [out, *files]


def tables_page(tables: Sequence[Table]) -> str:
    """Tables alone as a page, without the rows behind their numbers."""
    title = tables[0].title if tables else "No table"
    body = fill("tables.html", tables=tables, links={}, open=len(tables), nothing="No rows.")
    return _document(title, {}, [("tables", "Tables", body)])


def page_of_shown(rows: Sequence[ShownRow], notes: Sequence[str], title: str) -> str:
    """A page of what models say, and of nothing else."""
    about = {"Notes": " ".join(notes), "Page": f"TinyMem {version_and_commit()}"}
    return _document(title, about, (("says", "What the model says", fill("shown.html", rows=rows, meaning=meaning(rows))),))


def _document(title: str, about: Mapping[str, str], sections: Sequence[tuple[str, str, str]], sentence: str = "") -> str:
    """The template filled in; the browser runs our script, by its hash, and no other."""
    from markupsafe import Markup

    script = resources.files("tinymem.report.page").joinpath("templates", "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown = [Section(key, title, Markup(body)) for key, title, body in sections]
    return fill(
        "page.html", title=title, about=about, sentence=sentence, sections=shown, script=Markup(script), script_hash=f"sha256-{digest}"
    )
