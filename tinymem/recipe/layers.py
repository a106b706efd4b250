"""Recipes of localization by layer (Dankers and Titov 2024).

techniques: [layer-swapping, layer-retraining]
retraining: {epochs: 5, batch_size: 32}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from tinymem.recipe.data import MAXIMUM_SEED, Section
from tinymem.recipe.errors import validated
from tinymem.recipe.source import overridden, read_values
from tinymem.runtime.json import JsonObject

Technique = Literal["layer-swapping", "layer-retraining", "forgetting-gradients", "noise-probes", "label-probes", "centroids"]
TECHNIQUES: tuple[Technique, ...] = (
    "layer-swapping", "layer-retraining", "forgetting-gradients", "noise-probes", "label-probes", "centroids",
)  # fmt: skip


class Retraining(Section):
    """How layers are retrained on clean rows, and the head of the frozen model on all rows."""

    epochs: int = Field(5, ge=1, description="passes over the rows")
    learning_rate: float | None = Field(None, gt=0, description="of AdamW, constant; null: that of the model's training (published: 3e-5)")
    batch_size: int = Field(8, ge=1, description="rows of a step")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")


class Probes(Section):
    """How probes of hidden states are trained."""

    seeds: int = Field(5, ge=1, description="repetitions, each with its own split and first weights")
    hidden: int = Field(128, ge=1, description="units of each of two hidden layers")
    epochs: int = Field(100, ge=2, description="most passes; the best by validation counts")
    learning_rate: float = Field(2e-4, gt=0, description="of AdamW")
    batch_size: int = Field(32, ge=1, description="decisions of a step")


class LayersRecipe(Section):
    """Everything that localization by layer depends on, besides the models."""

    techniques: tuple[Technique, ...] = Field(TECHNIQUES, description="what is run; one result file each")
    artifact: str | None = Field(None, description="kind of the planted rows; null: the recipe's first with clean counterparts")
    context: Literal["trained", "clean"] = Field(
        "trained",
        description="tokens before a decision: as the model was trained on them, or behind a clean prompt as memorization is tested",
    )
    rows: int = Field(500, ge=1, description="at most so many planted rows")
    clean: int = Field(4, ge=1, description="clean decisions for each noised one, alike in target, position and token before")
    clean_rows: int = Field(1000, ge=10, description="clean rows that layers are retrained on; as many more are held out")
    binarize: bool = Field(False, description="keep only decisions between the two targets that replace one another most often")
    objective: Literal["loss", "logit"] = Field(
        "loss", description="what gradients are of; logit: minus the target's, as published code does"
    )
    retraining: Retraining = Field(Retraining(), description="how layers are retrained")
    probes: Probes = Field(Probes(), description="how probes are trained")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="of the choice of rows, of orders and of probes")

    @field_validator("techniques", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("techniques")
    @classmethod
    def _different(cls, techniques: tuple[Technique, ...]) -> tuple[Technique, ...]:
        if not techniques or len(set(techniques)) != len(techniques):
            raise ValueError(f"expected different techniques, at least one, got {list(techniques)}")
        return techniques

    def key(self, technique: Technique) -> JsonObject:
        """The options that decide a technique's results: those of the rows, and its own."""
        own = {"layer-retraining": {"retraining"}, "forgetting-gradients": {"retraining", "objective"}}
        probes: set[str] = {"probes"} if technique.endswith("probes") else set()
        left_out = {"techniques", "retraining", "objective", "probes"} - own.get(technique, probes)
        return self.model_dump(mode="json", exclude=left_out)


def load_layers(path: Path, overrides: list[str] | None = None) -> LayersRecipe:
    """Read a recipe and apply `key.sub=value` overrides.

    Raises:
        UserError: file missing, not YAML, unknown key (with the closest known one), or a value out of range.
    """
    return parse_layers(overridden(read_values(path), overrides))


def parse_layers(values: JsonObject) -> LayersRecipe:
    """Check a dictionary against the recipe's types.

    Raises:
        UserError: one line that names the first wrong key or value.
    """
    return validated(LayersRecipe, values)
