"""Recipes of localization benchmarks: INJ and DEL (Chang et al. 2024).

benchmark: inj
ratios: [0.01, 0.001]
sequences: {file: definitions.jsonl, column: definition, count: 20}

Methods:
- act
- hard-concrete: {epochs: 1000, penalty: 1000}
- slim: {epochs: 1000, ratio: 0.01}          # only where 1 % are injected
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tinymem.recipe.data import MAXIMUM_SEED, Section
from tinymem.recipe.errors import validated
from tinymem.recipe.plugins import PluginFile, with_plugins
from tinymem.recipe.recipe import Method, short_method
from tinymem.recipe.source import overridden, read_values
from tinymem.runtime.files import user_path
from tinymem.runtime.json import JsonObject

NEURON_SCORERS = ("random-neurons", "act", "ig", "zero", "slim", "hard-concrete", "nemo")


class Sequences(Section):
    """The sequences to inject: texts or token ids of a file, or random tokens."""

    file: Path | None = Field(None, description="rows as text or ids; default: random tokens of the model's vocabulary")
    column: str | None = Field(None, description="of the file; default: the first that is known")
    count: int = Field(20, ge=1, description="at most so many, from the start of the file")
    tokens: int = Field(32, ge=2, description="length of random sequences; longer rows of a file are cut to 4 times that")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="of random sequences and of the drawn neurons")


class LocalizationRecipe(Section):
    """Everything that a localization benchmark depends on, besides the model."""

    name: str = Field("localization", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="what the benchmark is called")
    benchmark: Literal["inj", "del"] = Field(description="inj: injected sequences are asked back; del: located neurons are dropped")
    methods: tuple[Method, ...] = Field(
        (), description="scorers of neurons; one with the option ratio runs at that ratio only; default: all of ours"
    )
    ratios: tuple[float, ...] = Field(
        (), description="INJ: share of all neurons that hold a sequence; DEL: share of each layer that is dropped"
    )
    sequences: Sequences = Field(Sequences(), description="INJ: the sequences to inject")
    tops: tuple[float, ...] = Field((1, 2, 5), description="INJ: how many neurons a scorer may name, in multiples of the ratio")
    scopes: tuple[Literal["layer", "model"], ...] = Field(("layer", "model"), description="INJ: where scores are compared")
    steps: int = Field(200, ge=1, description="INJ: most steps of an injection")
    loss: float = Field(0.05, gt=0, description="INJ: loss in nats below which a sequence counts as injected")
    learning_rate: float | None = Field(None, gt=0, description="INJ: of Adam; default: 0.01, and 0.05 for ratios of at most 0.005")
    rows: int = Field(50, ge=2, description="DEL: at most so many memorized rows")
    text: int = Field(128, ge=0, description="DEL: rows of ordinary text whose perplexity is measured")
    accuracy: float = Field(0.9, ge=0, le=1, description="DEL: rows whose suffix is predicted better than that count as memorized")
    skip_bottom: bool = Field(True, description="DEL: leave the bottom layer whole, as published")
    development: int = Field(0, ge=0, description="DEL: first rows, on which options were chosen: they are not counted")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="of the methods, and of the choice of rows")
    plugins: tuple[PluginFile, ...] = Field((), description="Python files, relative to the recipe's")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("methods"), list | tuple):
            values = {**values, "methods": [short_method(m) for m in values["methods"]]}
        return values

    @model_validator(mode="after")
    def _check(self) -> LocalizationRecipe:
        if any(not 0 < ratio <= 1 for ratio in self.ratios):
            raise ValueError(f"expected ratios above 0 and at most 1, got {list(self.ratios)}")
        if any(top <= 0 for top in self.tops) or not self.tops or not self.scopes:
            raise ValueError(f"expected tops above 0 and at least one scope, got {list(self.tops)} and {list(self.scopes)}")
        return self

    @property
    def wanted_ratios(self) -> tuple[float, ...]:
        """The ratios, or the paper's: 1 % and 0.1 % injected, 0.1 % and 0.5 % dropped."""
        return self.ratios or ((0.01, 0.001) if self.benchmark == "inj" else (0.001, 0.005))

    @property
    def wanted_methods(self) -> tuple[Method, ...]:
        """The methods, or all scorers of neurons that the package brings."""
        return self.methods or tuple(Method(name=name) for name in NEURON_SCORERS)


def load_localization(path: Path, overrides: list[str] | None = None) -> LocalizationRecipe:
    """Read a recipe and apply `key.sub=value` overrides; the file of sequences is relative to the recipe's.

    Raises:
        UserError: file missing, not YAML, unknown key (with the closest known one), or a value out of range.
    """
    values = overridden(read_values(path), overrides)
    recipe = parse_localization(with_plugins(values, path.parent))
    file = recipe.sequences.file
    if file is None:
        return recipe
    return recipe.model_copy(update={"sequences": recipe.sequences.model_copy(update={"file": path.parent / user_path(str(file))})})


def parse_localization(values: JsonObject) -> LocalizationRecipe:
    """Check a dictionary against the recipe's types.

    Raises:
        UserError: one line that names the first wrong key or value.
    """
    return validated(LocalizationRecipe, values)
