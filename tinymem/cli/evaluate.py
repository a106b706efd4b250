"""`tinymem metrics` and `tinymem evaluate`: list the metrics, and measure a checkpoint with them."""

from __future__ import annotations

from typing import Annotated

import typer

from tinymem.cli.options import (
    Bos,
    Checkpoint,
    Column,
    CorpusPath,
    Device,
    DType,
    Forget,
    Format,
    Gpus,
    Ks,
    Match,
    MaxSize,
    Metrics,
    NoVerify,
    Plugins,
    PrintJson,
    Prompt,
    ProtocolName,
    Raw,
    Retain,
    Revision,
    Strict,
    load_plugins,
    local_checkpoint,
    numbers,
    raw_layout,
    words,
)  # fmt: skip
from tinymem.cli.printing import chosen, listing, print_json, print_listing, print_tables_as
from tinymem.errors import check_given
from tinymem.runtime.streams import echo

metrics_app = typer.Typer(help="What metrics there are.", invoke_without_command=True, pretty_exceptions_enable=False)


@metrics_app.callback()
def metrics(context: typer.Context, plugin: Plugins = None, output: Format = "table", json: PrintJson = False) -> None:
    """List the registered metrics: formula, unit, direction and range."""
    output = chosen(output, json)
    load_plugins(plugin)
    if context.invoked_subcommand is None:
        from tinymem.evaluation.metric_pages import HEADS, catalogue, print_catalogue

        if output == "table":
            print_catalogue()
        else:
            print_listing(listing("Metrics", HEADS, catalogue()), output)


@metrics_app.command("show")
def metrics_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A metric's name.")],
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Formula, unit, direction, range and source of one metric, and what to know about it."""
    from tinymem.evaluation.metric_pages import FACTS, describe, facts

    output = chosen(output, json)
    load_plugins(plugin)
    if output == "table":
        echo(describe(name))
    else:
        print_listing(listing(name, FACTS, facts(name)), output)


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
    raw: Raw = None,
    protocol: ProtocolName = None,
    metrics: Metrics = None,
    ks: Ks = None,
    device: Device = "auto",
    dtype: DType = "auto",
    gpus: Gpus = 1,
    no_verify: NoVerify = False,
    revision: Revision = None,
    max_size: MaxSize = None,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Measure a checkpoint on its own corpus, or on rows of your own."""
    output = chosen(output, json)
    load_plugins(plugin)
    check_given({"forget": forget, "retain": retain, "corpus": corpus})
    folder = local_checkpoint(checkpoint, revision, max_size)
    from tinymem.cli.measured import table_of_measurement
    from tinymem.data.own_rows import RowFiles
    from tinymem.results.read import with_intervals
    from tinymem.runs.evaluate import evaluate_checkpoint
    from tinymem.runs.subjects import Measuring
    from tinymem.runtime.progress import Progress

    measuring = Measuring(words(metrics), numbers(ks, "--ks"))
    files = RowFiles(forget, retain, prompt, match, column, bos, strict, corpus, raw=raw_layout(raw))
    found = evaluate_checkpoint(
        folder,
        files=files, protocol=protocol, device=device, measuring=measuring, verify=not no_verify, dtype=dtype, gpus=gpus,
        progress=Progress(show=True),
    )  # fmt: skip
    if output == "json":
        print_json(with_intervals(found.as_dict()))
    else:
        print_tables_as([table_of_measurement(found)], output, None)
