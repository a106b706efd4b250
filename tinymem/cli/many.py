"""What `tinymem run` and `tinymem train` say of many runs: their list, what would be done, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tinymem.cli.printing import listing, print_listing
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted, duration, size

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe
    from tinymem.runs.jobs import Failure

DRY = ("run", "to do", "time", "disk")


def print_runs(recipes: Sequence[Recipe], runs: Path, output: str) -> None:
    """Print the names of a recipe's runs, and how many of them are trained."""
    from tinymem.runs.pipeline import is_trained

    trained = [is_trained(runs, recipe) for recipe in recipes]
    if output == "table":
        echo("\n".join(recipe.name for recipe in recipes))
    else:
        rows = [(recipe.name, recipe.run_id(), done) for recipe, done in zip(recipes, trained, strict=True)]
        print_listing(listing("Runs", ("name", "run", "trained"), rows), output)
    echo(f"{counted(len(recipes), 'run')}, {sum(trained)} of them finished in {runs}", err=True)


def print_dry_run(recipes: Sequence[Recipe], runs: Path, device: str, output: str, *, whole: bool) -> None:
    """Print what each run would do, for how long and with how much disk; `whole`: mitigations too."""
    from tinymem.report.tables.table import Cell
    from tinymem.runs.dry_run import estimate
    from tinymem.runtime.device import describe_device, resolve_device

    place = resolve_device(device)
    found = estimate(recipes, runs, place, whole=whole)
    rows = [
        (one.run, ", ".join(one.steps) or "nothing", Cell(duration(one.seconds), value=one.seconds), Cell(size(one.bytes), value=one.bytes))
        for one in found
    ]
    seconds, needed = sum(one.seconds for one in found), sum(one.bytes for one in found)
    notes = [
        f"{counted(len(found), 'run')}: about {duration(seconds)} on {describe_device(place)}, one at a time; {size(needed)} of disk. "
        "Nothing was done.",
        "Times are guesses from a probe of this machine's speed; a text that must be fetched or cut into tokens takes time of its own.",
    ]
    print_listing(listing("What would be done", DRY, rows, notes=notes), output)


def end_with(failures: Sequence[Failure], count: int, runs: Path) -> None:
    """Print the runs that failed, and why; ends the command with exit code 1 if there are any."""
    from tinymem.runs.jobs import LOGS

    if not failures:
        return
    width = max(len(failure.name) for failure in failures)
    echo(f"\n{'failed':<{width}}  code  last words", err=True)
    for failure in failures:
        echo(f"{failure.name:<{width}}  {failure.code:>4}  {failure.reason}", err=True)
    failed = f"{len(failures)} of {counted(count, 'run')} failed"
    echo(f"tinymem: {failed}, see {runs / LOGS}; the same command tries them again", err=True)
    raise typer.Exit(1)
