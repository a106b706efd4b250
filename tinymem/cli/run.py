"""`tinymem run`: corpus, training, mitigations and report of a recipe, or of all runs of its matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tinymem.cli.many import end_with, print_dry_run, print_runs
from tinymem.cli.options import (
    Device,
    DryRun,
    Format,
    Jobs,
    ListOnly,
    Mps,
    Only,
    Overrides,
    Plugins,
    PrintJson,
    RecipeFile,
    Runs,
    Shard,
    load_plugins,
)  # fmt: skip
from tinymem.cli.printing import chosen, print_record, print_tables_as
from tinymem.errors import complain
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe
    from tinymem.results.row import MeasuredRow
    from tinymem.results.run_folder import RunRecord

FEW = 3
"""Names of methods that a line can hold."""


def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    only: Only = None,
    shard: Shard = None,
    list_runs: ListOnly = False,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    mps: Mps = False,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Generate data, train, mitigate and report, of a matrix all of its runs. Run again, it goes on from where it is."""
    from tinymem.recipe.matrix import pick
    from tinymem.recipe.recipe import load_matrix

    output = chosen(output, json)
    load_plugins(plugin)
    picked = pick(load_matrix(recipe, overrides), only or (), shard)
    if list_runs:
        print_runs(picked, runs, device, output, whole=True)
    elif dry_run:
        print_dry_run(picked, runs, device, output, whole=True)
    elif len(picked) == 1:
        _run_here(picked[0], runs, device, output)
    else:
        from tinymem.runs.jobs import do_many  # reads torch, for which nobody should wait to hear of a misspelled name

        failures = do_many("run", recipe, overrides or [], picked, runs=runs, device=device, jobs=jobs or 1, mps=mps, plugins=plugin or ())
        _print_together(picked, recipe.stem, runs, output)
        end_with(failures, len(picked), runs)


def _run_here(recipe: Recipe, runs: Path, device: str, output: str) -> None:
    from tinymem.results.run_folder import load_run
    from tinymem.runs.pipeline import run as run_recipe
    from tinymem.runtime.progress import Progress

    made = run_recipe(recipe, runs=runs, device=device, progress=Progress(show=True))
    page, (asked, earlier) = made.path / "report.html", load_run(made.path).parts
    if output == "html":
        echo(page)
    else:
        print_record(asked, output)
        echo(f"\n{page}", err=output != "table")
    _say_what_is_earlier(earlier, output)
    _fail_if_failed(asked.rows)
    if not page.is_file():
        raise typer.Exit(complain(f"no page at {page}: the warning above says why; the same command tries again", 1))


def _print_together(recipes: Sequence[Recipe], name: str, runs: Path, output: str) -> None:
    """Print the rows of all runs, a table with the run in each line, and write one page about them."""
    from tinymem.report.tables.of_rows import table_of_rows
    from tinymem.results.run_folder import RunRecord, load_run
    from tinymem.runs.report_stage import report_of_runs

    folders = [(recipe, runs / recipe.run_id()) for recipe in recipes]
    there = [(recipe, load_run(folder, needs_results=False)) for recipe, folder in folders if folder.is_dir()]
    found = [(recipe, row) for recipe, record in there for row in record.parts[0].rows]
    rows = [row for _, row in found]
    page = report_of_runs([folder for _, folder in folders], runs / f"{name}.html") if rows else None
    if output == "html" or not rows:
        echo(page or "no run has results")
    elif output in ("json", "csv"):
        print_record(RunRecord(runs / name, rows, []), output)
    else:
        print_tables_as([table_of_rows(rows, name, [recipe.name for recipe, _ in found])], output, None)
    if page and output != "html":
        echo(f"\n{page}", err=output != "table")


def _say_what_is_earlier(earlier: RunRecord, output: str) -> None:
    """Say how many results of earlier recipes the folder holds, which are not printed, and how to see them."""
    methods = sorted({row.method for row in earlier.rows})
    if methods:
        results = counted(len({row.id for row in earlier.rows}), "result")
        names = ", ".join(methods) if len(methods) <= FEW else counted(len(methods), "method")
        how = f"`tinymem report {earlier.path}` does"
        echo(f"not shown: {results} of earlier recipes on the same weights ({names}); {how}", err=output != "table")


def _fail_if_failed(rows: list[MeasuredRow]) -> None:
    failed = sorted({row.method for row in rows if row.status == "failed"})
    if failed:
        raise typer.Exit(complain(f"failed: {', '.join(failed)}; the table says why; the same command tries them again", 1))
