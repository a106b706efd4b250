"""Construction of a recipe's corpus, from math sequences or from text."""

from __future__ import annotations

from pathlib import Path

from tinymem.data.corpus import Corpus
from tinymem.data.corpus_files import save_corpus
from tinymem.recipe.data import MathData
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import planned_corpus_bytes
from tinymem.runtime.memory import refuse_beyond_memory
from tinymem.runtime.progress import Progress, progress_of


def refuse_large_corpus(recipe: Recipe) -> None:
    """Raise UserError where the rows that a recipe describes cannot fit into memory."""
    refuse_beyond_memory(planned_corpus_bytes(recipe), "cpu", "the recipe's corpus", "lower the numbers of rows and tokens in data")


def refuse_more_rows_than_there_are(recipe: Recipe) -> None:
    """Raise UserError where artifacts take more rows of a math corpus than it has, as far as that is known before any is made."""
    if not isinstance(recipe.data, MathData):
        return
    from tinymem.data.artifact import artifacts_of

    free = recipe.data.primary_size - recipe.data.test_rows
    for artifact in artifacts_of(recipe.artifacts):
        free -= artifact.rows_of_primary(free, recipe.data, recipe.protocol)


def make_corpus(recipe: Recipe, directory: Path | None = None, *, workers: int | None = None, progress: Progress | bool = True) -> Corpus:
    """Make the rows that a recipe describes; the same recipe gives the same rows, on any day and with any number of workers.

    Args:
        recipe: its seed, protocol, data and artifacts count.
        directory: where to save the corpus, which appears whole or not at all. Text is always saved, in the cache if nowhere else.
        workers: processes that tokenize text; default: one per core.
        progress: as of `tinymem.run`.

    Raises:
        UserError: text that cannot be read, a trigger that never occurs, more planted rows than clean ones, rows longer than
            `data.row_tokens`, more of them than fit into memory, a full disk.
    """
    refuse_large_corpus(recipe)
    if isinstance(recipe.data, MathData):
        from tinymem.data.math.corpus import math_corpus

        corpus = math_corpus(recipe, recipe.data)
        if directory is not None:
            save_corpus(corpus, directory)
        return corpus
    from tinymem.data.text.corpus import wiki_corpus

    return wiki_corpus(recipe, recipe.data, directory, workers=workers, progress=progress_of(progress))
