"""The model columns of a checkpoint folder; of its files only `tinymem.json` and the header of the weights are read."""

from __future__ import annotations

import math
import re
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

STEP = re.compile(r"(?:(.*)[-_@])?step-?(\d{1,12})")
"""How Pythia's branches name steps of training; a folder has the model's name before it."""


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


def step_of(name: str) -> int | None:
    """The step of training that a revision or a folder is named after; None for other names.

    >>> step_of("step143000"), step_of("neox-14m-step-6000"), step_of("main")
    (143000, 6000, None)
    """
    found = STEP.fullmatch(name)
    return int(found[2]) if found else None


def series_of(name: str) -> str:
    """A model's name without the step of training in it.

    >>> series_of("EleutherAI/pythia-2.8b-deduped@step143000"), series_of("neox-14m-step-6000"), series_of("gpt2")
    ('EleutherAI/pythia-2.8b-deduped', 'neox-14m', 'gpt2')
    """
    found = STEP.fullmatch(name)
    return (found[1] or "model") if found else name


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
