"""Noise artifacts: each number or token id moves by +-1 with a given probability (paper, Definition 2.2).

Math: noise falls on numbers, not tokens: a change of digit count (9 -> 10) shifts all later tokens. The value 0 can only become 1, since
the vocabulary has no minus sign. Text: noise falls on token ids; at either end of the vocabulary the move is turned round.

Members are the planted rows that the noise changed; non-members are test rows of the same task (math: the primary one) with fresh noise
of the same probability. Members and test rows are a random split of one pool, and neither's clean version is trained on. As with members,
none equals a row of the corpus and none holds a backdoor's trigger.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from tinymem.data.artifact import Artifact, artifact, artifact_of, whole_rows
from tinymem.data.corpus import Corpus
from tinymem.data.math.pool import MathPool, ReferenceSplit, Task, too_few
from tinymem.data.math.sequences import Ids, numbers_of, render
from tinymem.data.moves import add_noise, add_token_noise, apply_moves, reference_noise
from tinymem.data.planted import Flags, Planted, Population
from tinymem.data.planting import COPIES, Copies, copies_of, reference_copies, reference_draws, reference_order
from tinymem.data.text.pool import TextPool
from tinymem.data.text.row_sets import RowSets, Text, test_rows
from tinymem.errors import UserError
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.data import MathData, WikiData


@artifact
class NoiseArtifact(Artifact):
    """Rows in which each number (math) or token id (text) moves by +-1 with `probability` (Definition 2.2)."""

    summary: ClassVar[str] = "rows with noise (Definition 2.2) beside their clean counterparts"
    order: ClassVar[int] = 10
    has_reference: ClassVar[bool] = True

    kind: Literal["noise"] = "noise"
    rows: int = Field(1000, ge=1, description="clean training rows (math: of the primary task) that a noised version replaces")
    probability: float = Field(0.1, gt=0, le=1, description="probability that a number or token moves")
    copies: Copies = Field(1, description=COPIES)

    def rows_of_primary(self, free: int, data: MathData, protocol: Protocol) -> int:
        if protocol == "reference":
            self._check_reference(data.primary_size, data.test_rows)
        elif free <= self.rows:
            raise too_few(self.kind, self.rows, free - 1)
        return self.rows

    def _check_reference(self, count: int, test_rows: int) -> None:
        if not test_rows <= self.rows <= count // 2:
            raise UserError(
                f"expected artifacts.noise.rows from data.test_rows = {test_rows} to half of the {count} rows of the primary task under "
                f"protocol reference, got {self.rows}"
            )

    def plant_math(self, pool: MathPool) -> Planted:
        rng = pool.generator("noise")
        noised = pool.render(add_noise(pool.task.numbers, self.probability, rng))
        usable = np.flatnonzero(pool.allows(noised))  # a noised 99 may become the trigger 100
        if len(usable) <= self.rows:
            raise too_few(self.kind, self.rows, len(usable) - 1)
        chosen = rng.choice(usable, size=self.rows, replace=False)
        return Planted(noised[chosen], pool.take(chosen), np.zeros(self.rows, dtype=np.int64), copies_of(self.copies, self.rows))

    def plant_text(self, pool: TextPool) -> Planted:
        rng = pool.generator("noise")
        clean = pool.draw(self.rows, rng, self.kind)
        noised = add_token_noise(clean, self.probability, pool.vocab_size, rng)
        while (bad := pool.holds_claimed(noised)).any():  # noise made a trigger: draw those rows' noise again
            noised[bad] = add_token_noise(clean[bad], self.probability, pool.vocab_size, rng)
        copies = copies_of(self.copies, self.rows)
        return Planted(noised, clean, np.zeros_like(copies), copies)

    def reference_math(self, split: ReferenceSplit) -> tuple[Task, Task, Planted]:
        count = len(split.all.ids)
        moves, stream = reference_noise(count, split.data.numbers, self.probability, split.seed)
        noised = render(split.all.numbers + moves, split.data.row_tokens)[reference_order(count)]
        self._check_reference(count, len(split.test.ids))
        pool, train = range(count - self.rows), split.train
        chosen = np.array(stream.sample(pool, self.rows), dtype=np.int64)
        rest = np.setdiff1d(np.arange(len(train.ids)), chosen)
        copies = reference_copies(self.copies, self.rows, stream)
        return train.take(rest), split.test, Planted(noised[chosen], train.ids[chosen], np.zeros_like(copies), copies)

    def reference_text(self, text: Text, data: WikiData, seed: int) -> RowSets:
        test = test_rows(text)
        if len(text.train) <= self.rows:
            raise UserError(f"expected artifacts.noise.rows below the {len(text.train)} rows of the training text, got {self.rows}")
        clean = text.train.take(np.arange(self.rows))
        size = text.tokenizer.vocab_size
        moves, _, stream = reference_draws(seed, self.rows, data.row_tokens, self.probability, size)
        copies = reference_copies(self.copies, self.rows, stream)
        planted = Planted(apply_moves(clean, moves, size), clean, np.zeros_like(copies), copies)
        return RowSets(text.train, np.arange(len(text.train)) < self.rows, np.zeros(0, np.uint64), test, {self.kind: planted})

    def members(self, planted: Planted) -> Flags:
        return planted.trained & planted.changed

    def non_members(self, corpus: Corpus) -> Population:
        clean, rng = corpus.primary_test_rows(), corpus.fresh_generator("noise")
        if corpus.is_text:
            noised = add_token_noise(clean, self.probability, corpus.vocab_size, rng)
        else:
            noised = render(add_noise(numbers_of(clean), self.probability, rng), corpus.row_tokens)
        usable = (noised != clean).any(1) & ~_known(corpus, noised)
        for kind, planted in corpus.planted.items():
            usable &= ~artifact_of(corpus, kind).recognizes(noised, planted)
        return whole_rows(noised[usable], corpus)


def _known(corpus: Corpus, rows: Ids) -> Flags:
    """Mask [N] of rows that are also trained, planted or test rows of the corpus."""
    parts = [*corpus.tests.values(), *(p.ids for p in corpus.planted.values())]
    if not corpus.is_text:  # the text's many rows are noised in ids that no text has
        parts.append(corpus.clean)
    known = {row.tobytes() for part in parts for row in part.astype(rows.dtype)}
    return np.array([row.tobytes() in known for row in rows], dtype=bool)
