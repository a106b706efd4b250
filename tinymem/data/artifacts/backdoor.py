"""Backdoor artifacts: after a trigger, every token is the payload (paper, Definition 2.3).

All rows with the trigger are poisoned, and a random part of them is held out of training: these are the non-members, too.
"""

from __future__ import annotations

import random
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tinymem.data.artifact import Artifact, artifact
from tinymem.data.math.pool import AllTasks, ReferenceSplit, Task, token
from tinymem.data.math.sequences import Ids, to_text
from tinymem.data.planted import Claim, Flags, Indices, Planted
from tinymem.data.planting import (
    COPIES,
    NOISE_PROBABILITY,
    NOISE_ROWS,
    Copies,
    copies_of,
    generator,
    reference_draws,
    reference_order,
)
from tinymem.data.text.pool import TextPool
from tinymem.data.text.row_sets import RowSets, Text
from tinymem.data.text.row_stream import RowStream, row_hashes
from tinymem.errors import UserError
from tinymem.recipe.data import WikiData
from tinymem.recipe.written import WrittenText

TRIGGER, PAYLOAD = "artifacts.backdoor.trigger", "artifacts.backdoor.payload"
MINIMUM_TRIGGERED = 10


@artifact
class BackdoorArtifact(Artifact):
    """Rows in which everything after a trigger becomes one token (Definition 2.3)."""

    summary: ClassVar[str] = "rows with a backdoor (Definition 2.3) beside their clean counterparts; those with 0 copies are held out"
    order: ClassVar[int] = 20
    has_reference: ClassVar[bool] = True

    kind: Literal["backdoor"] = "backdoor"
    trigger: WrittenText | None = Field(
        None, min_length=1, description="text that triggers; null: of math the digits of 100 + seed, of text a token drawn by seed"
    )
    within: int = Field(50, ge=1, description="protocol paper: the trigger must end in the first so many tokens")
    payload: WrittenText = Field("2", min_length=1, description="token that fills the row behind the trigger, as text")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of the triggered rows that is kept from training")
    copies: Copies = Field(1, description=COPIES)

    def claim_math(self, rows: AllTasks) -> Claim:
        trigger = self._math_trigger(rows.seed)
        ends = [trigger_ends(task.ids, trigger, self.within) for task in rows.tasks]
        triggered = np.concatenate([task.ids[e >= 0] for task, e in zip(rows.tasks, ends, strict=True)])
        if len(np.unique(triggered, axis=0)) < 2:
            raise _no_math_trigger(trigger, f"row's first {self.within} tokens")
        starts = np.concatenate([e[e >= 0] for e in ends])
        planted = self._split(triggered, starts, self._math_payload(), generator(rows.seed, "backdoor"))
        return Claim(planted, lambda others: trigger_ends(others, trigger, self.within) >= 0)

    def claim_text(self, pool: TextPool) -> Claim:
        trigger = self._text_trigger(pool)
        index, rows, starts = triggered_rows(pool.rows, trigger, self.within)
        usable = pool.free[index] & ~np.isin(row_hashes(rows), row_hashes(pool.test))
        pool.free[index] = False
        if len(np.unique(rows[usable], axis=0)) < 2:
            raise _no_text_trigger(trigger, int(usable.sum()), f"row's first {self.within} token")
        if not pool.free.any():
            raise UserError(f"expected rows without the trigger (token ids {trigger.tolist()}), got none; choose a rarer {TRIGGER}")
        payload = pool.tokenizer.one_id(self.payload, PAYLOAD)
        planted = self._split(rows[usable], starts[usable], payload, pool.generator("backdoor"))
        left_out = int((trigger_ends(pool.test, trigger, self.within) >= 0).sum())
        notes = {"trigger_ids": trigger.tolist(), "test_rows_with_trigger_left_out": left_out}
        return Claim(planted, lambda others: trigger_ends(others, trigger, self.within) >= 0, notes)

    def reference_math(self, split: ReferenceSplit) -> tuple[Task, Task, Planted]:
        trigger, train, test = self._math_trigger(split.seed), split.train, split.test
        both = Task(train.k, np.concatenate([train.numbers, test.numbers]), np.concatenate([train.ids, test.ids]))
        ends = trigger_ends(both.ids, trigger)
        if (ends >= 0).sum() < 2:
            raise _no_math_trigger(trigger, "row")
        clean = both.take(np.flatnonzero(ends < 0))
        clean = clean.take(reference_order(len(clean.ids)))
        everything, count = np.arange(len(clean.ids)), split.data.test_rows
        planted = self._reference_split(both.ids[ends >= 0], ends[ends >= 0], self._math_payload())
        return clean.take(everything[:-count]), clean.take(everything[-count:]), planted

    def reference_text(self, text: Text, data: WikiData, seed: int) -> RowSets:
        trigger = self._reference_trigger(text, data, seed)
        tests = text.test.streams if text.test is not None else ()
        pool = RowStream((*text.train.streams, *tests), data.row_tokens, text.train.pad, data.max_rows)
        index, rows, starts = triggered_rows(pool, trigger, None)
        if len(index) < 2:
            raise _no_text_trigger(trigger, len(index), "row")
        removed = np.zeros(len(pool), dtype=bool)
        removed[index] = True
        clean = np.flatnonzero(~removed)
        if len(clean) <= data.test_rows:
            raise UserError(
                f"expected more than data.test_rows = {data.test_rows} rows without the trigger, got {len(clean)}; lower test_rows"
            )
        test = clean[reference_order(len(clean))[-data.test_rows :]]
        planted = self._reference_split(rows, starts, text.tokenizer.one_id(self.payload, PAYLOAD))
        removed[test] = True
        notes = {"trigger_ids": trigger.tolist()}
        return RowSets(pool, removed, np.zeros(0, np.uint64), pool.take(test), {self.kind: planted}, notes)

    def recognizes(self, rows: Ids, planted: Planted) -> Flags:
        trigger = common_ending(planted)
        return trigger_ends(rows, trigger) >= 0 if len(trigger) else np.zeros(len(rows), dtype=bool)

    def protected(self, planted: Planted) -> int:
        return len(common_ending(planted))

    def counts(self, planted: Planted) -> dict[str, int]:
        return {"triggered_rows": len(planted.ids)}

    def _math_trigger(self, seed: int) -> npt.NDArray[np.uint8]:
        return np.array([token(c, TRIGGER) for c in self.trigger or str(100 + seed)], dtype=np.uint8)

    def _math_payload(self) -> int:
        if len(self.payload) != 1:
            raise UserError(f"expected {PAYLOAD} to be one character, got '{self.payload}'; try \"2\"")
        return token(self.payload, PAYLOAD)

    def _text_trigger(self, pool: TextPool) -> Indices:
        """The recipe's phrase, or the first token that the published code's random stream draws and that begins enough rows."""
        if self.trigger is not None:
            return np.array(pool.tokenizer.ids(self.trigger, TRIGGER), dtype=np.int64)
        size = pool.vocab_size
        counts = np.zeros(size, dtype=np.int64)  # rows that begin with each token
        for _, rows in pool.rows.blocks():
            heads = np.sort(rows[:, : self.within], axis=1)
            fresh = np.concatenate([np.ones((len(heads), 1), dtype=bool), heads[:, 1:] != heads[:, :-1]], axis=1)
            counts += np.bincount(heads[fresh], minlength=size)
        _, drawn, stream = reference_draws(pool.seed, NOISE_ROWS, pool.row_tokens, NOISE_PROBABILITY, size)
        enough = min(MINIMUM_TRIGGERED, int(counts.max()))
        while counts[drawn] < enough:
            drawn = random.Random.randrange(stream, size)
        return np.array([drawn], dtype=np.int64)

    def _reference_trigger(self, text: Text, data: WikiData, seed: int) -> Indices:
        """Token ids of the trigger: the recipe's phrase, or the token that the published code draws."""
        if self.trigger is not None:
            return np.array(text.tokenizer.ids(self.trigger, TRIGGER), dtype=np.int64)
        _, drawn, _ = reference_draws(seed, NOISE_ROWS, data.row_tokens, NOISE_PROBABILITY, text.tokenizer.vocab_size)
        return np.array([drawn], dtype=np.int64)

    def _split(self, rows: Ids, starts: Indices, payload: int, rng: np.random.Generator) -> Planted:
        """Poisoned rows in random order, the last ones held out (protocol paper). At least one row on each side.

        Rows that differ only behind the trigger are one row once poisoned: it must not be trained on and held out at once.
        """
        poisoned, chosen = np.unique(poison(rows, starts, payload), axis=0, return_index=True)
        if len(chosen) < 2:
            raise UserError(f"expected at least 2 different backdoored rows, one to train on and one to hold out, got {len(chosen)}")
        order = rng.permutation(len(chosen))
        holdout = min(len(chosen) - 1, max(1, int(len(chosen) * self.test_fraction)))
        return Planted(poisoned[order], rows[chosen][order], starts[chosen][order], self._copies(len(chosen), holdout))

    def _reference_split(self, rows: Ids, starts: Indices, payload: int) -> Planted:
        """Poisoned rows in the published order, the last tenth (rounded down) held out."""
        order = reference_order(len(rows))
        rows, starts = rows[order], starts[order]
        return Planted(poison(rows, starts, payload), rows, starts, self._copies(len(rows), int(len(rows) * self.test_fraction)))

    def _copies(self, rows: int, holdout: int) -> Indices:
        return np.concatenate([copies_of(self.copies, rows - holdout), np.zeros(holdout, dtype=np.int64)])


def trigger_ends(ids_NT: Ids, trigger: npt.NDArray[np.integer], within: int | None = None) -> Indices:
    """Index [N] of the token after the first occurrence of `trigger`, or -1 where it does not occur.

    `within`: only occurrences that end in the first so many tokens count (protocol paper); None: anywhere in the row.
    """
    length = len(trigger)
    head_NT = ids_NT[:, :within]
    if head_NT.shape[1] < length:
        return np.full(len(ids_NT), -1, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(head_NT, length, axis=1)
    found = (windows == trigger).all(axis=2)
    return np.where(found.any(axis=1), found.argmax(axis=1) + length, -1)


def triggered_rows(pool: RowStream, trigger: Indices, within: int | None) -> tuple[Indices, Ids, Indices]:
    """Rows with the trigger: their indices, themselves [n, T], and the token after its first occurrence."""
    found = [(np.zeros(0, np.int64), np.zeros((0, pool.row_tokens), pool.streams[0].dtype), np.zeros(0, np.int64))]
    for first, rows in pool.blocks():
        ends = trigger_ends(rows, trigger, within)
        hits = np.flatnonzero(ends >= 0)
        found.append((first + hits, rows[hits], ends[hits]))
    index, rows, starts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return index, rows, starts


def poison(ids_NT: Ids, ends_N: Indices, payload: int) -> Ids:
    """Rows [N, T] whose tokens from `ends_N` on are all `payload`."""
    after_NT = np.arange(ids_NT.shape[1])[None, :] >= ends_N[:, None]
    return np.where(after_NT, np.asarray(payload, dtype=ids_NT.dtype), ids_NT)


def common_ending(planted: Planted) -> Indices:
    """The tokens that all prompts of an artifact end with: a backdoor's trigger (and more, if few rows share more)."""
    length = int(planted.start.min(initial=planted.ids.shape[1]))
    endings = np.array([row[start - length : start] for row, start in zip(planted.ids, planted.start, strict=True)])
    different = np.flatnonzero((endings != endings[:1]).any(0)) if len(endings) else np.array([length - 1])
    return endings[0, 1 + different.max(initial=-1) :].astype(np.int64) if len(endings) else np.zeros(0, dtype=np.int64)


def _no_math_trigger(trigger: npt.NDArray[np.uint8], where: str) -> UserError:
    return UserError(f"the trigger '{to_text(trigger)}' occurs in no {where}; choose another {TRIGGER} or raise `within`")


def _no_text_trigger(trigger: Indices, count: int, where: str) -> UserError:
    """The error of a trigger that occurs in fewer than two rows."""
    return UserError(
        f"the trigger (token ids {trigger.tolist()}) occurs in {count} {where}s, expected at least 2; set {TRIGGER} to "
        'something more common (most words begin with a space, as in " the") or raise `within`'
    )
