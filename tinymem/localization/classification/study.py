"""One task from its rows to its classifiers: training on flipped and on true labels, the generalization score, and what all that says.

Shape suffix: n training rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from tinymem.data.labeled import LabeledRows, LabeledTexts, encoded, read_labeled
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.localization.classification.classifier import (
    FitOptions,
    accuracy_of,
    fit_classifier,
    fresh_classifier,
    labeled_decisions,
    load_classifier,
    save_classifiers,
)
from tinymem.localization.classification.flipping import flipped
from tinymem.localization.classification.generalization import above_guessing, generalization
from tinymem.localization.classification.subject import Classifiers, memorized_index
from tinymem.localization.classification.tasks import generated, vocabulary_for
from tinymem.localization.layers.findings import Finding
from tinymem.localization.layers.subject import Decisions, LayeredModel
from tinymem.models.gpt2 import GPT
from tinymem.recipe.classification import ClassificationRecipe
from tinymem.runtime.files import canonical_json
from tinymem.runtime.progress import Bar, SilentBar

MODEL, EARLY, COUNTERFACTUAL = "model", "early", "counterfactual"
MOST_CLASSES = 16
"""Of so many classes of one size two still have as many rows as are wanted."""


@dataclass(frozen=True)
class TaskStudy:
    """A task on the way: its rows and the language model that its classifiers start from.

    Attributes:
        name: of the task, or of the data set.
        train: training rows with their true labels.
        test: rows that nothing trains on.
        model: theta_P, or a fresh model of its shape.
        recipe: options.
    """

    name: str
    train: LabeledRows
    test: LabeledRows
    model: GPT
    recipe: ClassificationRecipe

    @cached_property
    def planted(self) -> Tensor:
        """The labels [n] that the model is trained on."""
        return flipped(self.train.labels, self.train.classes, self.recipe.flipped, self.recipe.seed)

    @cached_property
    def start(self) -> LayeredModel:
        """The classifier before training."""
        return fresh_classifier(self.model, self.train.classes, self.recipe.seed)

    @property
    def options(self) -> FitOptions:
        """Options of the training."""
        given = self.recipe.classifier
        return FitOptions(given.epochs, given.learning_rate, given.batch_size, weight_decay=given.weight_decay, seed=self.recipe.seed)

    def digest(self) -> str:
        """SHA-256 of the rows, and of the options that decide the classifiers."""
        parts = (part for rows in (self.train, self.test) for part in (rows.ids, rows.length, rows.labels))
        content = b"".join(part.cpu().numpy().tobytes() for part in parts)
        return hashlib.sha256(content + canonical_json(self.recipe.training_key()).encode()).hexdigest()

    def classifiers(self, folder: Path, bar: Bar) -> Classifiers:
        """The task's classifiers from their folder, or trained now and kept there."""
        bar.expect(2 * self.recipe.classifier.epochs)
        if not (folder / f"{MODEL}.safetensors").is_file():
            known = self.recipe.classifier.known
            model, early = fit_classifier(self.start, labeled_decisions(self.train, self.planted), self.options, bar, known=known)
            counterfactual, _ = fit_classifier(self.start, labeled_decisions(self.train), self.options, bar)
            made = {MODEL: model, COUNTERFACTUAL: counterfactual} | ({} if early is None else {EARLY: early})
            save_classifiers(made, folder)
        found = {name: folder / f"{name}.safetensors" for name in (MODEL, EARLY, COUNTERFACTUAL)}
        models = {name: load_classifier(self.start, path) for name, path in found.items() if path.is_file()}
        return Classifiers(self.start, models[MODEL], models.get(EARLY), models[COUNTERFACTUAL])

    def summary(self, models: Classifiers, bar: Bar) -> list[Finding]:
        """How well the task generalizes, and what its classifiers know; shares in [0, 1]."""
        bar.expect(self.recipe.halves)
        classes, chance = self.train.classes, 1 / self.train.classes
        train, test = labeled_decisions(self.train, self.planted), labeled_decisions(self.test)
        wrong = int((self.planted != self.train.labels).sum())
        score = generalization(labeled_decisions(self.train), classes, self.recipe.halves, self.recipe.seed, self._on_half, bar)
        unseen = accuracy_of(models.model, test)
        return [
            Finding("classes", classes),
            Finding("rows", len(self.train)),
            Finding("flipped", wrong),
            Finding("memorized", len(memorized_index(models, train)) / wrong),
            Finding("accuracy", accuracy_of(models.model, train)),
            Finding("early_accuracy", None if models.early is None else accuracy_of(models.early, train)),
            Finding("counterfactual_accuracy", accuracy_of(models.counterfactual, labeled_decisions(self.train))),
            Finding("unseen_accuracy", unseen, chance=chance),
            Finding("validation", above_guessing(unseen, classes)),
            Finding("generalization", score.score),
            Finding("probability", score.probability, chance=chance),
        ]

    def _on_half(self, half: Decisions, seed: int) -> LayeredModel:
        options = replace(self.options, epochs=self.recipe.half_epochs, seed=seed)
        start = fresh_classifier(self.model, self.train.classes, seed)
        return fit_classifier(start, half, options, SilentBar())[0]


def studies(model: GPT, tokens: ModelTokens, recipe: ClassificationRecipe) -> Iterator[TaskStudy]:
    """The tasks of a recipe with their rows on the model's device.

    Raises:
        UserError: no such data, or a tokenizer that lacks what is in it.
    """
    device = model.transformer.wte.weight.device
    longest = min(recipe.tokens, model.config.n_positions)
    for name, train, test in _texts(tokens, recipe):
        if recipe.binarize:
            largest = train.two_largest()
            train, test = (part.binarized(largest).first(count) for part, count in ((train, recipe.rows), (test, recipe.test_rows)))
        if not len(test):
            advice = "set binarize to false" if recipe.binarize else "have rows of each class in the training and in the test part"
            raise UserError(f"expected rows of {name} to test on, got none of its classes; {advice}")
        rows, unseen = (encoded(part, tokens, longest).to(device) for part in (train, test))
        yield TaskStudy(name, rows, unseen, model, recipe)


def _texts(tokens: ModelTokens, recipe: ClassificationRecipe) -> Iterator[tuple[str, LabeledTexts, LabeledTexts]]:
    """Each task's training and test rows; enough of them for two classes where the others are dropped."""
    rows, unseen = (count * (MOST_CLASSES // 2 if recipe.binarize else 1) for count in (recipe.rows, recipe.test_rows))
    if recipe.data is not None:
        data = recipe.data
        train, test = read_labeled(
            data.source, config=data.config, text=data.text, label=data.label, rows=rows, test_rows=unseen, seed=recipe.seed
        )
        yield Path(data.source).name, train, test
        return
    vocabulary = vocabulary_for(tokens)
    for name in recipe.tasks:
        made = generated(name, rows + unseen, words=recipe.words, seed=recipe.seed, vocabulary=vocabulary)
        yield name, made.take(range(rows)), made.take(range(rows, rows + unseen))
