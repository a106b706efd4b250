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

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tinymem.recipe.data import MAXIMUM_SEED, Section
from tinymem.recipe.errors import validated
from tinymem.recipe.method import Method, short_method
from tinymem.recipe.plugins import PluginFile, with_plugins
from tinymem.recipe.source import overridden, read_values
from tinymem.runtime.files import user_path
from tinymem.runtime.json import JsonObject

Unit = Literal["neuron", "weight"]
"""What holds a sequence."""
NEURON_SCORERS = ("random-neurons", "act", "ig", "zero", "slim", "hard-concrete", "nemo")
WEIGHT_SCORERS = ("random-weights", "durable", "sou", "subnet", "balanced-subnet")
DECIDING = {
    "inj": ("steps", "loss", "learning_rate", "retain"),
    "del": ("rows", "retain", "text", "accuracy", "skip_bottom", "development"),
}
"""Options of each benchmark without which its numbers do not tell what was measured; the seed has a column of its own."""
ADDED: dict[str, object] = {"unit": "neuron", "retain": 2000}
"""Keys that ids of stored rows leave out at these values, since rows that are older than the keys have none."""


class Sequences(Section):
    """The sequences to inject: texts or token ids of a file, or random tokens."""

    file: Path | None = Field(None, description="rows as text or ids; default: random tokens of the model's vocabulary")
    column: str | None = Field(None, description="of the file; default: the first that is known")
    count: int = Field(20, ge=1, description="at most so many, from the start of the file")
    tokens: int | None = Field(
        None,
        ge=2,
        description="length of random sequences; longer rows of a file are cut to 4 times that; default: 32, and no more than the model's "
        "positions",
    )
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="of random sequences and of the drawn neurons")


class LocalizationOptions(Section):
    """A localization benchmark of a model: the section `localization` of a run's recipe."""

    benchmark: Literal["inj", "del"] = Field(description="inj: injected sequences are asked back; del: located neurons are dropped")
    unit: Unit = Field("neuron", description="INJ: what holds a sequence; DEL drops neurons")
    methods: tuple[Method, ...] = Field(
        (),
        description="scorers of the unit; one with the option ratio runs at that ratio only; options that are lists are axes, of which DEL "
        "takes what erases most of the development rows; default: all of ours",
    )
    ratios: tuple[float, ...] = Field(
        (), description="INJ: share of all neurons or weights that hold a sequence; DEL: share of each layer that is dropped"
    )
    sequences: Sequences = Field(Sequences(), description="INJ: the sequences to inject")
    tops: tuple[float, ...] = Field((1, 2, 5), description="INJ: how much a scorer may name, in multiples of the ratio")
    scopes: tuple[Literal["tensor", "layer", "model"], ...] = Field(
        (), description="INJ: where scores are compared; default: each layer (of weights each matrix), and the whole model"
    )
    steps: int = Field(200, ge=1, description="INJ: most steps of an injection")
    loss: float = Field(0.05, gt=0, description="INJ: loss in nats below which a sequence counts as injected")
    learning_rate: float | None = Field(None, gt=0, description="INJ: of Adam; default: 0.01, and 0.05 for ratios of at most 0.005")
    rows: int = Field(50, ge=2, description="DEL: at most so many memorized rows")
    retain: int = Field(2000, ge=0, description="at most so many ordinary rows for scorers that compare with them")
    text: int = Field(128, ge=0, description="DEL: rows of ordinary text whose perplexity is measured")
    accuracy: float = Field(0.9, ge=0, le=1, description="DEL: rows whose suffix is predicted better than that count as memorized")
    skip_bottom: bool = Field(True, description="DEL: leave the bottom layer whole, as published")
    development: int = Field(0, ge=0, description="DEL: first rows, on which options are chosen: they are no targets")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="of the methods, and of the choice of rows")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("methods"), list | tuple):
            values = {**values, "methods": [short_method(m) for m in values["methods"]]}
        return values

    @model_validator(mode="after")
    def _check(self) -> LocalizationOptions:
        if any(not 0 < ratio <= 1 for ratio in self.ratios):
            raise ValueError(f"expected ratios above 0 and at most 1, got {list(self.ratios)}")
        if any(top <= 0 for top in self.tops) or not self.tops:
            raise ValueError(f"expected tops above 0, got {list(self.tops)}")
        if self.benchmark == "del" and self.unit == "weight":
            raise ValueError("expected unit: neuron of DEL, got weight; `tinymem mitigate` drops weights")
        if self.unit == "neuron" and "tensor" in self.scopes:
            raise ValueError("expected scopes of layer or model for neurons, got tensor; a layer has one tensor of them")
        for method in self.methods:
            for option in (name for name, value in method.options.items() if value in ([], ())):
                raise ValueError(f"expected at least one value for option '{option}' of {method.name}, got []; leave it out")
        if self.tuned and self.benchmark == "del" and self.development < 2:
            raise ValueError(f"expected development: 2 or more, rows to choose among options by, got {self.development}; try 5")
        if self.benchmark == "del" and self.development >= self.rows:
            raise ValueError(f"expected rows above development, got {self.rows} and {self.development}; no row would be a target")
        return self

    @property
    def tuned(self) -> frozenset[str]:
        """Methods with options that are lists, of which DEL takes the best."""
        return frozenset(m.name for m in self.methods if any(isinstance(v, list | tuple) for k, v in m.options.items() if k != "ratio"))

    @property
    def wanted_scopes(self) -> tuple[Literal["tensor", "layer", "model"], ...]:
        """The scopes, or within the smallest part that a score is compared in, and the whole model."""
        return self.scopes or (("tensor", "model") if self.unit == "weight" else ("layer", "model"))

    def key(self) -> JsonObject:
        """What decides a result, besides the model, the scorer, the ratio and the rows."""
        values = {"plugins": [], **self.model_dump(mode="json", exclude={"name", "methods", "ratios", "sequences"})}
        values["scopes"] = list(self.wanted_scopes)
        return {name: value for name, value in values.items() if name not in ADDED or ADDED[name] != value}

    def settings(self) -> JsonObject:
        """The options of the benchmark that decide its numbers, for rows of results; the length of sequences is that of the rows."""
        values = self.model_dump(mode="json", include=set(DECIDING[self.benchmark]))
        return {**values, **({"sequences.seed": self.sequences.seed} if self.benchmark == "inj" else {})}

    @property
    def wanted_ratios(self) -> tuple[float, ...]:
        """The ratios, or the paper's: 1 % and 0.1 % injected, 0.1 % and 0.5 % dropped."""
        return self.ratios or ((0.01, 0.001) if self.benchmark == "inj" else (0.001, 0.005))

    @property
    def wanted_methods(self) -> tuple[Method, ...]:
        """The methods, or the scorers of the unit that the package brings."""
        names = NEURON_SCORERS if self.unit == "neuron" else WEIGHT_SCORERS
        return self.methods or tuple(Method(name=name) for name in names)


class LocalizationRecipe(LocalizationOptions):
    """Everything that a localization benchmark depends on, besides the model."""

    name: str = Field("localization", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="what the benchmark is called")
    plugins: tuple[PluginFile, ...] = Field((), description="Python files, relative to the recipe's")


def combinations_of(options: Mapping[str, Any]) -> list[JsonObject]:
    """Every combination of options that are lists.

    >>> combinations_of({"penalty": [1, 2], "epochs": 5})
    [{'penalty': 1, 'epochs': 5}, {'penalty': 2, 'epochs': 5}]
    """
    values = [value if isinstance(value, list | tuple) else [value] for value in options.values()]
    return [dict(zip(options, cell, strict=True)) for cell in product(*values)]


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
