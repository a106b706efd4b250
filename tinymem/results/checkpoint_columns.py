"""The model columns of a checkpoint folder; of its files only `tinymem.json` and the header of the weights are read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from tinymem.hub.names import origin_of
from tinymem.models.gpt2_folder import HEAD
from tinymem.models.layout import is_redundant
from tinymem.models.metadata import Metadata
from tinymem.models.weights import stored_tensors
from tinymem.recipe.recipe import Recipe
from tinymem.results.model_columns import model_columns
from tinymem.results.row import Identity
from tinymem.results.step import step_of


def checkpoint_columns(checkpoint: Path, metadata: Metadata, recipe: Recipe | None, revision: str | None = None) -> Identity:
    """The model columns of a checkpoint folder with its `tinymem.json`; `revision`: by which it was asked for on the Hub."""
    epoch, size, origin = epoch_of(metadata, recipe), stored_parameters(checkpoint), origin_of(checkpoint)
    name = origin.repo if origin else checkpoint.resolve().name
    columns = model_columns(recipe, n_parameters=size, epoch=epoch, name=f"{name}@{revision}" if revision else name)
    return replace(
        columns,
        commit=origin.commit if origin else None,
        revision=revision,
        step=step_of(revision or checkpoint.resolve().name),
        training_threads=", ".join(map(str, metadata.threads or ())) or None,
    )


def epoch_of(metadata: Metadata, recipe: Recipe | None) -> int | None:
    """Epochs trained: from `tinymem.json`, else from its last measurement, else from the recipe."""
    last = metadata.metrics.epoch if metadata.metrics else None
    epoch = last if metadata.epoch is None else metadata.epoch
    return recipe.training.epochs if epoch is None and recipe else epoch


def stored_parameters(checkpoint: Path) -> int:
    """Parameters in a checkpoint's files; a head that is stored beside the embedding counts once, as tied.

    Raises:
        UserError: a file is missing or damaged.
    """
    stored = stored_tensors(checkpoint)
    return sum(math.prod(tensor.shape) for name, tensor in stored.items() if not is_redundant(name, tensor) and name != HEAD)
