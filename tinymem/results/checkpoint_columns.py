"""The model columns of a checkpoint folder; of its files only `tinymem.json` and the header of the weights are read."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from tinymem.errors import UserError
from tinymem.models.checkpoint import METADATA, REDUNDANT, WEIGHTS
from tinymem.recipe.recipe import Recipe
from tinymem.results.model_columns import model_columns
from tinymem.results.row import Identity
from tinymem.runtime.files import read_object


def checkpoint_columns(checkpoint: Path, metadata: Any, recipe: Recipe | None) -> Identity:
    """The model columns of a checkpoint folder with its `tinymem.json`."""
    return model_columns(
        recipe, n_parameters=stored_parameters(checkpoint), epoch=epoch_of(metadata, recipe), name=checkpoint.resolve().name
    )


def epoch_of(metadata: Any, recipe: Recipe | None) -> int | None:
    """Epochs trained: from `tinymem.json`, else from its last measurement, else from the recipe."""
    epoch = metadata.get("epoch", (metadata.get("metrics") or {}).get("epoch"))
    return int(epoch) if epoch is not None else recipe.training.epochs if recipe else None


def stored_parameters(checkpoint: Path) -> int | None:
    """Parameters in a checkpoint's safetensors file, or None if it has none (several files, or another format).

    Raises:
        UserError: the file is damaged.
    """
    path = checkpoint / WEIGHTS
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        tensors = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__" and not name.endswith(REDUNDANT)}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError):
        raise UserError(f"expected a whole safetensors file at {path}, got a damaged one; copy the checkpoint again") from None
    return sum(math.prod(shape) for shape in tensors.values())


def read_metadata(checkpoint: Path) -> Any:
    """A checkpoint's `tinymem.json`; empty for a folder without one."""
    return read_object(checkpoint / METADATA) if (checkpoint / METADATA).is_file() else {}
