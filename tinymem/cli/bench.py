"""`tinymem bench`: timings of TinyMem's code against plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinymem.cli.options import Device, PrintJson, Way, Ways

bench_app = typer.Typer(help="Timings of methods and of training.", no_args_is_help=True)


@bench_app.callback()
def _bench() -> None:
    """Timings beside plain loops."""


@bench_app.command()
def unlearn(
    scale: Annotated[float, typer.Option(min=0.001, help="Times the rows (200 to forget, 27,000 to keep) and Greedy's steps.")] = 1.0,
    methods: Annotated[str, typer.Option(help="Names with commas between, or all. Default: those with a plain loop.")] = "",
    device: Device = "auto",
    rows: Annotated[int, typer.Option(min=4, help="Forget rows that the slow plain loops run on.")] = 4,
    plain: Annotated[bool, typer.Option("--plain/--no-plain", help="Whether to run the plain loops.")] = True,
) -> None:
    """Seconds and peak memory of each method on the paper's 4-layer math model."""
    from tinymem.bench.unlearn import print_bench

    print_bench(scale=scale, methods=[name for name in methods.split(",") if name], device=device, rows=rows, plain=plain)


@bench_app.command()
def train(
    device: Device = "auto",
    case: Annotated[list[str] | None, typer.Option(help="math-2, -4, -8, -16, language-2, -4, -8 or -16; may be repeated.")] = None,
    way: Ways = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each.")] = 50,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 128,
    json: PrintJson = False,
) -> None:
    """Milliseconds, tokens and floating-point operations of a training step, beside transformers GPT-2.

    --case and --way may be repeated; `bench hours` reads what --json prints.
    """
    from dataclasses import asdict
    from json import dumps

    from tinymem.bench.train import DEFAULT_CASES, bench, default_ways
    from tinymem.runtime.device import resolve_device

    place = resolve_device(device)

    def say(text: str) -> None:
        typer.echo(text, err=json)

    timings = bench(case or list(DEFAULT_CASES), way or default_ways(place), device=place, steps=steps, rows=rows, say=say)
    if json:
        typer.echo("\n".join(dumps(asdict(timing)) for timing in timings))


@bench_app.command()
def hours(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Recipes, each with all runs of its matrix.")],
    times: Annotated[Path, typer.Option(help="Output of `tinymem bench train --json`, from the GPU that is to train.")],
    way: Way = "ours",
) -> None:
    """GPU-hours that the runs of recipes will take, from measured milliseconds a step: those of --way ours or graph."""
    from tinymem.bench.hours import project, read_times, table

    print(table(project(recipes, read_times(times, way))))
