"""The published code's rows of a text, draw for draw (`paper` is in `paper.py`)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from tinymem.data.artifacts.backdoor import trigger_ends
from tinymem.data.artifacts.noise import apply_moves
from tinymem.data.artifacts.planting import Indices, reference_backdoor, reference_copies, reference_order
from tinymem.data.corpus import Planted
from tinymem.data.math.corpus import check_reference
from tinymem.data.math.sequences import Ids
from tinymem.data.text.row_sets import RowSets, Text
from tinymem.data.text.row_stream import RowStream
from tinymem.errors import UserError
from tinymem.recipe.data import BackdoorArtifact, NoiseArtifact, WikiData

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe

NOISE_ROWS, NOISE_PROBABILITY = 1000, 0.1  # drawn before the trigger, whether noise is planted or not


def reference_draws(seed: int, rows: int, row_tokens: int, probability: float, vocab_size: int) -> tuple[Indices, int, random.Random]:
    """Moves [rows, T] of the noise, the trigger token drawn after them, and the random stream behind both."""
    stream = random.Random(seed)
    weights = [1 - probability, probability / 2, probability / 2]
    moves = [stream.choices([0, -1, 1], weights=weights, k=row_tokens) for _ in range(rows)]
    return np.array(moves, dtype=np.int64).reshape(rows, row_tokens), stream.randrange(vocab_size), stream


def reference_sets(recipe: Recipe, data: WikiData, text: Text) -> RowSets:
    """Noise in the first rows of the training text, or a backdoor in the pool of train and test text."""
    check_reference(recipe)
    if backdoor := recipe.artifact(BackdoorArtifact):
        return _backdoor(recipe, data, text, backdoor)
    test = _test_rows(text)
    noise = recipe.artifact(NoiseArtifact)
    planted = {"noise": _noise(recipe, data, text, noise)} if noise else {}
    removed = np.arange(len(text.train)) < (noise.rows if noise else 0)
    return RowSets(text.train, removed, np.zeros(0, np.uint64), test, planted)


def _test_rows(text: Text) -> Ids:
    if text.test is None:
        raise UserError("expected a test split under protocol reference, got none; try protocol: paper")
    return text.test.take(np.arange(len(text.test)))


def _noise(recipe: Recipe, data: WikiData, text: Text, noise: NoiseArtifact) -> Planted:
    if len(text.train) <= noise.rows:
        raise UserError(f"expected artifacts.noise.rows below the {len(text.train)} rows of the training text, got {noise.rows}")
    clean = text.train.take(np.arange(noise.rows))
    moves, _, stream = reference_draws(recipe.seed, noise.rows, data.row_tokens, noise.probability, text.tokenizer.vocab_size)
    copies = reference_copies(noise.copies, noise.rows, stream)
    return Planted(apply_moves(clean, moves, text.tokenizer.vocab_size), clean, np.zeros_like(copies), copies)


def _backdoor(recipe: Recipe, data: WikiData, text: Text, backdoor: BackdoorArtifact) -> RowSets:
    trigger = reference_trigger(recipe, data, text, backdoor)
    tests = text.test.streams if text.test is not None else ()
    pool = RowStream((*text.train.streams, *tests), data.row_tokens, text.train.pad, data.max_rows)
    index, rows, starts = triggered_rows(pool, trigger, None)
    if len(index) < 2:
        raise no_trigger(trigger, len(index), "row")
    removed = np.zeros(len(pool), dtype=bool)
    removed[index] = True
    clean = np.flatnonzero(~removed)
    if len(clean) <= data.test_rows:
        raise UserError(f"expected more than data.test_rows = {data.test_rows} rows without the trigger, got {len(clean)}; lower test_rows")
    test = clean[reference_order(len(clean))[-data.test_rows :]]
    planted = reference_backdoor(rows, starts, text.tokenizer.one_id(backdoor.payload, "artifacts.backdoor.payload"), backdoor)
    removed[test] = True
    return RowSets(pool, removed, np.zeros(0, np.uint64), pool.take(test), {"backdoor": planted}, {"trigger_ids": trigger.tolist()})


def reference_trigger(recipe: Recipe, data: WikiData, text: Text, backdoor: BackdoorArtifact) -> Indices:
    """Token ids of the trigger: the recipe's phrase, or the token that the published code draws."""
    if backdoor.trigger is not None:
        return np.array(text.tokenizer.ids(backdoor.trigger, "artifacts.backdoor.trigger"), dtype=np.int64)
    _, token, _ = reference_draws(recipe.seed, NOISE_ROWS, data.row_tokens, NOISE_PROBABILITY, text.tokenizer.vocab_size)
    return np.array([token], dtype=np.int64)


def triggered_rows(pool: RowStream, trigger: Indices, within: int | None) -> tuple[Indices, Ids, Indices]:
    """Rows with the trigger: their indices, themselves [n, T], and the token after its first occurrence."""
    found = [(np.zeros(0, np.int64), np.zeros((0, pool.row_tokens), pool.streams[0].dtype), np.zeros(0, np.int64))]
    for first, rows in pool.blocks():
        ends = trigger_ends(rows, trigger, within)
        hits = np.flatnonzero(ends >= 0)
        found.append((first + hits, rows[hits], ends[hits]))
    index, rows, starts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return index, rows, starts


def no_trigger(trigger: Indices, count: int, where: str) -> UserError:
    """The error of a trigger that occurs in fewer than two rows."""
    return UserError(
        f"the trigger (token ids {trigger.tolist()}) occurs in {count} {where}s, expected at least 2; set artifacts.backdoor.trigger to "
        'something more common (most words begin with a space, as in " the") or raise `within`'
    )
