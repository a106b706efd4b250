"""`tinymem train`: one recipe's model, or the runs of its matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import Device, Format, Jobs, ListOnly, Only, Overrides, Plugins, PrintJson, RecipeFile, Runs, Shard, load_plugins
from tinymem.cli.printing import chosen, listing, print_listing
from tinymem.errors import UserError
from tinymem.runtime.device import processes
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe
    from tinymem.runs.jobs import Failure

Mps = Annotated[bool, typer.Option("--mps", help="Let the processes of a GPU run side by side, through NVIDIA's MPS.")]


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    only: Only = None,
    shard: Shard = None,
    list_runs: ListOnly = False,
    jobs: Jobs = None,
    mps: Mps = False,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Generate data and train only; prints each checkpoint's folder. A recipe with a matrix trains all of its runs.

    Several GPUs train one run together as `torchrun --nproc-per-node 2 -m tinymem train RECIPE`.
    """
    from tinymem.recipe.matrix import pick
    from tinymem.recipe.recipe import load_matrix

    output = chosen(output, json)
    load_plugins(plugin)
    recipes = load_matrix(recipe, overrides)
    picked = pick(recipes, only or (), shard)
    if list_runs:
        _list(picked, runs, output)
    elif len(picked) > 1 and processes()[1] > 1:
        raise UserError(f"expected one run under torchrun, whose processes train it together, got {len(picked)}; pick one with --only")
    elif len(picked) == 1:
        _train_here(picked[0], runs, device)
    else:
        _train_many(recipe, overrides or [], picked, runs, device, jobs or 1, mps, plugin or [])


def _list(recipes: list[Recipe], runs: Path, output: str) -> None:
    from tinymem.runs.pipeline import is_trained

    trained = [is_trained(runs, recipe) for recipe in recipes]
    if output == "table":
        echo("\n".join(recipe.name for recipe in recipes))
    else:
        rows = [(recipe.name, recipe.run_id(), done) for recipe, done in zip(recipes, trained, strict=True)]
        print_listing(listing("Runs", ("name", "run", "trained"), rows), output)
    finished = sum(trained)
    echo(f"{counted(len(recipes), 'run')}, {finished} of them finished in {runs}", err=True)


def _train_here(recipe: Recipe, runs: Path, device: str) -> None:
    from tinymem.runs.pipeline import train_only
    from tinymem.runtime.progress import Progress

    first = processes()[0] == 0  # of torchrun's, it speaks for all
    made = train_only(recipe, runs=runs, device=device, progress=Progress(show=first))
    if first:
        echo(made.checkpoint)


def _train_many(
    recipe_file: Path, overrides: list[str], recipes: list[Recipe], runs: Path, device: str, jobs: int, mps: bool, plugins: list[Path]
) -> None:
    from tinymem.runs.jobs import train_many
    from tinymem.runs.pipeline import is_trained

    failures = train_many(recipe_file, overrides, recipes, runs=runs, device=device, jobs=jobs, mps=mps, plugins=plugins)
    for recipe in recipes:
        if is_trained(runs, recipe):
            echo(runs / recipe.run_id() / "checkpoint")
    if failures:
        _print_failures(failures, len(recipes), runs)
        raise typer.Exit(1)


def _print_failures(failures: list[Failure], count: int, runs: Path) -> None:
    from tinymem.runs.jobs import LOGS

    width = max(len(failure.name) for failure in failures)
    echo(f"\n{'failed':<{width}}  code  last words", err=True)
    for failure in failures:
        echo(f"{failure.name:<{width}}  {failure.code:>4}  {failure.reason}", err=True)
    failed = f"{len(failures)} of {counted(count, 'run')} failed"
    echo(f"tinymem: {failed}, see {runs / LOGS}; the same command tries them again", err=True)
