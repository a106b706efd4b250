"""`tinymem mitigate`: one method on a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tinymem.cli.evaluate import Ks, Metrics, Plugin, load_plugins, numbers, words
from tinymem.cli.report import Format, print_record
from tinymem.errors import UserError
from tinymem.runtime.json import JsonObject

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def mitigate(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder, such as runs/<run>/checkpoint.")],
    method: Annotated[str, typer.Option(help="A registered method; `tinymem methods` lists them.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the edited checkpoint.")] = None,
    forget: Annotated[Path | None, typer.Option(help="Rows to forget: .jsonl, .parquet or .npy. Default: the checkpoint's corpus.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Rows to keep, in the same formats; needed with --forget.")] = None,
    prompt: Annotated[int | None, typer.Option(min=1, help="Tokens given in the test of memorization.")] = None,
    match: Annotated[int | None, typer.Option(min=1, help="Tokens that must follow.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of the mitigation. Default: the recipe's, or 0.")] = None,
    metrics: Metrics = None,
    ks: Ks = None,
    robustness: Annotated[bool, typer.Option("--robustness", help="Test whether it comes back: relearning, rounding, prompts.")] = False,
    device: Device = "auto",
    plugin: Plugin = None,
    output: Format = "table",
) -> None:
    """Run one method on a checkpoint. Its options follow: `--method act --ratio 0.05`; see `tinymem methods show act`."""
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
    """`--ratio 0.05 --scope=model` -> {"ratio": 0.05, "scope": "model"}."""
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
