"""Pool of a text's rows, in which artifacts are planted, under protocol `paper`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tinymem.data.math.sequences import Ids
from tinymem.data.planted import Flags, Indices
from tinymem.data.planting import Pool
from tinymem.data.text.row_sets import Text
from tinymem.data.text.row_stream import Hashes, RowStream, row_hashes
from tinymem.data.text.tokenizer import TextTokenizer
from tinymem.errors import UserError

FLAGS_AT_A_TIME = 1 << 16


@dataclass
class TextPool(Pool):
    """Training rows that nothing has taken yet. Rows are given out only if no test or artifact row equals them.

    Attributes:
        seed: of the recipe.
        text: tokenized, with its tokenizer.
        free: which rows of the training text nothing has taken.
        test: test rows [n, T].
        taken: hashes of test and artifact rows.
        claims: of the artifacts that claim rows; see `Claim.holds`.
    """

    seed: int
    text: Text
    free: Flags
    test: Ids
    taken: Hashes = field(default_factory=lambda: np.zeros(0, np.uint64))
    claims: list[Callable[[Ids], Flags]] = field(default_factory=list)

    @property
    def rows(self) -> RowStream:
        """All training rows of the text, taken or not."""
        return self.text.train

    @property
    def tokenizer(self) -> TextTokenizer:
        """Tokenizer that the text was cut into tokens with."""
        return self.text.tokenizer

    @property
    def vocab_size(self) -> int:
        return self.text.tokenizer.vocab_size

    @property
    def row_tokens(self) -> int:
        return self.text.train.row_tokens

    def draw(self, count: int, rng: np.random.Generator, kind: str) -> Ids:
        free = int(np.count_nonzero(self.free))
        candidates = _places(self.free, rng.choice(free, min(2 * count + 64, free), replace=False))
        rows = self.rows.take(candidates)
        hashes = row_hashes(rows)
        first = np.zeros(len(rows), dtype=bool)
        first[np.unique(hashes, return_index=True)[1]] = True
        usable = np.flatnonzero(first & ~np.isin(hashes, self.taken))[:count]
        if len(usable) < count or free <= count:
            raise UserError(
                f"expected artifacts.{kind}.rows of at most {min(len(usable), free - 1)} different clean rows, "
                f"got {count}; lower it or use more text"
            )
        self.free[candidates[usable]] = False
        self.taken = np.concatenate([self.taken, hashes[usable]])
        return rows[usable]

    def holds_claimed(self, rows: Ids) -> Flags:
        """Mask [n] of the rows that contain something that an artifact claims, such as a trigger."""
        found = np.zeros(len(rows), dtype=bool)
        for holds in self.claims:
            found |= holds(rows)
        return found

    def allows(self, rows: Ids) -> Flags:
        return ~self.holds_claimed(rows) & ~np.isin(row_hashes(rows), row_hashes(self.test))


def _places(flags: Flags, ranks: Indices) -> Indices:
    """Indices of the true flags of these ranks: `np.flatnonzero(flags)[ranks]` in little memory."""
    places, before = np.empty(len(ranks), dtype=np.int64), 0
    for first in range(0, len(flags), FLAGS_AT_A_TIME):
        here = first + np.flatnonzero(flags[first : first + FLAGS_AT_A_TIME])
        mine = (ranks >= before) & (ranks < before + len(here))
        places[mine] = here[ranks[mine] - before]
        before += len(here)
    return places
