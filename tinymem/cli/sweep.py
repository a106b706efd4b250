"""`tinymem sweep`: many runs of mitigations, that survive anything."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinymem.cli.options import Device, DryRun, Format, Jobs, ListOnly, Only, Out, Overrides, Plugins, PrintJson, Runs, Shard, load_plugins
from tinymem.cli.printing import chosen
from tinymem.cli.sweep_plan import print_estimate, print_fates, print_outcomes, print_plan
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.recipe.sweep import SweepRecipe
    from tinymem.sweep.run import Engine, Sweep

Recipes = Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="YAML recipes of sweeps; see recipes/sweep-quickstart.yaml.")]
SEARCH = "Search by M - P instead of running all: each method's grid, or `best`, each model's best among all methods."
Project = Annotated[Path | None, typer.Option(metavar="PLACE", help="Hours of all runs, from rows that were measured there.")]


def sweep(
    recipes: Recipes,
    overrides: Overrides = None,
    only: Only = None,
    shard: Shard = None,
    list_runs: ListOnly = False,
    status: Annotated[bool, typer.Option("--status", help="Say what each method's runs came to and why some have no result.")] = False,
    dry_run: DryRun = False,
    project: Project = None,
    search: Annotated[Literal["halving", "best"] | None, typer.Option(help=SEARCH)] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed and stopped runs again.")] = False,
    jobs: Jobs = None,
    engine: Annotated[Literal["local", "parsl"], typer.Option(help="parsl: on a cluster, as --config says.")] = "local",
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A Python file with a Parsl `config`; see recipes/cluster/.")] = None,
    out: Out = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Run checkpoints x methods x grids x seeds. Kill it, start it again, start it twice: no run is lost or done again.

    --out is the folder of the sweep, sweeps/<name> by default; --only names methods, or columns of models and options: n_layer=4.
    """
    from tinymem.recipe.sweep import load_sweep

    output = chosen(output, json)
    load_plugins(plugin)
    if config is not None and engine != "parsl":
        raise UserError(f"expected --engine parsl with --config {config}, got --engine {engine}; leave one out")
    if project is not None and not project.exists():
        raise UserError(f"expected a sweep, a run or a file of rows for --project, found none at {project}; check the path")
    if out is not None and out.is_file():
        raise UserError(f"expected a folder for --out, got the file {out}; name another")
    overrides = [*(overrides or []), *([f"search={search}"] if search else [])]
    loaded = [load_sweep(recipe, overrides) for recipe in recipes]
    if out is not None and len(loaded) > 1:
        raise UserError(f"expected one recipe with --out, got {len(loaded)}; each has a folder of its own")
    plan_only = list_runs or status or dry_run or project is not None
    place = _place(device, engine, max(recipe.gpus for recipe in loaded), plan_only=plan_only)
    planned = (_open(recipe, out, runs, place, only, shard, plugin, fetch=not plan_only) for recipe in loaded)
    if list_runs or status:
        print_plan(planned, output, status=status)
    elif dry_run or project is not None:
        print_estimate(planned, place, project, output)
    else:
        made = _engine(engine, config, place, jobs)
        failed, done = 0, list[tuple["Sweep", Counter[str]]]()
        for one in planned:
            statuses = _run(one, made, retry_failed, output)
            done.append((one, statuses))
            failed += _failed(one, statuses) + _localize(one, place, engine, only, shard)
        if output != "table":
            print_outcomes(done, output)
        if failed:
            raise typer.Exit(1)


def _place(device: str, engine: str, gpus: int, *, plan_only: bool) -> str:
    """The resolved device, with as many GPUs as a model is spread over; where nothing runs here (a plan, a login node) none is checked.

    A model that is spread runs on GPUs, whether there are any here or not.
    """
    from tinymem.runtime.device import resolve_device

    elsewhere = plan_only or engine == "parsl"
    if elsewhere and device == "auto" and gpus > 1:
        return "cuda"
    if elsewhere and device.startswith("cuda"):
        return device
    return resolve_device(device, 1 if elsewhere else gpus)


def _open(
    recipe: SweepRecipe,
    out: Path | None,
    runs: Path,
    place: str,
    only: list[str] | None,
    shard: str | None,
    plugin: list[Path] | None,
    *,
    fetch: bool,
) -> Sweep:
    from tinymem.runs.localization_stage import check_localization
    from tinymem.sweep.run import open_sweep

    check_localization(recipe.localization)
    folder = out or Path("sweeps") / recipe.name
    return open_sweep(
        recipe, out=folder, runs=runs, device_type=place.partition(":")[0], only=only or (), shard=shard, plugins=plugin or (), fetch=fetch
    )


def _engine(name: str, config: Path | None, place: str, jobs: int | None) -> Engine:
    if name == "parsl":
        from tinymem.sweep.cluster import parsl_engine

        if config is None:
            raise UserError("expected --config with --engine parsl, a Python file with a Parsl `config`; recipes/cluster/ has examples")
        return parsl_engine(config, place)
    from tinymem.sweep.run import local_engine

    return local_engine(place, jobs)


def _localize(one: Sweep, place: str, engine: str, only: list[str] | None, shard: str | None) -> int:
    """Run the section `localization`; returns how many models could not be asked."""
    from tinymem.results.localization import MODELS

    if one.recipe.localization is None:
        (one.folder / MODELS).unlink(missing_ok=True)  # of an earlier recipe: nothing is left of it to wait for
        return 0
    from tinymem.runs.sweep_localization import left_to_localize, localize_models
    from tinymem.runtime.progress import Progress

    if only or engine == "parsl":
        if left := left_to_localize(one):
            option, here = ("--only", "") if engine == "local" else ("--engine parsl", " on this machine")
            echo(
                f"left aside: localization in {counted(left, 'model')}, which {option} does not take; "
                f'the same command without it and with --set "methods=[]" asks for it{here}',
                err=True,
            )
        return 0

    wrong = localize_models(one, device=place, shard=shard, progress=Progress(show=True))
    for line in wrong:
        echo(f"tinymem: {line}", err=True)
    return len(wrong)


def _run(one: Sweep, engine: Engine, retry_failed: bool, output: str) -> Counter[str]:
    """Run a sweep, and print what it came to unless another format than lines is printed at the end; returns its runs by status."""
    from tinymem.report.configuration import row_scores
    from tinymem.runtime.progress import Progress
    from tinymem.sweep.contest import search
    from tinymem.sweep.run import run_sweep

    progress = Progress(show=True)
    if not one.recipe.methods:
        return Counter()
    if one.recipe.search:
        statuses = search(one, engine, row_scores, retry_failed=retry_failed, progress=progress)
    else:
        statuses = run_sweep(one, engine, retry_failed=retry_failed, progress=progress)
    if output != "table":
        return statuses
    if one.recipe.search:
        print_fates(one)
    echo(f"{one.folder}: {counted(statuses.total(), 'run')}: " + ", ".join(f"{n:,} {status}" for status, n in sorted(statuses.items())))
    for reason in one.reasons():
        echo(f"  {reason}")
    return statuses


def _failed(one: Sweep, statuses: Counter[str]) -> int:
    """The number of failed runs, of which standard error is told."""
    from tinymem.results.store import FAILED, FAILURES

    failed = sum(statuses[status] for status in FAILED)
    if failed:
        echo(f"tinymem: {counted(failed, 'run')} failed, see {one.folder / FAILURES}; --retry-failed tries them again", err=True)
    return failed
