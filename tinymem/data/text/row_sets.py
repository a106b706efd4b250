"""A tokenized text, and what becomes of its rows: what both protocols take and give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymem.data.corpus import Planted
from tinymem.data.math.sequences import Ids
from tinymem.data.text.row_stream import Hashes, RowStream
from tinymem.data.text.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Text:
    """A tokenized text: its rows, and what names them."""

    train: RowStream
    test: RowStream | None
    """None where the source has no test split."""
    tokenizer: TextTokenizer


@dataclass(frozen=True)
class RowSets:
    """What becomes of the rows of a text.

    Attributes:
        pool: rows that the clean training rows come from.
        removed: which rows of `pool` [len(pool)] are not clean training rows.
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
    notes: dict[str, Any] = field(default_factory=dict)
