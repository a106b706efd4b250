"""Rows of a long text, read in blocks from its tokenized shards; never all in memory.

Shape suffixes: N rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinymem.data.math.sequences import Ids
from tinymem.data.text.tokens import TokenStream

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class RowStream:
    """Consecutive rows of some token streams; each stream is cut on its own.

    Attributes:
        streams: one after the other.
        row_tokens: T.
        pad: fills up the last row of each stream (the published code); None drops it.
        limit: at most so many rows.
    """

    streams: tuple[TokenStream, ...]
    row_tokens: int
    pad: int | None = None
    limit: int | None = None

    def __len__(self) -> int:
        tokens = [s.tokens + (self.row_tokens - 1 if self.pad is not None else 0) for s in self.streams]
        rows = sum(t // self.row_tokens for t in tokens)
        return rows if self.limit is None else min(rows, self.limit)

    def blocks(self) -> Iterator[tuple[int, Ids]]:
        """Pieces: the index of the first row, and rows [n, T]."""
        first, end = 0, len(self)
        for stream in self.streams:
            for rows_NT in self._cut(stream):
                rows_NT = rows_NT[: end - first]
                if len(rows_NT):
                    yield first, rows_NT
                first += len(rows_NT)

    def _cut(self, stream: TokenStream) -> Iterator[Ids]:
        T = self.row_tokens
        rest = np.zeros(0, dtype=stream.dtype)
        for ids in stream:
            ids = np.concatenate([rest, ids])
            whole = len(ids) // T * T
            yield ids[:whole].reshape(-1, T)
            rest = ids[whole:]
        if len(rest) and self.pad is not None:
            filled = np.full((1, T), self.pad, dtype=stream.dtype)
            filled[0, : len(rest)] = rest
            yield filled

    def take(self, index: Indices) -> Ids:
        """Rows [n, T] of any indices, in the order given; one pass over the text."""
        order = np.argsort(index, kind="stable")
        found = [
            rows[index[order][slice(*np.searchsorted(index[order], (first, first + len(rows))))] - first] for first, rows in self.blocks()
        ]
        empty = np.zeros((0, self.row_tokens), dtype=self.streams[0].dtype)
        sorted_rows = np.concatenate([empty, *found])
        rows_NT = np.empty_like(sorted_rows)
        rows_NT[order] = sorted_rows
        return rows_NT


def row_hashes(rows_NT: Ids) -> Hashes:
    """A 64-bit hash [N] per row: equal rows have equal hashes; unequal ones collide with odds of about 2^-64 a pair."""
    weights_T = np.random.default_rng(20134).integers(1 << 63, size=rows_NT.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    mixed_NT = (rows_NT.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed_NT ^= mixed_NT >> np.uint64(29)
    result: Hashes = (mixed_NT * weights_T).sum(axis=1, dtype=np.uint64)
    return result
