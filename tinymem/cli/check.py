"""`tinymem check`: does a run give the numbers that were stored?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.errors import UserError
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.report.check import Comparison
    from tinymem.runtime.json import Json


def check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's or sweep's folder.")],
    against: Annotated[Path | None, typer.Option(metavar="FILE", help="Stored rows to compare with.")] = None,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Store the rows here instead.")] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=AMOUNT", help="As in 'memorized_*=0.1' or 'perplexity_*=5%'; the last fit holds."),
    ] = None,
) -> None:
    """Compare a run's rows with stored ones. Exit code 1 if a value lies outside its tolerance or a row is missing."""
    from tinymem.report.check import compare, read_golden, write_golden
    from tinymem.report.tolerance import parse_rules
    from tinymem.results.collect import load_results

    if (against is None) == (write is None):
        raise UserError("expected --against FILE or --write FILE, " + ("got both" if against else "got neither"))
    rules = parse_rules(tolerance or [])
    rows = load_results([run]).rows
    if not rows:
        raise UserError(f"expected result rows in {run}, found none; run the recipe's mitigations first")
    if write is not None:
        print(f"{write}: {counted(write_golden(write, rows), 'row')} of {run}")
        return
    assert against is not None
    stored, own = read_golden(against)
    comparison = compare(stored, rows, (*own, *rules))
    _print(comparison)
    if comparison.differences:
        raise typer.Exit(1)


def _print(comparison: Comparison) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else 140
    if comparison.differences:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for name in ("method", "artifact", "column", "stored", "found", "tolerance"):
            table.add_column(name, justify="right" if name in ("stored", "found", "tolerance") else "left", overflow="fold")
        for d in comparison.differences:
            table.add_row(d.label, d.row.artifact, d.column, _as_text(d.stored), _as_text(d.found), str(d.tolerance))
        console.print(table)
    extra = f"; {counted(comparison.extra, 'row')} of the run not stored" if comparison.extra else ""
    outside = f"{len(comparison.differences)} outside tolerance{extra}"
    console.print(f"{counted(comparison.rows, 'row')}, {counted(comparison.values, 'value')} compared, {outside}")


def _as_text(value: Json) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "–" if value is None else str(value)
