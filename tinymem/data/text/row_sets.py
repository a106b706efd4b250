"""A tokenized text and the division of its rows: input and output of both protocols."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tinymem.data.math.sequences import Ids
from tinymem.data.planted import Planted
from tinymem.data.text.row_stream import Hashes, RowStream
from tinymem.data.text.tokenizer import TextTokenizer
from tinymem.errors import UserError
from tinymem.runtime.json import JsonObject


@dataclass(frozen=True)
class Text:
    """A tokenized text: streams of its rows, and its tokenizer."""

    train: RowStream
    test: RowStream | None
    """Rows of the test split; None where the source has none."""
    tokenizer: TextTokenizer


@dataclass(frozen=True)
class RowSets:
    """The division of a text's rows into clean, test and planted ones.

    Attributes:
        pool: rows from which the clean training rows are taken.
        removed: mask [len(pool)] of the rows of `pool` that are not clean training rows.
        forbidden: hashes of rows that no clean training row may equal.
        test: the test rows [n, T].
        planted: rows per artifact.
        notes: for the manifest.
    """

    pool: RowStream
    removed: npt.NDArray[np.bool_]
    forbidden: Hashes
    test: Ids
    planted: dict[str, Planted]
    notes: JsonObject = field(default_factory=dict)


def test_rows(text: Text) -> Ids:
    """All rows [n, T] of the text's test split.

    Raises:
        UserError: it has none, which the published code needs.
    """
    if text.test is None:
        raise UserError("expected a test split under protocol reference, got none; try protocol: paper")
    return text.test.take(np.arange(len(text.test)))
