"""What `tinymem mitigate` and `tinymem evaluate` work on without rows from files: a loaded checkpoint with its own corpus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tinymem.data.corpus import Corpus
from tinymem.data.own_rows import RowFiles
from tinymem.errors import UserError
from tinymem.evaluation.metric import chosen_metrics
from tinymem.mitigation.files_subject import Changes
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.run import Subject, subject_of_corpus
from tinymem.mitigation.subject import measuring_bar
from tinymem.models.checkpoint import Checkpoint
from tinymem.models.weights import METADATA
from tinymem.recipe.evaluation import ALL, DEFAULT, Robustness
from tinymem.recipe.recipe import Recipe, parse_recipe
from tinymem.results.row import Identity
from tinymem.runtime.files import content_id
from tinymem.runtime.progress import Progress, progress_of
from tinymem.training.checkpoints import corpus_of, corpus_sha256_of, is_made_again, optimizer_state_of, recipe_of


@dataclass(frozen=True)
class Measuring:
    """Measurements chosen on the command line; None leaves the recipe's."""

    metrics: tuple[str, ...] | None = None
    ks: tuple[int, ...] | None = None
    robustness: bool = False

    def __post_init__(self) -> None:
        chosen_metrics(tuple(name for name in self.metrics or () if name != ALL))  # refuses unknown names before anything is loaded

    def request(self) -> MeasurementRequest:
        """The measurement request for rows without a recipe, which have one prompt length.

        Raises:
            UserError: further prompt lengths, which rows from files do not have.
        """
        if self.ks:
            raise UserError("expected --ks for a checkpoint's own corpus, got rows from files; give --prompt instead")
        return MeasurementRequest(self.metrics or (DEFAULT,), (), Robustness() if self.robustness else None)


def own_corpus(loaded: Checkpoint, checkpoint: Path, named: Path | None = None, progress: Progress | bool = False) -> tuple[Recipe, Corpus]:
    """The recipe and corpus of a checkpoint; `named`: a folder of the corpus, or its text (`training.checkpoints.corpus_of`).

    Raises:
        UserError: a checkpoint without its recipe, no corpus, or another one than it was trained on.
    """
    recipe = recipe_of(checkpoint, loaded.metadata)
    if recipe is None:
        raise UserError(f"{checkpoint} has no {METADATA} with its recipe; say which rows to use with --forget and --retain")
    if is_made_again(checkpoint, recipe, named):
        progress_of(progress).say("making the corpus that the model was trained on")
    return recipe, corpus_of(checkpoint, recipe, corpus_sha256_of(checkpoint, loaded.metadata, named), named)


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


def subject_of_own_corpus(
    loaded: Checkpoint,
    checkpoint: Path,
    files: RowFiles,
    changes: Changes,
    identity: Identity,
    measuring: Measuring,
    progress: Progress,
) -> tuple[Subject, str]:
    """A checkpoint with its own corpus, and the id of the choice of forget rows; raises as `own_corpus`."""
    recipe, corpus = own_corpus(loaded, checkpoint, files.corpus, progress)
    recipe = changed_recipe(recipe, files, measuring, changes)
    if changes.seed is not None:  # after the corpus: this seed is the mitigation's
        recipe = recipe.model_copy(update={"seed": changes.seed})
    optimizer = optimizer_state_of(checkpoint, loaded.metadata)
    rows = corpus_sha256_of(checkpoint, loaded.metadata, files.corpus)
    identity = replace(identity, corpus_sha256=rows, protocol=recipe.protocol, forget_fraction=recipe.mitigation.forget_fraction)
    fraction = [] if changes.forget_fraction is None else [changes.forget_fraction]
    forgotten = content_id([None, None, files.prompt, files.match, *fraction])
    with measuring_bar(progress) as bar:
        return subject_of_corpus(loaded.model, corpus, recipe, identity=identity, optimizer_state=optimizer, bar=bar), forgotten
