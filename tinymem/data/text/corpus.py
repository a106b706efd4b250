"""Text corpora: WikiText-103 or any text, cut into rows of tokens, under either protocol (paper, A.1.2).

Each line is tokenized separately; the ids follow each other without a separator and are cut into rows.
`paper`: the last, short row is dropped; artifacts fall on random rows; no training row equals a test row, an artifact row or a clean
counterpart; rows whose trigger ends within the first tokens are in no clean set; perplexity is measured on the text's own test split.
`reference`: the published code's rows: the short last row padded, noise in the first rows, triggers anywhere, and for backdoors train
and test text pooled with 1000 rows of it as the test set (`reference.py`).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tinymem.data.corpus import Corpus
from tinymem.data.corpus_files import STACKED, load_corpus, open_corpus, open_rows, write_corpus, write_rows
from tinymem.data.manifest import MANIFEST, read_manifest
from tinymem.data.math.sequences import Ids
from tinymem.data.text.kept import in_use
from tinymem.data.text.paper import paper_sets
from tinymem.data.text.reference import reference_sets
from tinymem.data.text.row_sets import RowSets, Text
from tinymem.data.text.row_stream import RowStream, row_hashes
from tinymem.data.text.source import TextSource, local_files, open_source
from tinymem.data.text.tokenizer import TextTokenizer, open_tokenizer
from tinymem.data.text.tokens import TokenizerPool, TokenStream, cache_directory, tokenize
from tinymem.errors import UserError
from tinymem.recipe.corpus_spec import CorpusSpec, TextSplit
from tinymem.recipe.data import STATED, WikiData
from tinymem.recipe.recipe import Recipe
from tinymem.runtime.device import available_cores
from tinymem.runtime.files import content_id, new_directory
from tinymem.runtime.progress import Bar, Progress

ENOUGH = 20_000
"""Characters of text with which a first try works."""
# Arrow's own allocator keeps some 50 MB more than the system's. Arrow reads this when it is first imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def wiki_corpus(recipe: Recipe, data: WikiData, directory: Path | None, *, workers: int | None, progress: Progress) -> Corpus:
    """Make a text corpus in `directory` (default: a folder of the cache), and open it; see `make_corpus`."""
    if data.is_local:
        local_files(data)  # before the tokenizer is fetched
    tokenizer = open_tokenizer(data)
    source = open_source(data)
    for line in source.description():
        progress.say(line)
    with in_use(_shards(tokenizer), data.source):
        streams = _tokenized(data, source, tokenizer, workers or available_cores(), progress)
        spec = _spec(recipe, data, streams, tokenizer)
        folder = directory or cache_directory() / "corpora" / content_id(spec.as_json(), 16)
        with in_use(folder, data.source):
            if directory is None and (folder / MANIFEST).is_file():
                return load_corpus(folder)
            _write_corpus(recipe, data, spec, streams, tokenizer, folder, progress)
            return open_corpus(folder, read_manifest(folder))


def _write_corpus(
    recipe: Recipe,
    data: WikiData,
    spec: CorpusSpec,
    streams: dict[str, TokenStream],
    tokenizer: TextTokenizer,
    directory: Path,
    progress: Progress,
) -> None:
    sets = _row_sets(recipe, data, _text(recipe, data, streams, tokenizer))
    stated = {key: value for key in STATED if (value := getattr(data, key))}
    with new_directory(directory) as temporary, progress.stage("write rows", len(sets.pool)) as bar:
        corpus = _write(sets, spec, tokenizer, _validation(data, streams), temporary, bar)
        write_corpus(corpus, temporary, {**sets.notes, **stated})
        del corpus  # lets go of the memory-mapped file before it moves


def _shards(tokenizer: TextTokenizer) -> Path:
    """Folder of the text that a tokenizer has cut."""
    return cache_directory() / "tokens" / tokenizer.sha256[:16]


def text_changed(recipe: Recipe, directory: Path) -> bool:
    """Whether local text or the tokenizer has changed since the corpus in `directory` was made; False where that is not known."""
    spec = read_manifest(directory).spec
    data = recipe.data
    if not isinstance(data, WikiData) or not data.is_local or spec.text is None:
        return False
    try:
        tokenizer = open_tokenizer(data)
        streams = _tokenized(data, open_source(data), tokenizer, available_cores(), Progress())
    except UserError:  # the text was moved away: the corpus remains valid
        return False
    return _spec(recipe, data, streams, tokenizer).as_json() != spec.as_json()


def _tokenized(data: WikiData, source: TextSource, tokenizer: TextTokenizer, workers: int, progress: Progress) -> dict[str, TokenStream]:
    shards = _shards(tokenizer)
    limit = None if data.max_rows is None else data.max_rows * data.row_tokens
    assert tokenizer.vocab_size  # a bad file is found here, not in the workers
    streams = {}
    with TokenizerPool(tokenizer.path, workers) as pool, progress.stage("tokenize", len(source.splits)) as bar:
        for split in source.splits:
            blocks = source.blocks(split)
            streams[split] = tokenize(blocks, pool, shards, tokenizer.dtype, limit=limit if split == "train" else None)
            bar.advance(1, f"{streams[split].tokens:,} tokens of {split}")
    return streams


def _spec(recipe: Recipe, data: WikiData, streams: dict[str, TokenStream], tokenizer: TextTokenizer) -> CorpusSpec:
    """The specification of the rows, by hashes of contents instead of paths."""
    contents = {"source": "local", "config": None} if data.is_local else {}
    contents["tokenizer"] = tokenizer.identity
    text = {split: TextSplit(lines=s.lines, tokens=s.tokens, sha256=s.text_sha256) for split, s in streams.items()}
    return recipe.corpus_spec().model_copy(update={"data": data.model_copy(update=contents), "text": text})


def _text(recipe: Recipe, data: WikiData, streams: dict[str, TokenStream], tokenizer: TextTokenizer) -> Text:
    pad = tokenizer.end_id if recipe.protocol == "reference" else None
    test = RowStream((streams["test"],), data.row_tokens, pad) if "test" in streams else None
    train = RowStream((streams["train"],), data.row_tokens, pad, data.max_rows)
    if not len(train):
        tokens = streams["train"].tokens
        found = f"expected training text of at least data.row_tokens = {data.row_tokens} tokens, got {tokens}"
        raise UserError(f"{found}; use more text: some {ENOUGH:,} characters are enough to try it")
    if test is not None and not len(test):
        raise UserError(f"expected a test split of at least {data.row_tokens} tokens, got {streams['test'].tokens}; lower data.row_tokens")
    return Text(train, test, tokenizer)


def _validation(data: WikiData, streams: dict[str, TokenStream]) -> Ids | None:
    if "validation" not in streams:
        return None
    rows = RowStream((streams["validation"],), data.row_tokens)
    return rows.take(np.arange(len(rows)))


def _row_sets(recipe: Recipe, data: WikiData, text: Text) -> RowSets:
    return reference_sets(recipe, data, text) if recipe.protocol == "reference" else paper_sets(recipe, data, text)


def _write(sets: RowSets, spec: CorpusSpec, tokenizer: TextTokenizer, validation: Ids | None, directory: Path, bar: Bar) -> Corpus:
    """Write the training rows, clean ones first, and describe the corpus."""
    path, clean = directory / STACKED, 0
    for first, rows in sets.pool.blocks():
        keep = ~sets.removed[first : first + len(rows)] & ~np.isin(row_hashes(rows), sets.forbidden)
        clean += write_rows(path, iter([rows[keep]]))
        bar.advance(len(rows))
    if not clean:
        raise UserError("expected clean training rows besides the test and artifact rows, got none; use more text or fewer rows")
    write_rows(path, iter(p.ids[p.trained] for p in sets.planted.values()))
    stacked = open_rows(path, tokenizer.dtype, sets.pool.row_tokens)
    end = tokenizer.end_id
    return Corpus(
        spec=spec,
        clean=stacked[:clean],
        clean_task=None,
        tests={"test": sets.test},
        determined={},
        planted=sets.planted,
        vocab_size=tokenizer.vocab_size,
        pad=end,
        bos=end,
        eos=end,
        validation=validation,
        stacked=stacked,
        tokenizer_file=tokenizer.path,
    )
