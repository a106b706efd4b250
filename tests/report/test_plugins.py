"""Tables and figures of a user's own: registered by a plugin's file, they are in the report like ours, in every format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import tinymem
from report_rows import make_row, write_results

from tinymem.errors import UserError
from tinymem.registry import load_plugin
from tinymem.report.figures.catalogue import ORDER as FIGURE_ORDER
from tinymem.report.figures.catalogue import figures_of
from tinymem.report.figures.registry import FIGURES
from tinymem.report.tables.catalogue import ORDER, tables_of
from tinymem.report.tables.registry import TABLES
from tinymem.results.collect import load_results

OWN = """
from tinymem import report_figure, report_table
from tinymem.report.figures.figure import FigureData, Skipped
from tinymem.report.tables.table import Cell, Column, Table

def draw(lines):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().bar([line["method"] for line in lines], [line["memorized"] for line in lines])
    return figure

@report_table("slowest")
def slowest(inputs):
    points = [(method, group.best("noise", method).sources) for group in inputs.groups for method in group.methods()]
    rows = tuple((Cell(method), Cell("7.5", value=7.5, sources=sources)) for method, sources in points)
    return [Table(NAME, "slowest", "Slowest", (Column("method", numeric=False), Column("seconds")), rows)]

@report_figure("bars")
def bars(inputs):
    lines = [{"method": p.method, "memorized": p.memorized, "sources": p.sources} for p in inputs.points]
    return [FigureData("bars", "Bars", "Bars of my own.", lines, draw)] if lines else [Skipped("bars", "Bars", "needs results")]
"""

HEAD = "from tinymem import report_figure, report_table\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """The plugin's file."""
    path = tmp_path / "own.py"
    path.write_text(OWN.replace("NAME", '"slowest"'))
    with TABLES.temporary(), FIGURES.temporary():
        yield path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows of two methods."""
    return write_results(tmp_path / "r", [make_row("act"), make_row("zero", after=3)])


def test_the_built_in_ones_are_all_in_order() -> None:
    assert set(TABLES.names()) == set(ORDER) and set(FIGURES.names()) == set(FIGURE_ORDER)


@pytest.mark.slow
def test_a_table_and_a_figure_of_ones_own(own: Path, folder: Path, tmp_path: Path) -> None:
    assert "expected tables of variants, 1, 2, 3" in tinymem("report", folder, "--tables", "slowest").one_line_error()
    for format, words in {"table": "Slowest", "markdown": "| act | 7.5 |", "latex": "act & 7.5", "csv": "slowest,"}.items():
        assert words in tinymem("report", folder, "--plugin", own, "--tables", "slowest", "--format", format).out
    names = [
        table["name"]
        for table in json.loads(tinymem("report", folder, "--plugin", own, "--tables", "all", "--format", "json").out)["tables"]
    ]
    assert names[-1] == "slowest" and names[:-1] == [name for name in ORDER if name in names]
    assert tinymem("report", folder, "--plugin", own, "--out", tmp_path / "all").code == 0
    assert {"slowest.csv"} <= {path.name for path in (tmp_path / "all").iterdir()}
    assert {"bars.png", "bars.svg", "bars.csv", "bars.json"} <= {path.name for path in (tmp_path / "all" / "figures").iterdir()}
    page = (tmp_path / "all" / "report.html").read_text()
    assert "Slowest" in page and "Bars of my own." in page


def test_a_table_must_have_its_name(own: Path, folder: Path) -> None:
    own.write_text(OWN.replace("NAME", '"fastest"'))
    load_plugin(own)
    with pytest.raises(UserError, match=r"expected tables named slowest of .*own\.py:slowest, got 'fastest'"):
        tables_of(load_results([folder]), ["slowest"])


def test_what_is_no_table_or_figure_is_said(own: Path, folder: Path) -> None:
    own.write_text(f"{HEAD}@report_table('none')\ndef none(inputs): pass\n@report_figure('empty')\ndef empty(inputs): return [1]\n")
    load_plugin(own)
    with pytest.raises(UserError, match=r"expected a list of Table of .*own\.py:none, got NoneType; return \[Table"):
        tables_of(load_results([folder]), ["none"])
    with pytest.raises(UserError, match=r"expected a list of FigureData or Skipped of .*own\.py:empty, got \[1\]; return one"):
        figures_of(load_results([folder]))


def test_a_figure_may_be_yielded(own: Path, folder: Path) -> None:
    drawn = OWN.replace("return [FigureData", "yield from [FigureData").replace("NAME", '"slowest"')
    assert "yield from" in drawn
    own.write_text(drawn)
    load_plugin(own)
    assert "bars" in [figure.key for figure in figures_of(load_results([folder]))[0]]


def test_a_plugin_that_fails_is_named_with_its_line(own: Path, folder: Path) -> None:
    own.write_text(f"{HEAD}@report_table('none')\ndef none(inputs): return [][1]\n")
    said = tinymem("report", folder, "--plugin", own, "--tables", "none").one_line_error()
    assert said == "a plugin failed (own.py, line 3): IndexError: list index out of range"


def test_names_of_ours_are_taken(own: Path) -> None:
    assert TABLES.names()
    own.write_text(OWN.replace("NAME", '"best"').replace('report_table("slowest")', 'report_table("best")'))
    with pytest.raises(UserError, match="table 'best' is registered already"):
        load_plugin(own)
