"""`tinymem show`: memorization that one can read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import (
    Bos,
    Column,
    CorpusPath,
    Device,
    Forget,
    Format,
    Match,
    MaxSize,
    NoVerify,
    Out,
    Plugins,
    PrintJson,
    Retain,
    ShownMethods,
    ShownPrompt,
    ShownRows,
    load_plugins,
    local_checkpoint,
)  # fmt: skip
from tinymem.cli.printing import check_out, chosen, emit
from tinymem.errors import check_given
from tinymem.mitigation.methods import check_method_names

if TYPE_CHECKING:
    from tinymem.results.shown import ShownRow

Place = Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run's folder, a checkpoint's, or ORG/NAME[@REVISION] of the Hub.")]


def show(
    place: Place,
    rows: ShownRows = None,
    prompt: ShownPrompt = None,
    method: ShownMethods = None,
    forget: Forget = None,
    retain: Retain = None,
    corpus: CorpusPath = None,
    match: Match = None,
    column: Column = None,
    bos: Bos = False,
    device: Device = "auto",
    no_verify: NoVerify = False,
    max_size: MaxSize = None,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
    out: Out = None,
) -> None:
    """Memorization one can read: prompts of memorized rows, what should follow, what the model says, before and after each edit.

    Of a run this is what it kept of each method; --method applies one again. --bos also puts the model's first
    token before the text of --prompt. --out is a file to write instead of printing.
    """
    format = chosen(output, json)
    check_out(out, format)
    load_plugins(plugin)
    check_given({"forget": forget, "retain": retain, "corpus": corpus})
    check_method_names(method or ())
    from tinymem.data.own_rows import RowFiles
    from tinymem.runs.shown import Asked, show

    of_rows = bos and (prompt is None or bool(forget or retain))
    files = RowFiles(forget, retain, None, match, column, of_rows, False, corpus)
    folder = local_checkpoint(place, max_size=max_size, or_run=True)
    found, notes = show(folder, Asked(rows, prompt, tuple(method or ()), files, bos, device, not no_verify))
    if format == "table" and out is None:
        from tinymem.report.render.shown import print_shown

        print_shown(found, notes)
    else:
        emit(_text(found, notes, "markdown" if format == "table" else format, place), out)


def _text(found: list[ShownRow], notes: list[str], format: str, place: Path) -> str:
    """The rows in a text format."""
    from tinymem.report.render.shown import json_of_shown, table_of_shown
    from tinymem.report.render.text import render

    if format == "json":
        return json_of_shown(found, notes)
    if format == "html":
        from tinymem.report.page.document import page_of_shown

        return page_of_shown(found, notes, f"TinyMem: {place.resolve().name}")
    return render([table_of_shown(found, notes)], format)
