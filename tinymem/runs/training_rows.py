"""What a model has memorized of its training data itself, for recipes that plant nothing in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tinymem.data.corpus import Corpus
from tinymem.data.rows import Rows
from tinymem.evaluation.probes import memorized_rows
from tinymem.recipe.recipe import Recipe
from tinymem.results.run_folder import TRAINING_ROWS
from tinymem.results.share import Share
from tinymem.runtime.files import write_json

SAMPLE = 1000


def training_rows_memorized(model: nn.Module, corpus: Corpus, recipe: Recipe) -> Share:
    """Share of training rows that greedy decoding continues word for word, from the recipe's prompt to match or the row's own end.

    Of more than 1,000 rows that are longer than the prompt, 1,000 are drawn with the recipe's seed.
    """
    window = recipe.evaluation
    ends = np.minimum(corpus.row_ends(corpus.clean, recipe.protocol), window.prompt + window.match)
    long = np.flatnonzero(ends > window.prompt)
    drawn = np.random.default_rng(recipe.seed).permutation(long)[:SAMPLE]
    if not len(drawn):
        return Share(0, 0)
    device = next(model.parameters()).device
    rows = Rows.of(np.asarray(corpus.clean[drawn]), window.prompt, torch.from_numpy(ends[drawn].astype(np.int64))).to(device)
    return Share(int(memorized_rows(model, rows, batch_size=window.batch_size).sum()), len(drawn))


def training_rows_stage(run: Path, model: nn.Module, corpus: Corpus, recipe: Recipe) -> None:
    """Measure the training rows of a run and store the share in its folder."""
    write_json(run / TRAINING_ROWS, training_rows_memorized(model, corpus, recipe).as_json())
