"""The columns that say what a model is: from its recipe, its file and `tinymem.json`; `results.row.Identity` explains each.

Of a checkpoint on disk, only `tinymem.json` and the header of the weights are read.
"""

from __future__ import annotations

import json
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tinymem.errors import UserError
from tinymem.models.checkpoint import METADATA, REDUNDANT, WEIGHTS
from tinymem.recipe.data import MathData
from tinymem.recipe.recipe import Recipe
from tinymem.results.row import Identity, MeasuredRow
from tinymem.runtime.files import content_id



def model_columns(recipe: Recipe | None, *, n_parameters: int | None, epoch: int | None, name: str | None = None) -> Identity:
    """The model columns of what a recipe trains for `epoch` epochs; of a model without a recipe, its name and size."""
    if recipe is None:
        return Identity(model_name=name, n_parameters=n_parameters)
    data = recipe.data
    kind, size = (data.family, data.size) if isinstance(data, MathData) else ("wiki", None)
    regularizer = " + ".join(map(_regularizer, recipe.training.regularizers)) or None
    parts = [kind, *([str(size)] if size else []), *(a.kind for a in recipe.artifacts), f"{recipe.model.n_layer}L"]
    return Identity(
        model_name="-".join(parts) + (f"+{regularizer}" if regularizer else ""),
        data=kind,
        data_size=size,
        n_layer=recipe.model.n_layer,
        n_parameters=n_parameters,
        epoch=epoch,
        regularizer=regularizer,
    )


def recipe_columns(recipe: Recipe, *, epoch: int | None = None, training_seconds: float | None = None) -> Identity:
    """All columns that a run's recipe decides, for rows that do not tell; `epoch` defaults to the last one."""
    model = model_columns(recipe, n_parameters=None, epoch=recipe.training.epochs if epoch is None else epoch)
    family = family_of(recipe)
    return replace(model, seed=recipe.seed, protocol=recipe.protocol, family=family, training_seconds=training_seconds)


def filled(row: MeasuredRow, columns: Identity) -> MeasuredRow:
    """The row, with those of the columns that it does not hold itself."""
    missing = {f.name: getattr(columns, f.name) for f in fields(Identity) if getattr(row, f.name) is None}
    return replace(row, **missing)


def family_of(recipe: Recipe) -> str:
    """Id shared by models that differ only in their seed (and what hangs on it), regularizers and epochs: those that one table compares."""
    values = recipe.model_dump(mode="json")
    return content_id(
        {
            **{key: values[key] for key in ("protocol", "data", "model")},
            "artifacts": [{key: value for key, value in a.items() if key != "trigger"} for a in values["artifacts"]],
            "training": {key: values["training"][key] for key in ("batch_size", "learning_rate", "weight_decay")},
            "window": {key: values["evaluation"][key] for key in ("prompt", "match")},
        }
    )


def checkpoint_columns(checkpoint: Path, metadata: Any, recipe: Recipe | None) -> Identity:
    """The model columns of a checkpoint folder with its `tinymem.json`."""
    return model_columns(
        recipe, n_parameters=stored_parameters(checkpoint), epoch=epoch_of(metadata, recipe), name=checkpoint.resolve().name
    )


def epoch_of(metadata: Any, recipe: Recipe | None) -> int | None:
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


    """A checkpoint's `tinymem.json`; empty for a folder without one."""
    from tinymem.runtime.files import read_object

    return read_object(checkpoint / METADATA) if (checkpoint / METADATA).is_file() else {}


def _regularizer(section: Any) -> str:
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
