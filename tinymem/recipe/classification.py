"""Recipes of localization in classifiers with flipped labels (Dankers and Titov 2024).

tasks: [keyword, rating]
classifier: {epochs: 50, learning_rate: 1.0e-3}
techniques: [layer-swapping, layer-retraining]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from tinymem.recipe.data import MAXIMUM_SEED, Section
from tinymem.recipe.errors import validated
from tinymem.recipe.layers import TECHNIQUES, LayersRecipe, Probes, Retraining, Technique
from tinymem.recipe.source import overridden, read_values
from tinymem.runtime.json import JsonObject

TaskName = Literal["keyword", "topic", "sentiment", "rating", "order", "parity"]
GENERATED: tuple[TaskName, ...] = ("keyword", "topic", "sentiment", "rating", "order", "parity")


class LabeledData(Section):
    """A data set with texts and labels, in place of the generated tasks."""

    source: str = Field(min_length=1, description="a file or folder of Parquet, .jsonl or .csv, or a data set of the Hub")
    config: str | None = Field(None, description="configuration on the Hub, or a subfolder")
    text: tuple[str, ...] = Field(("text",), min_length=1, description="columns of the text; several are put one under the other")
    label: str = Field("label", min_length=1, description="column of the label: whole numbers or names")

    @field_validator("text", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class ClassifierTraining(Section):
    """How classifiers are trained, by AdamW on a rate that rises in the first tenth of the steps and then falls linearly to 0."""

    epochs: int = Field(50, ge=1, description="passes over the rows")
    learning_rate: float = Field(1e-3, gt=0, description="highest rate (published, for models of 125 million parameters: 1e-5)")
    batch_size: int = Field(8, ge=1, description="rows of a step")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    known: float = Field(0.993, gt=0, le=1, description="accuracy on the training rows at which the early model is kept")


class ClassificationRecipe(Section):
    """Everything that localization in classifiers depends on, besides the model that they start from."""

    tasks: tuple[TaskName, ...] = Field(GENERATED, description="generated tasks, by rising difficulty")
    data: LabeledData | None = Field(None, description="a data set in place of the generated tasks")
    rows: int = Field(600, ge=40, description="at most so many training rows of a task")
    test_rows: int = Field(200, ge=10, description="at most so many rows that nothing trains on")
    words: int = Field(12, ge=9, description="words of a generated row")
    tokens: int = Field(512, ge=1, description="longer rows are cut, also at the model's longest")
    flipped: float = Field(0.15, gt=0, lt=0.5, description="share of the training rows whose label is flipped")
    binarize: bool = Field(False, description="keep only the two most frequent classes of a task")
    fresh: bool = Field(False, description="start from fresh weights of the model's shape")
    classifier: ClassifierTraining = Field(ClassifierTraining(), description="how classifiers are trained")
    halves: int = Field(10, ge=2, description="random halves of the generalization score (published: 30)")
    half_epochs: int = Field(10, ge=1, description="passes over each half")
    techniques: tuple[Technique, ...] = Field(TECHNIQUES, description="what is run; one result file each")
    objective: Literal["loss", "logit"] = Field("loss", description="as of localization by layer")
    retraining: Retraining = Field(Retraining(), description="how layers are retrained; null rate: that of the training")
    probes: Probes = Field(Probes(), description="how probes are trained")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="of rows, flips, heads, orders, halves and probes")

    @field_validator("tasks", "techniques", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("tasks")
    @classmethod
    def _different(cls, tasks: tuple[TaskName, ...]) -> tuple[TaskName, ...]:
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"expected different tasks, at least one, got {list(tasks)}")
        return tasks

    def layers(self) -> LayersRecipe:
        """The part that the techniques read."""
        return LayersRecipe(
            techniques=self.techniques, objective=self.objective, retraining=self.retraining, probes=self.probes, seed=self.seed
        )

    def training_key(self) -> JsonObject:
        """The options that decide the classifiers, besides their rows."""
        return self.model_dump(mode="json", include={"flipped", "fresh", "classifier", "seed"})


def load_classification(path: Path, overrides: list[str] | None = None) -> ClassificationRecipe:
    """Read a recipe and apply `key.sub=value` overrides.

    Raises:
        UserError: file missing, not YAML, unknown key (with the closest known one), or a value out of range.
    """
    return parse_classification(overridden(read_values(path), overrides))


def parse_classification(values: JsonObject) -> ClassificationRecipe:
    """Check a dictionary against the recipe's types.

    Raises:
        UserError: one line that names the first wrong key or value.
    """
    return validated(ClassificationRecipe, values)
