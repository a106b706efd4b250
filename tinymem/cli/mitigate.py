"""`tinymem mitigate`: one method on a checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import (
    Bos,
    Checkpoint,
    Column,
    CorpusPath,
    Device,
    DType,
    Forget,
    ForgetRowsChoice,
    Format,
    Gpus,
    Ks,
    Match,
    MaxSize,
    Metrics,
    NoVerify,
    Out,
    Plugins,
    PrintJson,
    Prompt,
    ProtocolName,
    Raw,
    Retain,
    Revision,
    Seed,
    Strict,
    load_plugins,
    local_checkpoint,
    named_revision,
    numbers,
    raw_layout,
    words,
)  # fmt: skip
from tinymem.cli.printing import chosen, print_record
from tinymem.errors import UserError, check_given
from tinymem.mitigation.methods import check_method_names
from tinymem.runtime.json import JsonObject
from tinymem.runtime.streams import echo

if TYPE_CHECKING:
    from tinymem.results.row import MitigationRow


def mitigate(
    context: typer.Context,
    checkpoint: Checkpoint,
    method: Annotated[list[str], typer.Option(metavar="NAME", help="A registered method; `tinymem methods` lists them. Repeatable.")],
    out: Out = None,
    forget: Forget = None,
    retain: Retain = None,
    corpus: CorpusPath = None,
    prompt: Prompt = None,
    match: Match = None,
    column: Column = None,
    bos: Bos = False,
    strict: Strict = False,
    raw: Raw = None,
    forget_rows: ForgetRowsChoice = "all",
    protocol: ProtocolName = None,
    forget_fraction: Annotated[
        float | None,
        typer.Option(
            "--forget-fraction",
            min=0,
            max=1,
            metavar="SHARE",
            help="Share of the memorized rows that the method is given. Default: a half.",
        ),
    ] = None,
    seed: Seed = None,
    metrics: Metrics = None,
    ks: Ks = None,
    robustness: Annotated[bool, typer.Option("--robustness", help="Test whether it comes back: relearning, rounding, prompts.")] = False,
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
    """Run methods on a checkpoint. Options follow: `--method act --ratio 0.05`; see `tinymem methods show act`.

    Several methods share the loaded model, and each must have every option that is given. --out is a folder for the edited checkpoint,
    of several methods one for each in it.
    """
    output = chosen(output, json)
    load_plugins(plugin)
    check_given({"forget": forget, "retain": retain, "corpus": corpus})
    check_method_names(method)
    revision, checkpoint = named_revision(checkpoint, revision), local_checkpoint(checkpoint, revision, max_size)
    from tinymem.data.own_rows import RowFiles
    from tinymem.mitigation.method import parse_call
    from tinymem.runs.checkpoint import NotSaved, mitigate_checkpoint
    from tinymem.runs.subjects import Measuring
    from tinymem.runtime.locks import sole_writer
    from tinymem.runtime.progress import Progress

    options = _method_options(context.args)
    calls, measuring = [parse_call(name, options) for name in method], Measuring(words(metrics), numbers(ks, "--ks"), robustness)
    files = RowFiles(forget, retain, prompt, match, column, bos, strict, corpus, forget_rows, raw_layout(raw))
    try:
        with sole_writer(out) if out else nullcontext():
            rows = mitigate_checkpoint(
                checkpoint, calls, out=out, files=files, protocol=protocol, forget_fraction=forget_fraction,
                seed=seed, device=device, measuring=measuring, verify=not no_verify, dtype=dtype, gpus=gpus, revision=revision,
                progress=Progress(show=True),
            )  # fmt: skip
    except NotSaved as error:  # the numbers of a long edit are not lost with it
        _print(checkpoint, error.rows, output)
        raise
    _print(checkpoint, rows, output)
    if out:
        echo(f"edited checkpoint: {out}" if len(calls) == 1 else f"edited checkpoints in {out}", err=True)
    if any(row.status == "failed" for row in rows):
        raise typer.Exit(1)


def _print(checkpoint: Path, rows: list[MitigationRow], output: str) -> None:
    from tinymem.results.run_folder import RunRecord

    print_record(RunRecord(checkpoint, rows=list(rows), curve=[]), output)
    if output == "table" and rows[0].rows_id is not None:
        given = "prompts of their own" if rows[0].prompt is None else f"prompt {rows[0].prompt}"
        echo(f"rows: {given}, match {rows[0].match}; {rows[0].rows_left_out or 0} left out")


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
