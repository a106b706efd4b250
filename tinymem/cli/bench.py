"""`tinymem bench`: timings of TinyMem's code against plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinymem.cli.options import Device, Format, Methods, Plugins, PrintJson, Way, Ways, load_plugins, words
from tinymem.cli.printing import chosen, listing, print_listing
from tinymem.runtime.streams import echo

bench_app = typer.Typer(help="Timings of methods and of training.", no_args_is_help=True)


@bench_app.callback()
def _bench() -> None:
    """Timings beside plain loops."""


@bench_app.command()
def unlearn(
    scale: Annotated[
        float, typer.Option(min=0.001, metavar="TIMES", help="Times the rows (200 to forget, 27,000 to keep) and Greedy's steps.")
    ] = 1.0,
    methods: Methods = None,
    device: Device = "auto",
    rows: Annotated[int, typer.Option("--plain-rows", min=4, metavar="NUMBER", help="Forget rows that the slow plain loops run on.")] = 4,
    plain: Annotated[bool, typer.Option("--plain/--no-plain", help="Whether to run the plain loops.")] = True,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Seconds and peak memory of methods on the paper's 4-layer math model: of those with a plain loop, of some, or of all (`all`)."""
    from tinymem.bench.unlearn import HEADER, about, bench

    output, lines = chosen(output, json), []
    load_plugins(plugin)
    for line in bench(scale=scale, methods=words(methods) or (), device=device, rows=rows, plain=plain):
        typer.echo(f"{line[0]}: {line[1]} s", err=True)
        lines.append(line)
    print_listing(listing("Methods, timed", HEADER, lines, notes=about(scale, device)), output)


@bench_app.command()
def train(
    device: Device = "auto",
    case: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="math-2, -4, -8, -16, language-2, -4, -8 or -16; Repeatable.")
    ] = None,
    way: Ways = None,
    steps: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Timed steps of each.")] = 50,
    rows: Annotated[int, typer.Option("--batch", min=1, metavar="NUMBER", help="Rows of a batch.")] = 128,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Milliseconds, tokens and floating-point operations of a training step, beside transformers GPT-2.

    --case and --way may be repeated; `bench hours` reads what --json prints, a line a timing.
    """
    from dataclasses import astuple, fields

    from tinymem.bench.train import DEFAULT_CASES, Timing, bench, default_ways, json_lines
    from tinymem.runtime.device import resolve_device

    output, place = chosen(output, json), resolve_device(device)
    load_plugins(plugin)

    def say(text: str) -> None:
        typer.echo(text, err=output != "table")

    timings = bench(case or list(DEFAULT_CASES), way or default_ways(place), device=place, steps=steps, rows=rows, say=say)
    if output == "json":
        echo(json_lines(timings))
    elif output != "table":
        heads = [f.name.replace("_", " ") for f in fields(Timing)]
        print_listing(listing("A training step, timed", heads, map(astuple, timings)), output)


@bench_app.command()
def hours(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Recipes, each with all runs of its matrix.")],
    times: Annotated[Path, typer.Option(metavar="FILE", help="Output of `tinymem bench train --json`, from the GPU that is to train.")],
    way: Way = "ours",
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """GPU-hours that the runs of recipes will take, from measured milliseconds a step: those of --way ours or graph."""
    from tinymem.bench.hours import HEADS, PAPER, cells, project, read_times, total

    load_plugins(plugin)
    output, lines = chosen(output, json), project(recipes, read_times(times, way))
    print_listing(listing("GPU-hours of training", HEADS, cells(lines), notes=[total(lines), PAPER]), output)
