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

LIST, DRY = ("name", "run", "state", "left", "measured again"), ("run", "to do", "time", "disk")


def print_runs(recipes: Sequence[Recipe], runs: Path, device: str, output: str, *, whole: bool) -> None:
    """Print a recipe's runs, each with the name of its folder and what is left of it; `whole`: of mitigations too."""
    from tinymem.runs.dry_run import left_of_all
    from tinymem.runtime.device import resolve_device

    found = left_of_all(recipes, runs, resolve_device(device), whole=whole)
    steps = [", ".join(left.steps()) for left in found]
    rows = [
        (left.recipe.name, left.recipe.run_id(), "waiting" if words else "done", words or "nothing", left.why)
        for left, words in zip(found, steps, strict=True)
    ]
    notes = [f"{counted(len(rows), 'run')}, {sum(not words for words in steps)} done in {runs}. Nothing was done now."]
    print_listing(listing("Runs", LIST, rows, notes=notes), output)


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
        *(f"{one.run}: again: {one.why}" for one in found if one.why),
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
