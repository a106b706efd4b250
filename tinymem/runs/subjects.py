"""What `tinymem mitigate` and `tinymem evaluate` work on: a loaded checkpoint with its own corpus, or with rows from files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from tinymem.data.corpus import Corpus
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.run import Subject, subject_of_corpus, subject_of_rows
from tinymem.models.adapters import dtype_name, vocabulary_of
from tinymem.models.checkpoint import Checkpoint
from tinymem.models.weights import METADATA, weights_id
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.evaluation import DEFAULT, Robustness
from tinymem.recipe.recipe import Recipe, parse_recipe
from tinymem.results.checkpoint_columns import checkpoint_columns
from tinymem.results.row import Identity
from tinymem.runs.own_rows import OwnRows, RowFiles, read_own_rows
from tinymem.runtime.device import describe_device
from tinymem.runtime.files import content_id
from tinymem.training.checkpoints import corpus_of, optimizer_state_of, recipe_of, run_name


@dataclass(frozen=True)
class Measuring:
    """Measurements chosen on the command line; None leaves the recipe's."""

    metrics: tuple[str, ...] | None = None
    ks: tuple[int, ...] | None = None
    robustness: bool = False

    def request(self) -> MeasurementRequest:
        """The measurement request for rows without a recipe, which have one prompt length.

        Raises:
            UserError: further prompt lengths, which rows from files do not have.
        """
        if self.ks:
            raise UserError("expected --ks for a checkpoint's own corpus, got rows from files; give --prompt instead")
        return MeasurementRequest(self.metrics or (DEFAULT,), (), Robustness() if self.robustness else None)


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
        device=describe_device(device),
        dtype=dtype_name(loaded.model),
    )


def own_corpus(loaded: Checkpoint, checkpoint: Path, named: Path | None = None) -> tuple[Recipe, Corpus]:
    """The recipe and corpus of a checkpoint; `named`: a folder of the corpus, or its text (`training.checkpoints.corpus_of`).

    Raises:
        UserError: a checkpoint without its recipe, no corpus, or another one than it was trained on.
    """
    recipe = recipe_of(checkpoint, loaded.metadata)
    if recipe is None:
        raise UserError(f"{checkpoint} has no {METADATA} with its recipe; say which rows to use with --forget and --retain")
    return recipe, corpus_of(checkpoint, recipe, loaded.metadata.corpus_sha256, named)


def changed_recipe(recipe: Recipe, files: RowFiles, measuring: Measuring, changes: Changes) -> Recipe:
    """The recipe with what the command line gives: window, metrics, protocol and forget fraction; its seed is the corpus's, and stays."""
    wanted = {"prompt": files.prompt, "match": files.match, "metrics": measuring.metrics, "ks": measuring.ks}
    values = recipe.model_dump(mode="json")
    values["evaluation"] |= {key: value for key, value in wanted.items() if value is not None}
    values["protocol"] = changes.protocol or recipe.protocol
    if changes.forget_fraction is not None:
        values["mitigation"]["forget_fraction"] = changes.forget_fraction
    if measuring.robustness:
        values["mitigation"]["robustness"] = values["mitigation"]["robustness"] or True
    return parse_recipe(values)


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


def forbidden_of(protocol: Protocol, checkpoint: Path) -> int | None:
    """The token that decoding may not produce: the checkpoint's EOS under protocol reference, if it has one."""
    return min(ModelTokens(checkpoint).eos, default=None) if protocol == "reference" else None


def subject_of_own_corpus(
    loaded: Checkpoint, checkpoint: Path, files: RowFiles, changes: Changes, identity: Identity, measuring: Measuring
) -> tuple[Subject, str]:
    """A checkpoint with its own corpus, and the id of the choice of forget rows; raises as `own_corpus`."""
    recipe, corpus = own_corpus(loaded, checkpoint, files.corpus)
    recipe = changed_recipe(recipe, files, measuring, changes)
    if changes.seed is not None:  # after the corpus: this seed is the mitigation's
        recipe = recipe.model_copy(update={"seed": changes.seed})
    optimizer = optimizer_state_of(checkpoint, loaded.metadata)
    identity = replace(identity, protocol=recipe.protocol, forget_fraction=recipe.mitigation.forget_fraction)
    fraction = [] if changes.forget_fraction is None else [changes.forget_fraction]
    forgotten = content_id([None, None, files.prompt, files.match, *fraction])
    return subject_of_corpus(loaded.model, corpus, recipe, identity=identity, optimizer_state=optimizer), forgotten


def subject_of_files(
    loaded: Checkpoint, checkpoint: Path, files: RowFiles, changes: Changes, identity: Identity, request: MeasurementRequest
) -> tuple[Subject, str]:
    """A checkpoint with rows from files, and the id of those rows.

    Raises:
        UserError: no rows to forget or none to keep, rows that cannot be read, or none memorized where only those are to be forgotten.
    """
    if files.forget is None or files.retain is None:
        raise UserError("expected both --forget and --retain, got one of them; the retain rows say what must not be lost")
    recipe = recipe_of(checkpoint, loaded.metadata)
    own, protocol = own_rows(loaded, checkpoint, files, recipe), protocol_of(changes.protocol, recipe)
    own_fraction = recipe.mitigation.forget_fraction if recipe else 0.5
    fraction = own_fraction if changes.forget_fraction is None else changes.forget_fraction
    identity = replace(
        identity, protocol=protocol, forget=None, forget_fraction=fraction, prompt=own.prompt, match=own.match, rows_left_out=own.left_out
    )
    subject = subject_of_rows(
        loaded.model, own.forget, own.retain, seed=changes.seed or 0, identity=identity, request=request,
        protocol=protocol, forbid=forbidden_of(protocol, checkpoint), forget_fraction=fraction,
        memorized_only=files.forget_rows == "memorized",
    )  # fmt: skip
    memorized = subject.before.memorized_share("rows")
    if memorized.count < memorized.rows:
        warnings.warn(
            f"{memorized.rows - memorized.count} of {memorized.rows} rows to forget are not memorized by the model{_given(files)}",
            stacklevel=2,
        )
    return subject, content_id([own.digest, fraction, *([] if files.forget_rows == "all" else [files.forget_rows])])


def _given(files: RowFiles) -> str:
    return "" if files.forget_rows == "memorized" else "; --forget-rows memorized gives the method only those that are"


def own_rows(loaded: Checkpoint, checkpoint: Path, files: RowFiles, recipe: Recipe | None) -> OwnRows:
    """The rows of files, checked against a checkpoint's vocabulary; raises as `read_own_rows`."""
    size = vocabulary_of(loaded.model)
    defaults = (recipe.evaluation.prompt, recipe.evaluation.match) if recipe else None
    return read_own_rows(files, checkpoint, size, defaults)
