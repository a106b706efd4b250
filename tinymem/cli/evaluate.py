"""`tinymem metrics` and `tinymem evaluate`: list the metrics, and measure a checkpoint with them."""

from __future__ import annotations

from typing import Annotated

import typer

from tinymem.cli.options import (
    MAX_SIZE,
    Bos,
    Checkpoint,
    Column,
    CorpusPath,
    Device,
    Forget,
    Ks,
    Match,
    MaxSize,
    Metrics,
    NoVerify,
    Plugins,
    Prompt,
    ProtocolName,
    Retain,
    Revision,
    Strict,
    load_plugins,
    local_checkpoint,
    numbers,
    words,
)  # fmt: skip

metrics_app = typer.Typer(help="What metrics there are.", invoke_without_command=True, pretty_exceptions_enable=False)


@metrics_app.callback()
def metrics(context: typer.Context, plugin: Plugins = None) -> None:
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
    checkpoint: Checkpoint,
    forget: Forget = None,
    retain: Retain = None,
    corpus: CorpusPath = None,
    prompt: Prompt = None,
    match: Match = None,
    column: Column = None,
    bos: Bos = False,
    strict: Strict = False,
    protocol: ProtocolName = None,
    metrics: Metrics = None,
    ks: Ks = None,
    device: Device = "auto",
    no_verify: NoVerify = False,
    revision: Revision = None,
    max_size: MaxSize = MAX_SIZE,
    plugin: Plugins = None,
) -> None:
    """Measure a checkpoint on its own corpus, or on rows of your own; prints JSON."""
    import json

    from tinymem.results.read import with_intervals
    from tinymem.runs.checkpoint import Measuring, evaluate_checkpoint
    from tinymem.runs.own_rows import RowFiles
    from tinymem.runtime.progress import Progress

    load_plugins(plugin)
    measuring = Measuring(words(metrics), numbers(ks, "--ks"))
    files = RowFiles(forget, retain, prompt, match, column, bos, strict, corpus)
    found = evaluate_checkpoint(
        local_checkpoint(checkpoint, revision, max_size),
        files=files, protocol=protocol, device=device, measuring=measuring, verify=not no_verify, progress=Progress(show=True),
    )  # fmt: skip
    print(json.dumps(with_intervals(found.as_dict()), indent=2, allow_nan=False))
