"""`tinymem data find-memorized`: the rows of a corpus that a model knows by heart, as a file of rows to forget.

What is found is kept, block by block, in a file beside the result, so that a stopped search goes on where it was.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tinymem.data.rows_file import refuse_unknown_ids
from tinymem.data.tokenizer_folder import ModelTokens, has_tokenizer
from tinymem.data.windows import Block, CorpusChoice, blocks, windows_of
from tinymem.errors import UserError
from tinymem.evaluation.memorized_sets import Filters, Found, Window, memorized_windows, without_duplicates
from tinymem.models.adapters import refuse_longer_rows, vocabulary_of
from tinymem.models.checkpoint import load_checkpoint
from tinymem.models.metadata import read_metadata, verify_weights
from tinymem.models.precise_head import PreciseHead, precise_head
from tinymem.models.weights import DTypeName, weights_id
from tinymem.runtime.device import resolve_device
from tinymem.runtime.files import content_id, disk_errors_named, json_lines, write_text
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Progress


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        filters: that a row has to pass.
        every: whether all rows of a document are tested, one after the other, and not its first alone.
        keep: at most so many rows, the closest to their text; None: all.
        limit: at most so many rows are tested; None: the whole corpus.
        batch_size: rows of each pass.
    """

    filters: Filters = field(default_factory=Filters)
    every: bool = False
    keep: int | None = None
    limit: int | None = None
    batch_size: int = 64


@dataclass(frozen=True)
class SearchResult:
    """What a search found: rows tested in all, those that passed the filters, those kept, those of them reproduced word for word."""

    tested: int
    passed: int
    kept: int
    exact: int
    rows_per_second: float | None
    """Of this start, without loading; None where an earlier start had tested all."""


class _State:
    """The file beside the result: a first line with the key of the search, then a line for each finished block."""

    def __init__(self, out: Path, key: str) -> None:
        self.path, self.key = out.with_name(f".{out.name}.partial"), key
        self.blocks = self.documents = self.tested = 0
        self.found: list[Found] = []
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        whole, _, cut = self.path.read_text(encoding="utf-8").rpartition("\n")
        if cut:  # a write that was cut off
            with disk_errors_named(self.path):
                write_text(self.path, whole + "\n" if whole else "")
        lines = [line for _, line in json_lines(self.path, "remove it or name another --out")]
        if not lines or not isinstance(lines[0], dict) or lines[0].get("key") != self.key:
            raise UserError(f"{self.path} is of a search for other rows, or in another model or corpus; remove it or name another --out")
        for line in lines[1:]:
            self._add(line)

    def add(self, documents: int, tested: int, found: list[Found]) -> None:
        """Keep a finished block."""
        line: dict[str, Any] = {"documents": documents, "tested": tested, "found": [row.as_dict() for row in found]}
        first = [] if self.path.is_file() else [{"key": self.key}]
        with disk_errors_named(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in [*first, line]))
        self._add(line)

    def _add(self, line: dict[str, Any]) -> None:
        self.blocks += 1
        self.documents += line["documents"]
        self.tested += line["tested"]
        self.found += [Found(**row) for row in line["found"]]


def find_memorized(
    checkpoint: Path,
    corpus: CorpusChoice,
    out: Path,
    *,
    search: Search | None = None,
    device: str = "auto",
    dtype: DTypeName = "auto",
    gpus: int = 1,
    verify: bool = True,
    progress: Progress | None = None,
) -> SearchResult:
    """Search a corpus for rows that a model has memorized, and write them as JSON lines with `ids`, `text` and how they were found.

    Args:
        checkpoint: the model's folder, with its tokenizer.
        corpus: a file or a data set of the Hub.
        out: a new file; it appears whole or not at all, and not where nothing was found.
        search: what to search for.
        device: `auto`, `cpu` or `cuda`.
        dtype: as of `load_checkpoint`.
        gpus: as of `load_checkpoint`.
        verify: as of `load_checkpoint`.
        progress: where progress is shown.

    Raises:
        UserError: no tokenizer, a file that is there already, a corpus that cannot be read, ids that the model does not know, or too
            little memory.
    """
    search, device, progress = search or Search(), resolve_device(device, gpus), progress or Progress()
    if out.exists():
        raise UserError(f"expected a new file for --out, {out} exists; name another or remove it")
    if not has_tokenizer(checkpoint):
        raise UserError(
            f"expected a tokenizer in {checkpoint}, found none; the search compares texts, of rows of ids too: put the model's own there"
        )
    hashes = verify_weights(checkpoint, read_metadata(checkpoint)) if verify else {}
    key = content_id([weights_id(checkpoint, hashes), dtype, _without_batch(search), asdict(corpus), _stamp(corpus)], 16)
    state = _State(out, key)
    before, seconds = state.tested, 0.0
    if search.limit is None or state.tested < search.limit:
        model = load_checkpoint(checkpoint, device=device, verify=False, dtype=dtype, gpus=gpus).model
        refuse_longer_rows(model, search.filters.tokens)
        seconds = _searched(model, ModelTokens(checkpoint), corpus, search, state, progress)
    with progress.stage("compared for duplicates", len(state.found)) as bar:
        kept = without_duplicates(state.found, search.filters.overlap, bar)[: search.keep]
    if kept:
        write_text(out, "".join(json.dumps(row.as_dict(), ensure_ascii=False) + "\n" for row in kept))
    state.path.unlink(missing_ok=True)
    rate = (state.tested - before) / seconds if seconds and state.tested > before else None
    return SearchResult(state.tested, len(state.found), len(kept), sum(row.exact for row in kept), rate)


def _searched(model: nn.Module, tokens: ModelTokens, corpus: CorpusChoice, search: Search, state: _State, progress: Progress) -> float:
    """Search the blocks that are left; returns the seconds that it took."""
    size, started = vocabulary_of(model), time.perf_counter()
    with precise_head(model) as head, progress.stage("rows tested", search.limit or 0, state.tested) as bar:
        for number, block in enumerate(blocks(corpus, state.blocks, state.documents)):
            if number == 0:
                _say_what_texts_lack(block, tokens)
            windows = list(_windows(block, tokens, search, state, size))
            found = _tested(head, windows, search, tokens, str(next(model.parameters()).device))
            state.add(len(block.documents), len(windows), found)
            bar.advance(len(windows), f"{len(state.found)} memorized, {state.tested / (time.perf_counter() - started):,.0f} rows/s")
            if search.limit is not None and state.tested >= search.limit:
                break
    return time.perf_counter() - started


def _say_what_texts_lack(block: Block, tokens: ModelTokens) -> None:
    if any(isinstance(document, str) for document in block.documents) and tokens.opening:
        warnings.warn(
            f"texts are tested without the '{tokens.opening}' that this tokenizer puts before a text; for rows with it give a file of ids",
            stacklevel=2,
        )


def _windows(block: Block, tokens: ModelTokens, search: Search, state: _State, size: int) -> Iterator[Window]:
    left = None if search.limit is None else search.limit - state.tested
    for tested, (number, offset, ids) in enumerate(windows_of(block, tokens, search.filters.tokens, every=search.every)):
        if left is not None and tested >= left:
            return
        refuse_unknown_ids(ids, size, f"document {state.documents + number + 1} of the corpus")
        yield Window(ids, state.documents + number, offset)


def _tested(head: PreciseHead, windows: list[Window], search: Search, tokens: ModelTokens, device: str) -> list[Found]:
    import torch

    try:
        return memorized_windows(head, windows, search.filters, tokens.decode, device, search.batch_size)
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory with {search.batch_size} rows a pass; what was found is kept: give a lower --pass-rows") from None


def _without_batch(search: Search) -> JsonObject:
    """What decides which rows are found; the batch's size moves nothing but the rounding of sums."""
    return {name: value for name, value in asdict(search).items() if name != "batch_size"}


def _stamp(corpus: CorpusChoice) -> list[int]:
    """What tells a changed file from the same one."""
    if corpus.path is None:
        return []
    stat = corpus.path.stat()
    return [stat.st_size, stat.st_mtime_ns]
