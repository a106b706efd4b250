"""`tinymem check`: does a run give the numbers that were stored?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import Format, Plugins, PrintJson, load_plugins
from tinymem.cli.printing import check_out, chosen, listing, print_json, print_listing
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
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
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Compare a run's rows with stored ones. Exit code 1 if a value lies outside its tolerance or a row is missing."""
    from tinymem.report.check import compare, read_golden, write_golden
    from tinymem.report.tolerance import parse_rules, refuse_unused
    from tinymem.results.collect import load_results

    output = chosen(output, json)
    load_plugins(plugin)
    if (against is None) == (write is None):
        raise UserError("expected --against FILE or --write FILE, " + ("got both" if against else "got neither"))
    if write is not None and tolerance:
        raise UserError("expected --tolerance with --against, got --write; leave it out")
    check_out(write, "json", "--write")
    rules = parse_rules(tolerance or [])
    rows = load_results([run]).rows
    if not rows:
        raise UserError(f"expected result rows in {run}, found none; run the recipe's mitigations first")
    if write is not None:
        echo(f"{write}: {counted(write_golden(write, rows), 'row')} of {run}")
        return
    assert against is not None
    stored, own = read_golden(against)
    comparison = compare(stored, rows, (*own, *rules))
    refuse_unused(rules, comparison.columns)
    _print(comparison, output)
    if comparison.differences:
        raise typer.Exit(1)


HEADS = ("method", "artifact", "column", "stored", "found", "tolerance")


def _print(comparison: Comparison, output: str) -> None:
    extra = f"; {counted(comparison.extra, 'row')} of the run not stored" if comparison.extra else ""
    outside = f"{len(comparison.differences)} outside tolerance{extra}"
    said = f"{counted(comparison.rows, 'row')}, {counted(comparison.values, 'value')} compared, {outside}"
    found = [(d.label, d.row.artifact, d.column, d.stored, d.found, str(d.tolerance)) for d in comparison.differences]
    if output == "json":
        counts = {"rows": comparison.rows, "values": comparison.values, "rows_not_stored": comparison.extra}
        print_json({**counts, "differences": [dict(zip(HEADS, values, strict=True)) for values in found]})
    elif found or output != "table":
        shown = [(*values[:3], *map(_as_text, values[3:5]), values[5]) for values in found]
        print_listing(listing("Outside tolerance", HEADS, shown, notes=[said]), output)
    else:
        echo(said)


def _as_text(value: Json) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "–" if value is None else str(value)
