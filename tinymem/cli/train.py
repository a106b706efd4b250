"""`tinymem train`: one recipe's model, or the runs of its matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
)
from tinymem.cli.printing import chosen
from tinymem.errors import UserError
from tinymem.runtime.device import processes
from tinymem.runtime.streams import echo

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe


def train(
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
        print_runs(picked, runs, device, output, whole=False)
        return
    if dry_run:
        print_dry_run(picked, runs, device, output, whole=False)
        return
    if processes()[0] == 0:
        _say_what_is_left_aside(recipes)
    if len(picked) > 1 and processes()[1] > 1:
        raise UserError(f"expected one run under torchrun, whose processes train it together, got {len(picked)}; pick one with --only")
    elif len(picked) == 1:
        _train_here(picked[0], runs, device)
    else:
        from tinymem.runs.jobs import do_many
        from tinymem.runs.pipeline import is_trained

        failures = do_many(
            "train", recipe, overrides or [], picked, runs=runs, device=device, jobs=jobs or 1, mps=mps, plugins=plugin or ()
        )
        for one in picked:
            if is_trained(runs, one):
                _print_checkpoints(one, runs)
        end_with(failures, len(picked), runs)


def _say_what_is_left_aside(recipes: list[Recipe]) -> None:
    """Name the sections of the recipe that training does not read."""
    from tinymem.recipe.evaluation import Evaluation

    there = {
        "mitigation": any(recipe.mitigation.methods for recipe in recipes),
        "evaluation.metrics": any(recipe.evaluation.metrics != Evaluation().metrics for recipe in recipes),
        "evaluation.ks": any(recipe.evaluation.ks for recipe in recipes),
    }
    if names := [name for name, given in there.items() if given]:
        echo(f"left aside: {', '.join(names)}, which `tinymem run` does", err=True)


def _train_here(recipe: Recipe, runs: Path, device: str) -> None:
    from tinymem.runs.pipeline import train_only
    from tinymem.runtime.progress import Progress

    first = processes()[0] == 0  # of torchrun's, it speaks for all
    train_only(recipe, runs=runs, device=device, progress=Progress(show=first))
    if first:
        _print_checkpoints(recipe, runs)


def _print_checkpoints(recipe: Recipe, runs: Path) -> None:
    for one in (recipe, recipe.counterfactual_recipe()):
        if one is not None:
            echo(runs / one.run_id() / "checkpoint")
