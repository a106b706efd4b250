"""`tinymem bench`: timings of our own code beside plain loops."""

from __future__ import annotations

from typing import Annotated

import typer

bench_app = typer.Typer(help="Timings of methods and of training.", no_args_is_help=True)


@bench_app.callback()
def _bench() -> None:
    """Timings beside plain loops."""


@bench_app.command()
def unlearn(
    scale: Annotated[float, typer.Option(min=0.001, help="Times the rows of the paper's corpus (200 to forget, 27,000 to keep).")] = 1.0,
    methods: Annotated[str, typer.Option(help="Names with commas between, or all. Default: those with a plain loop.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    rows: Annotated[int, typer.Option(min=4, help="Forget rows that the slow plain loops run on.")] = 4,
    plain: Annotated[bool, typer.Option("--plain/--no-plain", help="Whether to run the plain loops.")] = True,
) -> None:
    """Seconds and peak memory of each method on the paper's 4-layer math model."""
    from tinymem.bench.unlearn import print_bench

    print_bench(scale=scale, methods=[name for name in methods.split(",") if name], device=device, rows=rows, plain=plain)


@bench_app.command()
def train(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    case: Annotated[list[str] | None, typer.Option(help="math-2, math-4, math-16, language-4 or language-16; may be repeated.")] = None,
    way: Annotated[list[str] | None, typer.Option(help="reference, compiled, graph, ours, ours+goldfish, ...; may be repeated.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each.")] = 50,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 128,
) -> None:
    """Milliseconds, tokens and floating-point operations of a training step, beside transformers GPT-2."""
    from tinymem.bench.train import CASES, bench, default_ways
    from tinymem.device import resolve_device

    place = resolve_device(device)
    cases = case or [c.name for c in CASES[:4]]
    bench(cases, way or default_ways(place), device=place, steps=steps, rows=rows, say=typer.echo)
