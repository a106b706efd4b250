"""`tinymem run`: corpus, training, mitigations and report of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tinymem.cli.options import Device, Format, Overrides, Plugins, PrintJson, RecipeFile, Runs, load_plugins
from tinymem.cli.printing import chosen, print_rows
from tinymem.errors import complain
from tinymem.runtime.streams import echo

if TYPE_CHECKING:
    from tinymem.results.row import MeasuredRow


def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Generate data, train, mitigate and report. Run again, it goes on from where it is."""
    from tinymem.recipe.recipe import load_recipe
    from tinymem.runs.pipeline import run as run_recipe
    from tinymem.runtime.progress import Progress

    output = chosen(output, json)
    load_plugins(plugin)
    made = run_recipe(load_recipe(recipe, overrides), runs=runs, device=device, progress=Progress(show=True))
    page = made.path / "report.html"
    print_rows(made.path, output)
    if page.is_file() and output != "html":
        echo(f"\n{page}", err=output != "table")
    _fail_if_failed(made.rows)
    if not page.is_file():
        raise typer.Exit(complain(f"no page at {page}: the warning above says why; the same command tries again", 1))


def _fail_if_failed(rows: list[MeasuredRow]) -> None:
    failed = sorted({row.method for row in rows if row.status == "failed"})
    if failed:
        raise typer.Exit(complain(f"failed: {', '.join(failed)}; the table says why; the same command tries them again", 1))
