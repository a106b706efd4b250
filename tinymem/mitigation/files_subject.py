"""A loaded checkpoint of any family with rows from files as the subject of mitigations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from torch import nn

from tinymem.data.own_rows import OwnRows, RowFiles, read_own_rows
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.subject import Subject, measuring_bar, subject_of_rows
from tinymem.models.adapters import dtype_name, vocabulary_of
from tinymem.models.checkpoint import Checkpoint
from tinymem.models.spread import devices_of
from tinymem.models.weights import weights_id
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.recipe import Recipe
from tinymem.results.checkpoint_columns import checkpoint_columns
from tinymem.results.row import Identity
from tinymem.runtime.device import describe_device
from tinymem.runtime.files import content_id
from tinymem.runtime.progress import Progress
from tinymem.training.checkpoints import recipe_of, run_name


@dataclass(frozen=True)
class Changes:
    """What the command line changes of a checkpoint's recipe; None leaves it."""

    protocol: str | None = None
    forget_fraction: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.forget_fraction is not None and not 0 < self.forget_fraction <= 1:
            raise UserError(f"expected --forget-fraction above 0 and at most 1, got {self.forget_fraction:g}")


def identity_of(loaded: Checkpoint, checkpoint: Path, device: str, revision: str | None = None) -> Identity:
    """Columns that all result rows of a checkpoint share; `revision`: by which it was asked for on the Hub."""
    columns = checkpoint_columns(checkpoint, loaded.metadata, recipe_of(checkpoint, loaded.metadata), revision)
    return replace(
        columns,
        n_parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        run=run_name(checkpoint),
        model_id=weights_id(checkpoint, loaded.hashes),
        corpus_sha256=loaded.metadata.corpus_sha256,
        device_type=device,
        device=describe_device(device, devices_of(loaded.model)),
        dtype=dtype_name(loaded.model),
    )


def protocol_of(chosen: str | None, recipe: Recipe | None) -> Protocol:
    """The protocol that is chosen, else the recipe's, else `paper`.

    Raises:
        UserError: another word.
    """
    known: tuple[Protocol, ...] = get_args(Protocol)
    wanted = chosen or (recipe.protocol if recipe else "paper")
    found = next((protocol for protocol in known if protocol == wanted), None)
    if found is None:
        raise UserError(f"expected --protocol {' or '.join(known)}, got '{wanted}'")
    return found


def forbidden_of(protocol: Protocol, checkpoint: Path, model: nn.Module) -> int | None:
    """The token that decoding may not produce: the checkpoint's EOS under protocol reference, if its model knows one."""
    known = (token for token in ModelTokens(checkpoint).eos if token < vocabulary_of(model))
    return min(known, default=None) if protocol == "reference" else None


def subject_of_files(
    loaded: Checkpoint,
    checkpoint: Path,
    files: RowFiles,
    changes: Changes,
    identity: Identity,
    request: MeasurementRequest,
    progress: Progress | bool = False,
) -> tuple[Subject, str]:
    """A checkpoint with rows from files, and the id of those rows; `progress` shows the measurement.

    Raises:
        UserError: no rows to forget or none to keep, rows that cannot be read, or none memorized where only those are to be forgotten.
    """
    if files.forget is None or files.retain is None:
        raise UserError("expected both --forget and --retain, got one of them; the retain rows say what must not be lost")
    recipe = recipe_of(checkpoint, loaded.metadata)
    own, protocol = own_rows(loaded, checkpoint, files, recipe), protocol_of(changes.protocol, recipe)
    fraction = fraction_of(changes.forget_fraction, recipe)
    identity = replace(
        identity,
        protocol=protocol,
        forget=None,
        forget_fraction=fraction,
        prompt=own.prompt,
        match=own.match,
        rows_left_out=own.left_out,
        rows_id=rows_id_of(own, files),
    )
    with measuring_bar(progress) as bar:
        subject = subject_of_rows(
            loaded.model, own.forget, own.retain, seed=changes.seed or 0, identity=identity, request=request,
            protocol=protocol, forbid=forbidden_of(protocol, checkpoint, loaded.model), forget_fraction=fraction,
            memorized_only=files.forget_rows == "memorized", bar=bar,
        )  # fmt: skip
    memorized = subject.before.memorized_share("rows")
    if memorized.count < memorized.rows:
        warnings.warn(
            f"{memorized.rows - memorized.count} of {memorized.rows} rows to forget are not memorized by the model{_given(files)}",
            stacklevel=2,
        )
    return subject, files_id(own, fraction, files)


def fraction_of(chosen: float | None, recipe: Recipe | None) -> float:
    """The share of the memorized rows that is chosen for a method, else the recipe's, else a half."""
    own = recipe.mitigation.forget_fraction if recipe else 0.5
    return own if chosen is None else chosen


def rows_id_of(own: OwnRows, files: RowFiles) -> str:
    """Content id of rows from files, and of whether a method is given the memorized ones only."""
    return own.digest if files.forget_rows == "all" else content_id([own.digest, files.forget_rows], 16)


def files_id(own: OwnRows, fraction: float, files: RowFiles) -> str:
    """Content id of rows from files and of which of them a method is given: what decides a result beside model, seed and protocol."""
    return content_id([own.digest, fraction, *([] if files.forget_rows == "all" else [files.forget_rows])])


def _given(files: RowFiles) -> str:
    return "" if files.forget_rows == "memorized" else "; --forget-rows memorized gives the method only those that are"


def own_rows(loaded: Checkpoint, checkpoint: Path, files: RowFiles, recipe: Recipe | None) -> OwnRows:
    """The rows of files, checked against a checkpoint's vocabulary; raises as `read_own_rows`."""
    size = vocabulary_of(loaded.model)
    defaults = (recipe.evaluation.prompt, recipe.evaluation.match) if recipe else None
    return read_own_rows(files, checkpoint, size, defaults)
