"""The corpus: named sets of token rows.

A corpus has clean training rows, clean test rows, and for each artifact the planted rows with their clean counterparts. Copies are a
count, not rows. Ids are stored in the smallest unsigned type that holds the vocabulary; the training rows of a text stay in a
memory-mapped file.
"""

from __future__ import annotations

import hashlib
import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymem.data.math.sequences import BOS, EOS, PAD, Ids
from tinymem.data.planted import Indices, Planted, lengths_without_padding, row_ends
from tinymem.recipe.corpus_spec import CorpusSpec, Protocol
from tinymem.recipe.data import MathData
from tinymem.recipe.sizes import MATH_VOCABULARY
from tinymem.runtime.files import canonical_json

Columns = dict[str, npt.NDArray[Any]]
BLOCK_ROWS = 2048  # a row group of Parquet: 1 MB of ids, of which writing holds some ten copies
DIFFERENT_SEED = 1  # of fresh noise and secrets, so that their stream differs from that of the planted ones


@dataclass(frozen=True)
class Corpus:
    """Rows [n, T] of token ids to train on (`clean`), to test on (`tests`, by test set) and to be memorized (`planted`, by artifact)."""

    spec: CorpusSpec
    """Everything that determines the rows: recipe keys and, for text, the hashes of text and tokenizer."""
    clean: Ids
    clean_task: npt.NDArray[np.int64] | None
    """Math: index [n] of each clean row's task."""
    tests: dict[str, Ids]
    determined: dict[str, npt.NDArray[np.bool_]]
    """Math, per test set [n, T]: tokens that the prefix determines (the ceiling of accuracy)."""
    planted: dict[str, Planted] = field(default_factory=dict)
    vocab_size: int = MATH_VOCABULARY
    pad: int = PAD
    bos: int = BOS
    eos: int = EOS
    validation: Ids | None = None
    """Rows of the text's own validation split; nothing trains or reports on them."""
    stacked: Ids | None = None
    """Text: clean rows, then trained planted rows, in one memory-mapped file."""
    tokenizer_file: Path | None = None
    """Text: path of its tokenizer.json."""

    @property
    def row_tokens(self) -> int:
        """Length of a row in tokens, padding included."""
        return int(self.clean.shape[1])

    @property
    def is_text(self) -> bool:
        """True for natural language, measured by perplexity; false for math, measured by accuracy."""
        return self.tokenizer_file is not None

    def training_rows(self, *, counterfactual: bool = False) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Distinct training rows [n, T], and one epoch as indices into them (copies repeated).

        Args:
            counterfactual: clean counterparts in the places of planted rows; rows without one (duplicates, canaries) stay.
        """
        parts, copies = [self.clean], [np.ones(len(self.clean), dtype=np.int64)]
        for planted in self.planted.values():
            parts.append((planted.clean if counterfactual else planted.ids)[planted.trained])
            copies.append(planted.copies[planted.trained])
        counts = np.concatenate(copies)
        stacked = None if counterfactual and self.planted else self.stacked
        return np.concatenate(parts) if stacked is None else stacked, np.repeat(np.arange(len(counts)), counts)

    def sha256(self) -> str:
        """Hash of the content: equal rows in equal order give equal hashes, whatever the file format."""
        digest = hashlib.sha256(canonical_json(self.spec.as_json()).encode())
        for name, columns in tables(self).items():
            for column, values in columns.items():
                digest.update(f"{name}/{column}/{values.dtype}/{values.shape}".encode())
                for block in row_blocks(values):
                    digest.update(block.tobytes())
        return digest.hexdigest()

    def row_ends(self, ids: Ids, protocol: Protocol) -> Indices:
        """Token [n] after the end of each row [n, T]; protocol reference tells padding only, and takes an EOS that pads for padding."""
        return lengths_without_padding(ids, self.pad) if protocol == "reference" else row_ends(ids, self.pad, self.eos)

    def primary_test_rows(self) -> Ids:
        """Test rows [n, T] of the task that artifacts are planted in; all of them for text."""
        if isinstance(self.spec.data, MathData):
            return self.tests[str(self.spec.data.primary)]
        return np.concatenate([*self.tests.values()])

    def fresh_generator(self, purpose: str) -> np.random.Generator:
        """A random stream for rows like the planted ones, and independent of theirs."""
        return np.random.default_rng([self.spec.seed, zlib.crc32(purpose.encode()), DIFFERENT_SEED])

    def counts(self) -> dict[str, int]:
        """Number of rows of each set, by its name in messages."""
        trained = sum(int(p.copies.sum()) for p in self.planted.values())
        counts = {"train_rows": len(self.clean) + trained, "clean_rows": len(self.clean)}
        counts["test_rows"] = sum(len(rows) for rows in self.tests.values())
        for kind, planted in self.planted.items():
            counts[f"{kind}_rows"] = int(planted.trained.sum())
            counts[f"{kind}_test_rows"] = int((~planted.trained).sum())
        return counts


def tables(corpus: Corpus) -> dict[str, Columns]:
    """The row sets as columns, by the names of their files."""
    clean: Columns = {"ids": corpus.clean}
    if corpus.clean_task is not None:
        clean["task"] = corpus.clean_task
    result = {"clean": clean, "test": _test_table(corpus)}
    for kind, p in corpus.planted.items():
        result[kind] = {"ids": p.ids, "clean_ids": p.clean, "start": p.start, "copies": p.copies}
        if p.end is not None:
            result[kind]["end"] = p.end
    if corpus.validation is not None:
        result["validation"] = {"ids": corpus.validation}
    return result


def _test_table(corpus: Corpus) -> Columns:
    names = list(corpus.tests)
    table: Columns = {"ids": np.concatenate([corpus.tests[n] for n in names])}
    if corpus.determined:
        table["determined"] = np.concatenate([corpus.determined[n] for n in names])
        table["task"] = np.concatenate([np.full(len(corpus.tests[n]), int(n), dtype=np.int64) for n in names])
    return table


def row_blocks(values: npt.NDArray[Any], rows: int = BLOCK_ROWS) -> Iterator[npt.NDArray[Any]]:
    """Consecutive pieces [n, T], contiguous in memory; pages of a memory-mapped array are released after each."""
    mapped = getattr(values, "_mmap", None)
    for first in range(0, len(values), rows):
        yield np.ascontiguousarray(values[first : first + rows])
        if mapped is not None and not values.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
