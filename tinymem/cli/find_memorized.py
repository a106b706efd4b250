"""`tinymem data find-memorized`: build a set of memorized rows."""

from __future__ import annotations

from typing import Annotated

import typer

from tinymem.cli.options import (
    Checkpoint,
    Device,
    DType,
    Gpus,
    Match,
    MaxSize,
    NeededOut,
    NoVerify,
    Plugins,
    Prompt,
    Raw,
    Revision,
    load_plugins,
    local_checkpoint,
    raw_layout,
)  # fmt: skip
from tinymem.runtime.streams import echo

Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help="A file of text or token ids, or a data set of the Hub, which is streamed.")]

TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text-column",
        metavar="NAME",
        help="Column of the text, or of ids in JSON lines. Default: text, and in JSON lines without it ids, input_ids or tokens.",
    ),
]


def find_memorized(
    checkpoint: Checkpoint,
    corpus: Corpus,
    out: NeededOut,
    prompt: Prompt = None,
    match: Match = None,
    every: Annotated[bool, typer.Option("--every", help="Test all rows of a document, and not the first alone.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="Test at most so many rows.")] = None,
    keep: Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="Keep at most so many, the closest to their text.")] = None,
    distinct: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Least number of distinct tokens in a target.")] = 16,
    distance: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Most characters between text and continuation; 0: word for word.")
    ] = 20,
    overlap: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="Share of common 5-grams above which two rows are one.")
    ] = 0.05,
    column: TextColumn = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of a data set of the Hub.")] = "train",
    config: Annotated[str | None, typer.Option("--subset", metavar="NAME", help="Configuration of a data set of the Hub.")] = None,
    raw: Raw = None,
    batch: Annotated[int, typer.Option("--pass-rows", min=1, metavar="NUMBER", help="Rows of each pass.")] = 64,
    device: Device = "auto",
    dtype: DType = "auto",
    gpus: Gpus = 1,
    no_verify: NoVerify = False,
    revision: Revision = None,
    max_size: MaxSize = None,
    plugin: Plugins = None,
) -> None:
    """Find rows of a corpus that a model knows by heart (filters of Chang et al.), for --forget of the other verbs.

    --out is a new file of JSON lines, which is not written where no row is found; prompt and match are 32 and 48 unless they are given. A
    stopped search goes on where it was.
    """
    from tinymem.data.windows import CorpusChoice
    from tinymem.evaluation.memorized_sets import Filters
    from tinymem.runs.find_memorized import Search
    from tinymem.runs.find_memorized import find_memorized as find
    from tinymem.runtime.locks import sole_writer
    from tinymem.runtime.progress import Progress

    load_plugins(plugin)
    filters = Filters(prompt or 32, match or 48, distinct=distinct, distance=distance, overlap=overlap)
    search = Search(filters, every, keep, limit, batch)
    chosen = CorpusChoice(corpus, column, split, config, layout=raw_layout(raw))
    folder = local_checkpoint(checkpoint, revision, max_size)
    with sole_writer(out):
        found = find(
            folder,
            chosen, out, search=search, device=device, dtype=dtype, gpus=gpus, verify=not no_verify, progress=Progress(show=True),
        )  # fmt: skip
    rate = "" if found.rows_per_second is None else f" at {found.rows_per_second:,.1f} rows/s"
    if not found.tested:
        tokens = search.filters.tokens
        echo(f"no memorized rows: {corpus} has no row of {tokens} tokens to test; {out} was not written; try a smaller --prompt or --match")
        return
    if not found.kept:
        echo(f"no memorized rows: none of {found.tested:,} rows tested passed{rate}; {out} was not written")
        return
    echo(f"{out}: {found.kept:,} rows, {found.exact:,} of them word for word; {found.passed:,} of {found.tested:,} rows passed{rate}")
