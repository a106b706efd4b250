"""The rows of a text under protocol `paper`: random rows, disjoint sets, the text's own test split."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tinymem.data.artifact import artifacts_of, planted_by
from tinymem.data.math.sequences import Ids
from tinymem.data.planted import Flags, Planted
from tinymem.data.text.pool import TextPool
from tinymem.data.text.row_sets import RowSets, Text
from tinymem.data.text.row_stream import row_hashes
from tinymem.errors import UserError
from tinymem.recipe.data import WikiData
from tinymem.runtime.json import JsonObject

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe


def paper_sets(recipe: Recipe, data: WikiData, text: Text) -> RowSets:
    """Row sets with all artifacts of the recipe, each planted in separate rows."""
    artifacts = artifacts_of(recipe.artifacts)
    free = np.ones(len(text.train), dtype=bool)
    pool = TextPool(recipe.seed, text, free, _test_rows(data, text, free))
    claims, notes = {}, JsonObject()
    for a in artifacts:
        if claim := a.claim_text(pool):
            claims[a.kind] = claim.planted
            notes |= claim.notes
            pool.claims.append(claim.holds)
            pool.test = pool.test[~claim.holds(pool.test)]
    pool.taken = np.concatenate([row_hashes(pool.test), *(row_hashes(p.clean) for p in claims.values())])
    planted: dict[str, Planted] = {}
    for a in artifacts:
        planted[a.kind] = claims[a.kind] if a.kind in claims else planted_by(a, partial(a.plant_text, pool), data.row_tokens)
    forbidden = np.concatenate([pool.taken, *(row_hashes(p.ids) for p in planted.values())])
    return RowSets(text.train, ~pool.free, forbidden, pool.test, planted, notes)


def _test_rows(data: WikiData, text: Text, free: Flags) -> Ids:
    """Rows of the test split or, where there is none, the last rows of the training text, which are then no longer free."""
    if text.test is not None:
        return text.test.take(np.arange(len(text.test)))
    if len(free) <= data.test_rows:
        raise UserError(
            f"expected more than data.test_rows = {data.test_rows} rows of text, which has no test split, got {len(free)}; lower test_rows"
        )
    free[-data.test_rows :] = False
    return text.train.take(np.flatnonzero(~free))
