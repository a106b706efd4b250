"""`tinymem localize classes`: in which layers classifiers memorized flipped labels; a file of rows a task and technique, resumable.

<out>/
  localization/<id>.json        rows of one technique on one task, and of each task's summary
  classifiers/<task>-<id>/      weights of model (theta_M2), early (theta_M1) and counterfactual (theta_O), embeddings left out
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.localization.classification.study import TaskStudy, studies
from tinymem.localization.classification.subject import classification_subject
from tinymem.localization.layers.techniques import Options
from tinymem.mitigation.files_subject import identity_of
from tinymem.mitigation.run import versions
from tinymem.models.checkpoint import Checkpoint, load_checkpoint
from tinymem.models.gpt2 import GPT
from tinymem.recipe.classification import ClassificationRecipe
from tinymem.results.localization import read_localization, rows_file, write_localization
from tinymem.results.row import Identity, LocalizationRow
from tinymem.runs.layers import Origin, result_row, row_id, run_techniques
from tinymem.runtime.device import resolve_device
from tinymem.runtime.files import content_id, require_writable
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.progress import Progress

BENCHMARK, SUMMARY = "classes", "summary"


def localize_classes(
    checkpoint: Path,
    recipe: ClassificationRecipe,
    *,
    out: Path,
    device: str = "auto",
    verify: bool = True,
    progress: Progress | None = None,
) -> list[LocalizationRow]:
    """Train classifiers from a checkpoint on each task of a recipe, and ask each technique for the layers that memorized flipped labels.

    What the folder has already is not made again. A task whose flipped labels were not memorized leaves a row with status `refused`.

    Args:
        checkpoint: the language model's folder, with its tokenizer.
        recipe: tasks, training and techniques.
        out: folder of rows and classifiers; several models may share one.
        device: `auto`, `cpu` or `cuda`.
        verify: whether weights must have the hashes that the folder holds.
        progress: where progress is shown.

    Raises:
        UserError: no GPT-2 of ours, no tokenizer, or bad data.
    """
    progress, loaded = progress or Progress(), load_checkpoint(checkpoint, device=resolve_device(device), verify=verify)
    model = _start(loaded, checkpoint, recipe)
    identity = replace(identity_of(loaded, checkpoint, resolve_device(device)), seed=recipe.seed)
    found = list(studies(model, ModelTokens(checkpoint), recipe))
    tasks = [_Task(study, replace(identity, corpus_sha256=study.digest()), out, progress) for study in found]
    require_writable(out)
    return [row for task in tasks for row in task.rows()]


@dataclass(frozen=True)
class _Task:
    study: TaskStudy
    identity: Identity
    out: Path
    progress: Progress

    @property
    def depends(self) -> list[Json]:
        """What decides the classifiers, besides the model."""
        return [self.study.name, self.identity.corpus_sha256]

    @property
    def origin(self) -> Origin:
        return Origin(self.identity, self.study.name, self.depends)

    @property
    def summary_id(self) -> str:
        halves: JsonObject = self.study.recipe.model_dump(mode="json", include={"halves", "half_epochs"})
        return content_id({"classes": self.depends, "model": self.identity.model_id, "device": self.identity.device_type, **halves}, 16)

    @property
    def wanted(self) -> list[str]:
        layers = self.study.recipe.layers()
        return [self.summary_id, *(row_id(self.origin, layers, technique) for technique in layers.techniques)]

    def rows(self) -> list[LocalizationRow]:
        """The rows of the task, those that are missing made now."""
        if not self._is_done():
            self._make()
        return [row for row in read_localization(self.out) if row.id in self.wanted]

    def _is_done(self) -> bool:
        """Whether all rows are there; a task that was refused has a summary alone."""
        if not rows_file(self.out, self.summary_id).is_file():
            return False
        refused = any(row.status == "refused" for row in read_localization(self.out) if row.id == self.summary_id)
        return refused or all(rows_file(self.out, row).is_file() for row in self.wanted)

    def _make(self) -> None:
        study, name = self.study, self.study.name
        trained = content_id({"classifiers": self.depends, "model": self.identity.model_id, "device": self.identity.device_type})
        with self.progress.stage(f"{name}: classifiers") as bar:
            models = study.classifiers(self.out / "classifiers" / f"{name}-{trained}", bar)
        if not rows_file(self.out, self.summary_id).is_file():
            with self.progress.stage(f"{name}: generalization") as bar:
                found = [result_row(self._start(), finding) for finding in study.summary(models, bar)]
            try:
                classification_subject(models, study.train, study.planted, study.recipe.seed)
            except UserError as error:
                found.append(replace(self._start(), status="refused", message=str(error)))
            write_localization(self.out, self.summary_id, found)
        if not self._is_done():
            recipe = study.recipe.layers()
            subject = classification_subject(models, study.train, study.planted, study.recipe.seed)
            options = Options.of(recipe, study.recipe.classifier.learning_rate)
            run_techniques(subject, recipe, options, self.origin, self.out, self.progress, watched=(study.model,))

    def _start(self) -> LocalizationRow:
        config = self.study.recipe.model_dump(mode="json", exclude={"tasks", "techniques", "retraining", "probes", "objective"})
        return LocalizationRow(
            **vars(self.identity), id=self.summary_id, method=SUMMARY, artifact=self.study.name, status="ok", versions=versions(),
            benchmark=BENCHMARK, unit="layer", config=config, sequences=len(self.study.train),
        )  # fmt: skip


def _start(loaded: Checkpoint, place: Path, recipe: ClassificationRecipe) -> GPT:
    if not isinstance(loaded.model, GPT):
        raise UserError(f"expected a GPT-2 of ours in {place}, got a {type(loaded.model).__name__}; name a TinyMem checkpoint")
    return GPT(loaded.model.config, seed=recipe.seed).to(loaded.model.transformer.wte.weight.device) if recipe.fresh else loaded.model
