"""Planted rows of one artifact, with their clean counterparts, the start of the test of memorization, and the number of copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tinymem.data.math.sequences import Ids
from tinymem.errors import UserError
from tinymem.runtime.json import JsonObject

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Planted:
    """Rows of one artifact [n, T]: as the model sees them, their clean counterparts, and where the test of memorization starts."""

    ids: Ids
    clean: Ids
    """The rows without the artifact; equal to `ids` for duplicated rows and canaries, which have no clean counterpart."""
    start: Indices
    """Tokens of the prompt [n]; 0 where the evaluation's own prompt length applies (noise, duplication)."""
    copies: Indices
    """Times [n] that each row occurs in an epoch, its duplication class; 0 for rows held out of training."""
    end: Indices | None = None
    """Token after the target [n] (canaries: after the secret); None: as many tokens as the evaluation matches."""

    @property
    def trained(self) -> Flags:
        """Mask [n] of the rows in the training set."""
        return self.copies > 0

    @property
    def changed(self) -> Flags:
        """Mask [n] of the rows that differ from their clean counterparts."""
        return np.asarray((self.ids != self.clean).any(1))

    def classes(self) -> dict[int, int]:
        """Rows per number of copies, of the trained rows."""
        values, counts = np.unique(self.copies[self.trained], return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    def check(self, kind: str, row_tokens: int) -> None:
        """Check that the arrays have matching shapes and hold whole numbers in their range.

        Raises:
            UserError: another number of rows or tokens, fractions, a negative number of copies, or a place that is not in the row.
        """
        vectors = {"start": self.start, "copies": self.copies, **({} if self.end is None else {"end": self.end})}
        shapes = {"ids": self.ids.shape, "clean": self.clean.shape, **{name: (*v.shape, row_tokens) for name, v in vectors.items()}}
        wrong = {name: list(shape) for name, shape in shapes.items() if shape != (len(self.ids), row_tokens)}
        if wrong:
            raise UserError(f"expected the artifact '{kind}' to plant rows of {row_tokens} tokens each with start and copies, got {wrong}")
        for name, array in {"ids": self.ids, "clean": self.clean, **vectors}.items():
            least, most = (int(array.min()), int(array.max())) if array.size else (0, 0)
            if array.dtype.kind not in "iu":
                raise UserError(f"expected whole numbers as {name} of the artifact '{kind}', got {array.dtype}; try .astype(int)")
            if least < 0 or (name in ("start", "end") and most > row_tokens):
                limit = f"from 0 to {row_tokens}" if name in ("start", "end") else "of at least 0"
                raise UserError(f"expected {name} {limit} in the artifact '{kind}', got {least if least < 0 else most}")


@dataclass(frozen=True)
class Claim:
    """All rows of a corpus that already contain an artifact, such as a trigger: they are planted, and in no clean set.

    Attributes:
        planted: the rows with the artifact, as they are planted.
        holds: which of any rows [n, T] carry it; other artifacts must not make such rows.
        notes: for the manifest.
    """

    planted: Planted
    holds: Callable[[Ids], Flags]
    notes: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Population:
    """Rows [n, T] for membership inference, with the number [n] of leading tokens of each that count."""

    ids: Ids
    content: Indices


def lengths_without_padding(ids: Ids, pad: int) -> Indices:
    """Tokens of each row [n] without its padding."""
    return _ends_of_content(ids != pad)


def row_ends(ids: Ids, pad: int, eos: int) -> Indices:
    """Token [n] after the end of each row: where nothing but EOS or padding follows, the first EOS ends it; padding is no part of it.

    >>> row_ends(np.array([[5, 1, 0, 0], [5, 1, 6, 0], [5, 1, 6, 1]]), pad=0, eos=1).tolist()
    [2, 3, 4]
    """
    filler = _ends_of_content((ids != pad) & (ids != eos))
    first = ids[np.arange(len(ids)), np.minimum(filler, ids.shape[1] - 1)]
    return filler + ((filler < ids.shape[1]) & (first == eos))


def _ends_of_content(content: Flags) -> Indices:
    """Position [n] after the last True of each row [n, T]; 0 where there is none."""
    return np.where(content.any(1), content.shape[1] - np.argmax(content[:, ::-1], axis=1), 0)


def repeated(rows: Ids, copies: Indices) -> Planted:
    """Planted rows that are the pool's rows unchanged, with no clean counterpart."""
    return Planted(rows, rows, np.zeros(len(rows), dtype=np.int64), copies)
