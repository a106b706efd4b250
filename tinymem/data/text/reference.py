"""The published code's rows of a text, draw for draw (`paper` is in `paper.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinymem.data.artifact import reference_artifact
from tinymem.data.text.row_sets import RowSets, Text, test_rows
from tinymem.recipe.data import WikiData

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe


def reference_sets(recipe: Recipe, data: WikiData, text: Text) -> RowSets:
    """Noise in the first rows of the training text, or a backdoor in the pool of train and test text."""
    artifact = reference_artifact(recipe.artifacts)
    if artifact is not None:
        return artifact.reference_text(text, data, recipe.seed)
    test = test_rows(text)
    return RowSets(text.train, np.zeros(len(text.train), dtype=bool), np.zeros(0, np.uint64), test, {})
