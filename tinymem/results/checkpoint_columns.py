"""The model columns of a checkpoint folder; of its files only `tinymem.json` and the header of the weights are read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinymem.models.gpt2_folder import HEAD
from tinymem.models.layout import is_redundant
from tinymem.models.weights import METADATA, stored_tensors
from tinymem.recipe.recipe import Recipe
from tinymem.results.model_columns import model_columns
from tinymem.results.row import Identity
from tinymem.runtime.files import read_object


def checkpoint_columns(checkpoint: Path, metadata: Any, recipe: Recipe | None) -> Identity:
    """The model columns of a checkpoint folder with its `tinymem.json`."""
    epoch, size = epoch_of(metadata, recipe), stored_parameters(checkpoint)
    columns = model_columns(recipe, n_parameters=size, epoch=epoch, name=checkpoint.resolve().name)
    return replace(columns, training_threads=", ".join(map(str, metadata.get("threads") or [])) or None)


def epoch_of(metadata: Any, recipe: Recipe | None) -> int | None:
    """Epochs trained: from `tinymem.json`, else from its last measurement, else from the recipe."""
    epoch = metadata.get("epoch", (metadata.get("metrics") or {}).get("epoch"))
    return int(epoch) if epoch is not None else recipe.training.epochs if recipe else None


def stored_parameters(checkpoint: Path) -> int:
    """Parameters in a checkpoint's files; a head that is stored beside the embedding counts once, as tied.

    Raises:
        UserError: a file is missing or damaged.
    """
    stored = stored_tensors(checkpoint)
    return sum(math.prod(tensor.shape) for name, tensor in stored.items() if not is_redundant(name, tensor) and name != HEAD)


def read_metadata(checkpoint: Path) -> Any:
    """A checkpoint's `tinymem.json`; empty for a folder without one."""
    return read_object(checkpoint / METADATA) if (checkpoint / METADATA).is_file() else {}
