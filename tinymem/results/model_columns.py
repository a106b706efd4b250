"""Facts about a model that every result row carries as flat columns, so that rows of many runs can be grouped and compared.

model_name    readable, the same for all seeds and epochs: `additive-3000-noise-4L`, `wiki-noise-16L+goldfish`
data          additive, multiplicative or wiki; null where the model came without a recipe, as do the other facts then
data_size     sequences per auxiliary task (math); null for text
n_layer       blocks
n_parameters  tied parameters counted once
epoch         epochs trained at this checkpoint
regularizer   kinds with the options that are not at their defaults, joined by ` + `; null for none

Of a checkpoint on disk, only `tinymem.json` and the header of the weights are read.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tinymem.errors import UserError
from tinymem.models.checkpoint import METADATA, REDUNDANT, WEIGHTS
from tinymem.recipe.recipe import Recipe

Row = dict[str, Any]
MODEL_COLUMNS = ("model_name", "data", "data_size", "n_layer", "n_parameters", "epoch", "regularizer")


def model_columns(recipe: Recipe | None, *, n_parameters: int | None, epoch: int | None, name: str | None = None) -> Row:
    """The facts of a model that a recipe trains for `epoch` epochs; of a model without a recipe, its name and size."""
    if recipe is None:
        return {**dict.fromkeys(MODEL_COLUMNS), "model_name": name, "n_parameters": n_parameters}
    data: Any = recipe.data
    kind, size = ("wiki", None) if data.kind == "wiki" else (data.family, data.size)
    regularizer = " + ".join(_said(section) for section in recipe.training.regularizers) or None
    parts = [kind, *([str(size)] if size else []), *(a.kind for a in recipe.artifacts), f"{recipe.model.n_layer}L"]
    facts = (
        "-".join(parts) + (f"+{regularizer}" if regularizer else ""),
        kind,
        size,
        recipe.model.n_layer,
        n_parameters,
        epoch,
        regularizer,
    )
    return dict(zip(MODEL_COLUMNS, facts, strict=True))


def checkpoint_columns(checkpoint: Path, metadata: Row, recipe: Recipe | None) -> Row:
    """The facts of a checkpoint folder with its `tinymem.json`."""
    return model_columns(
        recipe, n_parameters=stored_parameters(checkpoint), epoch=epoch_of(metadata, recipe), name=checkpoint.resolve().name
    )


def epoch_of(metadata: Row, recipe: Recipe | None) -> int | None:
    """Epochs trained: as `tinymem.json` says, else as its last measurement does, else as the recipe asks."""
    said = metadata.get("epoch", (metadata.get("metrics") or {}).get("epoch"))
    return int(said) if said is not None else recipe.training.epochs if recipe else None


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
    return sum(_product(shape) for shape in tensors.values())


def read_metadata(checkpoint: Path) -> Row:
    """A checkpoint's `tinymem.json`; empty for a folder without one."""
    from tinymem.runtime.files import read_object

    return read_object(checkpoint / METADATA) if (checkpoint / METADATA).is_file() else {}


def _said(section: Any) -> str:
    """`spectral-norm(strength=0.1)`: options at their defaults are left out."""
    given = {k: v for k, v in section.model_dump(mode="json").items() if k != "kind" and v != _default(section, k)}
    return section.kind + (f"({', '.join(f'{k}={v}' for k, v in given.items())})" if given else "")


def _default(section: Any, key: str) -> Any:
    default = type(section).model_fields[key].default
    return list(default) if isinstance(default, tuple) else default


def _product(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
