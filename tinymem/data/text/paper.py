"""The rows of a text under protocol `paper`: random rows, disjoint sets, the text's own test split."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinymem.data.artifacts.backdoor import trigger_ends
from tinymem.data.artifacts.canary import TEXT_TEMPLATE, make_canary, random_secrets
from tinymem.data.artifacts.noise import add_token_noise
from tinymem.data.artifacts.planting import Indices, copies_of, generator, repeated, split_backdoor
from tinymem.data.corpus import Planted
from tinymem.data.math.sequences import Ids
from tinymem.data.text.reference import NOISE_PROBABILITY, NOISE_ROWS, no_trigger, reference_draws, triggered_rows
from tinymem.data.text.row_sets import RowSets, Text
from tinymem.data.text.row_stream import Hashes, RowStream, row_hashes
from tinymem.errors import UserError
from tinymem.recipe.data import Artifact, BackdoorArtifact, CanaryArtifact, DuplicationArtifact, NoiseArtifact, WikiData

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe

MINIMUM_TRIGGERED = 10
FLAGS_AT_A_TIME = 1 << 16
Keep = Callable[[Ids], Any]


@dataclass
class _Pool:
    """Training rows that nothing has taken yet. Rows are given out only if no test or artifact row equals them."""

    rows: RowStream
    free: npt.NDArray[np.bool_]
    taken: Hashes

    def draw(self, count: int, rng: np.random.Generator, artifact: Artifact) -> Ids:
        """Different random rows [count, T], taken from the pool."""
        free = int(np.count_nonzero(self.free))
        candidates = _places(self.free, rng.choice(free, min(2 * count + 64, free), replace=False))
        rows = self.rows.take(candidates)
        hashes = row_hashes(rows)
        first = np.zeros(len(rows), dtype=bool)
        first[np.unique(hashes, return_index=True)[1]] = True
        usable = np.flatnonzero(first & ~np.isin(hashes, self.taken))[:count]
        if len(usable) < count or free <= count:
            raise UserError(
                f"expected artifacts.{artifact.kind}.rows of at most {min(len(usable), free - 1)} different clean rows, "
                f"got {count}; lower it or use more text"
            )
        self.free[candidates[usable]] = False
        self.taken = np.concatenate([self.taken, hashes[usable]])
        return rows[usable]


def _places(flags: npt.NDArray[np.bool_], ranks: Indices) -> Indices:
    """Where the true flags of these ranks stand, as `np.flatnonzero(flags)[ranks]`, in little memory."""
    places, before = np.empty(len(ranks), dtype=np.int64), 0
    for first in range(0, len(flags), FLAGS_AT_A_TIME):
        here = first + np.flatnonzero(flags[first : first + FLAGS_AT_A_TIME])
        mine = (ranks >= before) & (ranks < before + len(here))
        places[mine] = here[ranks[mine] - before]
        before += len(here)
    return places


def paper_sets(recipe: Recipe, data: WikiData, text: Text) -> RowSets:
    """All artifacts of the recipe, each on rows of its own."""
    pool = _Pool(text.train, np.ones(len(text.train), dtype=bool), np.zeros(0, np.uint64))
    test = _test_rows(data, text, pool)
    planted: dict[str, Planted] = {}
    notes: dict[str, Any] = {}
    clear: Keep = lambda rows: np.ones(len(rows), dtype=bool)  # noqa: E731
    if backdoor := recipe.artifact(BackdoorArtifact):
        trigger = _trigger(recipe, data, text, pool, backdoor)
        clear = lambda rows: trigger_ends(rows, trigger, backdoor.within) < 0  # noqa: E731
        planted["backdoor"] = _backdoor(recipe, text, pool, backdoor, trigger, test)
        notes = {"trigger_ids": trigger.tolist(), "test_rows_with_trigger_left_out": int((~clear(test)).sum())}
        test = test[clear(test)]
    pool.taken = np.concatenate([row_hashes(test), *(row_hashes(p.clean) for p in planted.values())])
    if noise := recipe.artifact(NoiseArtifact):
        planted = {"noise": _noise(recipe, text, pool, noise, clear), **planted}
    if duplication := recipe.artifact(DuplicationArtifact):
        rows = pool.draw(duplication.rows, generator(recipe, "duplication"), duplication)
        planted["duplication"] = repeated(rows, copies_of(duplication.copies, duplication.rows))
    if canary := recipe.artifact(CanaryArtifact):
        planted["canary"] = _canaries(recipe, data, text, pool, canary)
    forbidden = np.concatenate([pool.taken, *(row_hashes(p.ids) for p in planted.values())])
    return RowSets(text.train, ~pool.free, forbidden, test, planted, notes)


def _test_rows(data: WikiData, text: Text, pool: _Pool) -> Ids:
    if text.test is not None:
        return text.test.take(np.arange(len(text.test)))
    if len(pool.free) <= data.test_rows:
        raise UserError(
            f"expected more than data.test_rows = {data.test_rows} rows of text, which has no test split, "
            f"got {len(pool.free)}; lower test_rows"
        )
    pool.free[-data.test_rows :] = False
    return pool.rows.take(np.flatnonzero(~pool.free))


def _trigger(recipe: Recipe, data: WikiData, text: Text, pool: _Pool, backdoor: BackdoorArtifact) -> Indices:
    """The recipe's phrase, or the first token that the published code's random stream draws and that begins enough rows."""
    if backdoor.trigger is not None:
        return np.array(text.tokenizer.ids(backdoor.trigger, "artifacts.backdoor.trigger"), dtype=np.int64)
    size = text.tokenizer.vocab_size
    counts = np.zeros(size, dtype=np.int64)  # rows that begin with each token
    for _, rows in pool.rows.blocks():
        heads = np.sort(rows[:, : backdoor.within], axis=1)
        fresh = np.concatenate([np.ones((len(heads), 1), dtype=bool), heads[:, 1:] != heads[:, :-1]], axis=1)
        counts += np.bincount(heads[fresh], minlength=size)
    _, token, stream = reference_draws(recipe.seed, NOISE_ROWS, data.row_tokens, NOISE_PROBABILITY, size)
    enough = min(MINIMUM_TRIGGERED, int(counts.max()))
    while counts[token] < enough:
        token = random.Random.randrange(stream, size)
    return np.array([token], dtype=np.int64)


def _backdoor(recipe: Recipe, text: Text, pool: _Pool, backdoor: BackdoorArtifact, trigger: Indices, test: Ids) -> Planted:
    index, rows, starts = triggered_rows(pool.rows, trigger, backdoor.within)
    usable = pool.free[index] & ~np.isin(row_hashes(rows), row_hashes(test))
    pool.free[index] = False
    if len(np.unique(rows[usable], axis=0)) < 2:
        raise no_trigger(trigger, int(usable.sum()), f"row's first {backdoor.within} token")
    if not pool.free.any():
        raise UserError(
            f"expected rows without the trigger (token ids {trigger.tolist()}), got none; choose a rarer artifacts.backdoor.trigger"
        )
    payload = text.tokenizer.one_id(backdoor.payload, "artifacts.backdoor.payload")
    return split_backdoor(rows[usable], starts[usable], payload, backdoor, generator(recipe, "backdoor"))


def _noise(recipe: Recipe, text: Text, pool: _Pool, noise: NoiseArtifact, clear: Keep) -> Planted:
    rng = generator(recipe, "noise")
    clean = pool.draw(noise.rows, rng, noise)
    noised = add_token_noise(clean, noise.probability, text.tokenizer.vocab_size, rng)
    while not (fine := clear(noised)).all():  # noise made a trigger: draw those rows' noise again
        noised[~fine] = add_token_noise(clean[~fine], noise.probability, text.tokenizer.vocab_size, rng)
    copies = copies_of(noise.copies, noise.rows)
    return Planted(noised, clean, np.zeros_like(copies), copies)


def _canaries(recipe: Recipe, data: WikiData, text: Text, pool: _Pool, artifact: CanaryArtifact) -> Planted:
    """Each canary begins a row; the text of a clean row follows it."""
    rng = generator(recipe, "canary")

    def encode(words: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = text.tokenizer.tokenizer.encode(words, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    secrets = random_secrets(artifact, artifact.rows, rng)
    canaries = [make_canary(artifact, TEXT_TEMPLATE, i, secret, encode) for i, secret in enumerate(secrets)]
    longest = max(len(c.ids) for c in canaries)
    if longest > data.row_tokens:
        raise UserError(f"expected canaries of at most data.row_tokens = {data.row_tokens} tokens, got {longest}; shorten the template")
    rows = pool.draw(artifact.rows, rng, artifact)
    for row, canary in zip(rows, canaries, strict=True):
        row[len(canary.ids) :] = row[: len(row) - len(canary.ids)].copy()
        row[: len(canary.ids)] = canary.ids
    planted = repeated(rows, copies_of(artifact.copies, artifact.rows))
    return replace(planted, start=np.array([c.start for c in canaries]), end=np.array([c.end for c in canaries]))
