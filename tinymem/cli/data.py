"""`tinymem data`: make, inspect and verify a corpus. The verbs import what they need themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.find_memorized import find_memorized
from tinymem.cli.options import Column, Format, Jobs, NeededOut, Overrides, Plugins, PrintJson, RecipeFile, load_plugins
from tinymem.cli.printing import chosen, listing, print_json, print_listing
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.data.corpus import Corpus
    from tinymem.data.manifest import CorpusManifest
    from tinymem.runtime.json import Json, JsonObject

app = typer.Typer(help="Make, inspect and verify corpora.", no_args_is_help=True, pretty_exceptions_enable=False)

app.command("find-memorized")(find_memorized)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A corpus, such as runs/<run>/corpus.")]


@app.command()
def make(
    recipe: RecipeFile,
    out: NeededOut,
    overrides: Overrides = None,
    jobs: Jobs = None,
    plugin: Plugins = None,
) -> None:
    """Make a recipe's corpus. A killed run goes on where it was, since finished blocks of text are kept in the cache.

    --out is the folder of the corpus; it appears whole or not at all. --jobs processes tokenize text.
    """
    from tinymem.data.build import make_corpus
    from tinymem.recipe.recipe import load_recipe
    from tinymem.runtime.locks import sole_writer
    from tinymem.runtime.progress import Progress

    load_plugins(plugin)
    loaded = load_recipe(recipe, overrides)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "corpus.json").is_file())):
        raise UserError(f"expected a new folder or a corpus to replace at --out, got {out}; name another")
    with sole_writer(out):
        corpus = make_corpus(loaded, out, workers=jobs, progress=Progress(show=True))
    counts = corpus.counts()
    training, test = counted(counts["train_rows"], "training row"), counted(counts["test_rows"], "test row")
    echo(f"{out}: {training} an epoch, {test}, sha256 {corpus.sha256()}")


@app.command()
def tokenizer(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Text, JSON lines, CSV or Parquet, or folders of them.")],
    out: NeededOut,
    size: Annotated[int, typer.Option(metavar="TOKENS", help="Largest size of the vocabulary, the 256 bytes included.")] = 4096,
    column: Column = None,
) -> None:
    """Train a tokenizer on your text, a byte-level BPE: the same text gives the same one. Use it as `data.tokenizer: DIR`.

    --out is a new folder; it appears whole or not at all.
    """
    from tinymem.data.text.tokenizer_training import train_tokenizer
    from tinymem.runtime.locks import sole_writer

    if out.exists():
        raise UserError(f"expected a new folder at --out, found {out}; name another or remove it")
    with sole_writer(out):
        tokens = train_tokenizer(files, size, out, column=column or "text")
    echo(f"{out}: {tokens:,} tokens; tinymem run RECIPE --set data.tokenizer={out}")
    if tokens < size:
        echo(f"fewer than {size:,}: nothing else stands twice in this text", err=True)


@app.command()
def inspect(
    directory: Directory,
    rows: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Show so many rows of each artifact, what was planted highlighted.")
    ] = 0,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Counts of a corpus, and sample rows with the planted positions highlighted."""
    from tinymem.data.corpus_files import load_corpus
    from tinymem.data.manifest import read_manifest

    output = chosen(output, json)
    load_plugins(plugin)
    corpus = load_corpus(directory)
    counts = _counts(corpus, read_manifest(directory))
    if output == "json":
        print_json(counts)
    else:
        print_listing(listing(str(directory), ("what", "count"), _lines(counts)), output)
    if rows:
        from tinymem.data.samples import print_samples

        print_samples(corpus, rows, to_stderr=output != "table")


@app.command()
def verify(directory: Directory, plugin: Plugins = None) -> None:
    """Compare every byte with what was written; exit code 1 if anything differs."""
    from tinymem.data.corpus_files import load_corpus, verify_corpus
    from tinymem.data.manifest import read_manifest

    load_plugins(plugin)
    problems = verify_corpus(directory)
    if not problems and load_corpus(directory).sha256() != read_manifest(directory).sha256:
        problems = ["the rows do not have the manifest's sha256"]
    for problem in problems:
        echo(problem)
    if problems:
        raise typer.Exit(1)
    echo(f"{directory}: as it was written")


def _counts(corpus: Corpus, manifest: CorpusManifest) -> JsonObject:
    """Counts of rows, not of copies, except `train_rows`, which is one epoch."""
    from tinymem.data.counts import corpus_counts
    from tinymem.evaluation.probes import make_probes

    probes = make_probes(corpus, corpus.spec.evaluation, corpus.spec.protocol)
    return corpus_counts(corpus, manifest, {kind: len(probe) for kind, probe in probes.items()})


def _lines(counts: JsonObject) -> Iterator[tuple[str, str]]:
    for key, value in counts.items():
        if isinstance(value, dict):
            yield from ((kind, _listed(found)) for kind, found in value.items())
        else:
            yield key.replace("_", " "), f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)


def _listed(counts: Json) -> str:
    """Counts on one line: `rows 40, test rows 0, rows x copies: 10 x 1, 10 x 10`."""
    assert isinstance(counts, dict) and isinstance(counts["rows_by_copies"], dict)
    parts = [f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if isinstance(count, int)]
    classes = ", ".join(f"{rows:,} x {copies}" for copies, rows in counts["rows_by_copies"].items())
    return ", ".join([*parts, f"rows x copies: {classes}"])
