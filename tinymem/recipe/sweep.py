"""Recipes of sweeps: models, methods with their grids, and the limits of a run.

name: quickstart
checkpoints: [runs/quickstart-*]           # run folders, or checkpoint folders
methods:
- all                                    # every registered method with its own grid
- balanced-subnet: {sampler: balanced, ratio: [0.05, 0.1]}   # a list is an axis of the grid, a single value is fixed
- durable: {ratio: {from: 0.001, to: 0.1, points: 5}}         # so is a range
search: halving                                             # the best of each grid without all of its runs; left out: all
localization: {benchmark: inj, ratios: [0.01, 0.05]}         # where each model keeps sequences, beside the methods or without any

A model of any family, of the Hub or a folder, is named, with the rows that it is measured on (docs/foreign-models.md):

models: [{name: EleutherAI/pythia-2.8b-deduped, revision: step143000, dtype: bf16, max_size: 12GB}]
rows: {forget: memorized.pt, retain: sample.parquet, prompt: 32, match: 40, forget_rows: memorized}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from tinymem.errors import did_you_mean
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.data import MAXIMUM_SEED, Section
from tinymem.recipe.errors import validated
from tinymem.recipe.evaluation import Robustness
from tinymem.recipe.localization import LocalizationOptions
from tinymem.recipe.method import Method, short_method
from tinymem.recipe.plugins import PluginFile, with_plugins
from tinymem.recipe.recipe import Forget
from tinymem.recipe.source import overridden, read_values
from tinymem.recipe.sweep_models import ModelMatrix, NamedModel, SweepModel, SweepRows, check_models, short_model
from tinymem.runtime.json import JsonObject

Seed = Annotated[int, Field(ge=0, le=MAXIMUM_SEED)]
GridName = Literal["paper", "published", "none"]
LISTS = ("checkpoints", "methods", "models", "metrics")
SEARCHES = {"halving": "method", "best": "model"}
"""`best_of` of the words that a search may be written as."""
WHEN = ("model_name", "data", "data_size", "n_layer", "n_parameters", "epoch", "regularizer", "seed")


class Exclusion(Section):
    """Runs that are left out: of a method, on models with these columns, with these options."""

    method: str = Field(description="method whose runs are left out")
    when: dict[str, Any] = Field(default_factory=dict, description="facts of the model, each a value or a list of values")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the run, each a value or a list of values")

    @model_validator(mode="after")
    def _check(self) -> Exclusion:
        for fact in self.when:
            if fact not in WHEN:
                raise ValueError(f"unknown fact '{fact}' in exclude.when; {did_you_mean(fact, WHEN)}")
        return self


class Limits(Section):
    """Limits of one run; a run that exceeds them is stopped alone, and its row records it."""

    seconds: float | None = Field(3600, gt=0, description="seconds for scoring, selection, ablation and measurement of one run")
    memory_mb: float | None = Field(None, gt=0, description="resident memory of a worker; null: its share of nine tenths of the machine")
    attempts: int = Field(3, ge=1, description="times that a run is tried when its worker dies")


class Range(Section):
    """Values of an option between two ends, which are among them: an axis of the grid."""

    model_config = ConfigDict(populate_by_name=True)

    start: float | int = Field(alias="from", description="the first value")
    to: float | int = Field(description="the last value")
    points: int = Field(8, ge=2, le=1000, description="how many; of whole numbers, fewer where they coincide")
    scale: Literal["log", "linear"] = "log"

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.scale == "log" and not (self.start > 0 and self.to > 0):
            raise ValueError(f"expected ends above 0 of a range on a log scale, got {self.start:g} and {self.to:g}; try scale: linear")
        return self

    def values(self) -> tuple[float | int, ...]:
        """The values in order, to four significant digits; whole numbers where both ends are."""
        shares = [i / (self.points - 1) for i in range(self.points)]
        if self.scale == "log":
            found = [self.start * (self.to / self.start) ** share for share in shares]
        else:
            found = [self.start + (self.to - self.start) * share for share in shares]
        whole = isinstance(self.start, int) and isinstance(self.to, int)
        return tuple(dict.fromkeys(round(value) if whole else float(f"{value:.4g}") for value in found))


def axis(value: Any) -> tuple[Any, ...]:
    """The values of a method's option in a sweep: a list's, a range's, or the single one.

    Raises:
        ValidationError: a mapping that is no range.
    """
    if isinstance(value, list | tuple):
        return tuple(value)
    return Range.model_validate(value).values() if isinstance(value, dict) else (value,)


class Halving(Section):
    """Successive halving over scoring passes by the score M - P: of each method, or of all together; see `sweep.halving` and `.contest`."""

    best_of: Literal["method", "model"] = Field(
        "method", description="method: search the best run of every method; model: only each model's best, for which all methods compete"
    )
    keep: float = Field(0.25, gt=0, le=1, description="share of the scoring passes that the first rung leaves; 1: the full grid")
    tolerance: float = Field(
        1.0,
        ge=0,
        description="points of M - P: a run this near to a perfect edit ends the search; and percent of what is memorized: a rung whose "
        "best pass removes no more drops nothing",
    )

    @property
    def is_contest(self) -> bool:
        """Whether all methods compete on a model; not where the first rung leaves all passes, which is the full grid."""
        return self.best_of == "model" and self.keep < 1


class SweepRecipe(Section):
    """Everything that a sweep depends on."""

    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the sweep's folder, under sweeps/")
    checkpoints: tuple[str, ...] = Field((), description="globs of run folders and checkpoint folders")
    models: tuple[SweepModel, ...] = Field(
        (), description="models of training recipes, whether trained yet or not; and models of any family by name, on the rows of `rows`"
    )
    rows: SweepRows | None = Field(None, description="rows from files, for models by name; null: there are none")
    methods: tuple[Method, ...] = Field(
        (), description="methods, each a name, `name: {options}` or `all`; options that are lists are axes of the grid"
    )
    grid: GridName = Field("paper", description="grid of each method: the paper's (A.3.5), the published code's, or none")
    seeds: tuple[Seed, ...] | None = Field(None, min_length=1, description="seeds of the mitigation; null: each model's own")
    protocol: Protocol | None = Field(None, description="how is measured, and which rows a method is given; null: each model's own")
    forget: Forget | None = Field(None, description="artifacts to forget; null: as each model's recipe says")
    forget_fraction: float | None = Field(None, gt=0, le=1, description="share of the memorized rows to forget; the others are the holdout")
    metrics: tuple[str, ...] | None = Field(None, description="names of metrics; null: as each model's recipe says")
    ks: tuple[int, ...] | None = Field(None, description="further prompt lengths; null: as each model's recipe says")
    robustness: Robustness | None = Field(
        None, description="test whether it comes back, `true` for the defaults; null: as each model's recipe says"
    )
    localization: LocalizationOptions | None = Field(
        None, description="a benchmark of where each model keeps sequences, run after the methods; null: none"
    )
    exclude: tuple[Exclusion, ...] = Field((), description="runs that are left out")
    search: Halving | None = Field(
        None, description="`halving`, `best` (that with `best_of: model`), or their options: search the grid; null: run all of it"
    )
    limits: Limits = Field(Limits(), description="what one run may take")
    share_scores: bool = Field(True, description="whether one scoring pass serves all runs that it can")
    compact_every: int = Field(500, ge=1, description="finished runs before they are moved to Parquet")
    plugins: tuple[PluginFile, ...] = Field((), description="Python files to load, relative to the sweep's recipe")
    explain: Literal["paper"] | None = Field(None, description="paper: `tinymem sweep --list` compares its counts with the paper's")

    @property
    def gpus(self) -> int:
        """GPUs of each worker: as many as the model needs that is spread over most."""
        return max([model.gpus for model in self.models if isinstance(model, NamedModel)], default=1)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        """Accept one name or path in place of a list, `{act: {ratio: 0.1}}` for a method, and short forms of other keys.

        Those are a path for a matrix, `robustness: true`, `search: halving` and `search: best`.
        """
        if not isinstance(values, dict):
            return values
        values = {k: [v] if k in LISTS and isinstance(v, str | dict) else v for k, v in values.items()}
        if values.get("robustness") in (True, False):
            values["robustness"] = {} if values["robustness"] else None
        if isinstance(search := values.get("search"), str) and search in SEARCHES:
            values["search"] = {"best_of": SEARCHES[search]}
        if isinstance(values.get("methods"), list):
            values["methods"] = [short_method(m) for m in values["methods"]]
        if isinstance(values.get("models"), list):
            values["models"] = [short_model(m) for m in values["models"]]
        return values

    @model_validator(mode="after")
    def _check(self) -> SweepRecipe:
        if not self.methods and self.localization is None:
            raise ValueError("expected methods, got none; `methods: all` takes every registered one")
        for value in (value for method in self.methods for value in method.options.values()):
            try:
                axis(value)
            except ValidationError as error:
                raise ValueError(f"expected a range {{from, to, points, scale}}, got {value}: {error.errors()[0]['msg']}") from None
        if not self.checkpoints and not self.models:
            raise ValueError("expected checkpoints or models, got none; try `checkpoints: runs/*/checkpoint`")
        check_models(self.models, self.rows, [key for key in ("ks", "forget") if getattr(self, key) is not None])
        return self


def load_sweep(path: Path | str, overrides: list[str] | None = None) -> SweepRecipe:
    """Read a sweep's recipe and apply `key.sub=value` overrides; paths of training recipes become relative to here.

    Raises:
        UserError: file missing, not YAML, unknown key (with the closest known one), or a value out of range.
    """
    path = Path(path)
    values = overridden(read_values(path), overrides)
    sweep = parse_sweep(with_plugins(values, path.parent))
    models = tuple(m.model_copy(update={"recipe": path.parent / m.recipe}) if isinstance(m, ModelMatrix) else m for m in sweep.models)
    return sweep.model_copy(update={"models": models})


def parse_sweep(values: JsonObject) -> SweepRecipe:
    """Check a dictionary against the recipe's types.

    Raises:
        UserError: one line that names the first wrong key or value.
    """
    return validated(SweepRecipe, values)
