"""`tinymem mitigate`: one method on a checkpoint."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tinymem.cli.options import (
    Bos,
    Checkpoint,
    Column,
    Device,
    Forget,
    Ks,
    Match,
    Metrics,
    NoVerify,
    Out,
    Plugins,
    Prompt,
    ProtocolName,
    Retain,
    RowsFormat,
    Seed,
    Strict,
    load_plugins,
    numbers,
    words,
)  # fmt: skip
from tinymem.cli.report import print_record
from tinymem.errors import UserError
from tinymem.runtime.json import JsonObject


def mitigate(
    context: typer.Context,
    checkpoint: Checkpoint,
    method: Annotated[str, typer.Option(help="A registered method; `tinymem methods` lists them.")],
    out: Out = None,
    forget: Forget = None,
    retain: Retain = None,
    prompt: Prompt = None,
    match: Match = None,
    column: Column = None,
    bos: Bos = False,
    strict: Strict = False,
    protocol: ProtocolName = None,
    forget_fraction: Annotated[
        float | None,
        typer.Option("--forget-fraction", min=0, max=1, help="Share of the memorized rows that the method is given. Default: a half."),
    ] = None,
    seed: Seed = None,
    metrics: Metrics = None,
    ks: Ks = None,
    robustness: Annotated[bool, typer.Option("--robustness", help="Test whether it comes back: relearning, rounding, prompts.")] = False,
    device: Device = "auto",
    no_verify: NoVerify = False,
    plugin: Plugins = None,
    output: RowsFormat = "table",
) -> None:
    """Run one method on a checkpoint. Its options follow: `--method act --ratio 0.05`; see `tinymem methods show act`.

    --out is a folder for the edited checkpoint.
    """
    from tinymem.mitigation.method import parse_call
    from tinymem.runs.checkpoint import Measuring, mitigate_checkpoint
    from tinymem.runs.own_rows import RowFiles

    load_plugins(plugin)
    rows = mitigate_checkpoint(
        checkpoint, parse_call(method, _method_options(context.args)), out=out,
        files=RowFiles(forget, retain, prompt, match, column, bos, strict), protocol=protocol, forget_fraction=forget_fraction,
        seed=seed, device=device, measuring=Measuring(words(metrics), numbers(ks, "--ks"), robustness),
        verify=not no_verify,
    )  # fmt: skip
    from tinymem.results.run_folder import RunRecord

    print_record(RunRecord(checkpoint, rows=list(rows), curve=[]), output)
    if output == "table" and rows[0].match is not None:
        given = "prompts of their own" if rows[0].prompt is None else f"prompt {rows[0].prompt}"
        print(f"rows: {given}, match {rows[0].match}; {rows[0].rows_left_out or 0} left out")
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
