"""`tinymem metrics` and `tinymem evaluate`: what metrics there are, and measuring a checkpoint with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinymem.errors import UserError

metrics_app = typer.Typer(help="What metrics there are.", invoke_without_command=True, pretty_exceptions_enable=False)

Plugin = Annotated[list[Path] | None, typer.Option(help="A Python file that registers methods, metrics, tables, ... of your own.")]
Metrics = Annotated[str | None, typer.Option(help="Names with commas between, default or all; `tinymem metrics` lists them.")]
Ks = Annotated[str | None, typer.Option(help="Further prompt lengths of (n, k) memorization, as in 10,20,30.")]


def words(text: str | None) -> tuple[str, ...] | None:
    """`loss, zlib` -> ("loss", "zlib")."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """`10,20` -> (10, 20).

    Raises:
        UserError: something else than numbers.
    """
    found = words(text)
    if found is not None and not all(word.isdecimal() for word in found):
        raise UserError(f"expected {option} to be numbers with commas between, as in 10,20, got '{text}'")
    return None if found is None else tuple(map(int, found))


@metrics_app.callback()
def metrics(context: typer.Context, plugin: Plugin = None) -> None:
    """List the registered metrics: formula, unit, direction and range."""
    load_plugins(plugin)
    if context.invoked_subcommand is None:
        from tinymem.evaluation.metric_pages import print_catalogue

        print_catalogue()


@metrics_app.command("show")
def metrics_show(name: Annotated[str, typer.Argument(help="A metric's name.")]) -> None:
    """Formula, unit, direction, range and source of one metric, and what to know about it."""
    from tinymem.evaluation.metric_pages import describe

    print(describe(name))


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder with its tinymem.json.")],
    prompt: Annotated[int | None, typer.Option(min=1, help="Tokens given in the test of memorization.")] = None,
    match: Annotated[int | None, typer.Option(min=1, help="Tokens that must follow.")] = None,
    protocol: Annotated[str | None, typer.Option(help="paper or reference. Default: the recipe's.")] = None,
    metrics: Metrics = None,
    ks: Ks = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    plugin: Plugin = None,
) -> None:
    """Measure a checkpoint on its own corpus; prints JSON."""
    import json

    from tinymem.runs.checkpoint import Measuring, evaluate_checkpoint

    load_plugins(plugin)
    measuring = Measuring(words(metrics), numbers(ks, "--ks"))
    found = evaluate_checkpoint(checkpoint, prompt=prompt, match=match, protocol=protocol, device=device, measuring=measuring).as_dict()
    print(json.dumps(found, indent=2, allow_nan=False))


def load_plugins(paths: list[Path] | None) -> None:
    """Run users' files, so that they register what they have."""
    from tinymem.registry import load_plugin

    for path in paths or []:
        load_plugin(path)
