"""`tinymem mitigate`: one method on a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tinymem.cli.options import Checkpoint, Device, Ks, Match, Metrics, Out, Plugins, Prompt, RowsFormat, Seed, load_plugins, numbers, words
from tinymem.cli.report import print_record
from tinymem.errors import UserError
from tinymem.runtime.json import JsonObject


def mitigate(
    context: typer.Context,
    checkpoint: Checkpoint,
    method: Annotated[str, typer.Option(help="A registered method; `tinymem methods` lists them.")],
    out: Out = None,
    forget: Annotated[Path | None, typer.Option(help="Rows to forget: .jsonl, .parquet or .npy. Default: the checkpoint's corpus.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Rows to keep, in the same formats; needed with --forget.")] = None,
    prompt: Prompt = None,
    match: Match = None,
    seed: Seed = None,
    metrics: Metrics = None,
    ks: Ks = None,
    robustness: Annotated[bool, typer.Option("--robustness", help="Test whether it comes back: relearning, rounding, prompts.")] = False,
    device: Device = "auto",
    plugin: Plugins = None,
    output: RowsFormat = "table",
) -> None:
    """Run one method on a checkpoint. Its options follow: `--method act --ratio 0.05`; see `tinymem methods show act`.

    --out is a folder for the edited checkpoint.
    """
    from tinymem.mitigation.method import parse_call
    from tinymem.runs.checkpoint import Measuring, mitigate_checkpoint

    load_plugins(plugin)
    rows = mitigate_checkpoint(
        checkpoint, parse_call(method, _method_options(context.args)), out=out, forget=forget, retain=retain,
        prompt=prompt, match=match, seed=seed, device=device, measuring=Measuring(words(metrics), numbers(ks, "--ks"), robustness),
    )  # fmt: skip
    from tinymem.results.run_folder import RunRecord

    print_record(RunRecord(checkpoint, rows=list(rows), curve=[]), output)
    if out:
        print(f"edited checkpoint: {out}", file=sys.stderr)


def _method_options(arguments: list[str]) -> JsonObject:
    """Parse a method's options: `--ratio 0.05 --scope=model` -> {"ratio": 0.05, "scope": "model"}."""
    import yaml

    options: JsonObject = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"expected a method option such as --ratio 0.05, got '{word}'")
        key, separator, value = word[2:].partition("=")
        if not separator:
            if not rest:
                raise UserError(f"expected a value after '{word}', got none")
            value = rest.pop(0)
        try:
            options[key.replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"expected a number or a word after '--{key}', got '{value}'") from None
    return options
